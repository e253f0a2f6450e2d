"""A path as a space-time diagram in text: a column for each server, time goes down.

In each step the acting server's column says what it did, which message it took (`①` of `n1`), what it
sent (`②→n3`), and which of its variables changed. A log is written as its entries' terms.

    v  a server's variables     m  a message
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from raftspec.properties import raft
from raftspec.rules import RULES
from raftspec.spec import Property
from raftworthy.explore.reference import Move, Path
from raftworthy.generated import Variables

NUMBER_WIDTH = 4
MIN_COLUMN = 16
LOG_END = 8  # entries of a long log that are shown
LIFELINE = "│"
HARD_SPACE = "\N{NO-BREAK SPACE}"


class Line(NamedTuple):
    """A piece of a column, with its style for terminals that have colours."""

    text: str
    style: str = ""


class Labels:
    """A sign for each message, in the order of sending."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def __getitem__(self, m: Any) -> str:
        n = self._numbers.setdefault(m, len(self._numbers) + 1)
        if n <= 20:
            return chr(0x2460 + n - 1)
        if n <= 35:
            return chr(0x3251 + n - 21)
        return chr(0x32B1 + n - 36) if n <= 50 else f"({n})"


def show(value: Any) -> str:
    """A value in as few signs as are clear."""
    if isinstance(value, list | tuple):
        terms = [str(e.term) for e in value[-LOG_END:]]
        more = (
            [f"{len(value) - LOG_END} more"]
            if len(value) > LOG_END + 1
            else [str(e.term) for e in value[:-LOG_END]]
        )
        return f"[{' '.join([*more, *terms])}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {show(x)}" for k, x in sorted(value.items())) + "}"
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(value)) + "}"
    return "nobody" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def changes(before: Variables, after: Variables) -> Iterator[str]:
    """What a step changed, variable by variable. What a role takes along when it ends goes without saying."""
    changed = {
        name: getattr(after, name)
        for name in after.__slots__
        if getattr(before, name) != getattr(after, name)
    }
    for name, value in changed.items():
        forgotten = "role" in changed and isinstance(value, dict | frozenset) and not value
        if not forgotten:
            yield f"{name} {show(value)}"


def contents(m: Any) -> str:
    """A message's fields but for its two ends."""
    fields = (f for f in m.__struct_fields__ if f not in ("source", "target"))
    return together(f"{f} {show(getattr(m, f))}" for f in fields)


def together(items: Iterable[str]) -> str:
    """Items in a row, each to stay on one line."""
    return ", ".join(x.replace(" ", HARD_SPACE) for x in items)


def kind(m: Any) -> str:
    return str(m.__struct_config__.tag)


def _step(move: Move, before: Variables, labels: Labels, received: set[Any]) -> Iterator[Line]:
    m = move.message
    after = move.world.variables[move.server]
    if m is not None:
        yield Line(f"{labels[m]} {kind(m)} from {m.source}", "bold")
        yield Line(f"  {contents(m)}", "dim")
    else:
        yield Line(move.action, "bold")
        names = list(raft.actions[move.action].params)
        if move.params[1:]:
            shown = zip(names[1:], move.params[1:], strict=False)  # a trace's events name only the server
            yield Line(f"  {together(f'{name} {x}' for name, x in shown)}", "dim")
    changed = together(changes(before, after))
    if changed:
        yield Line(f"  {changed}", "green")
    elif not move.sent:
        yield Line("  nothing changes", "dim")
    for name, group in itertools.groupby(move.sent, kind):
        sent = list(group)
        yield Line(f"{' '.join(f'{labels[m]}→{m.target}' for m in sent)} {name}", "cyan")
        # What a message says is said where it is received, if it ever is.
        if len(sent) == 1 and sent[0] not in received:
            yield Line(f"  {contents(sent[0])}", "dim")


def _rows(path: Path, numbers: Iterable[str]) -> Iterator[tuple[str, str, list[Line]]]:
    """Each step's number, server and text."""
    labels = Labels()
    received = {move.message for move in path.moves}
    world = path.start
    if any(any(v.key()[1:]) for v in world.variables.values()):
        for i, v in world.variables.items():
            yield "", i, [Line("at first", "bold"), *_summary(v)]
    for number, move in zip(numbers, path.moves, strict=False):
        yield number, move.server, list(_step(move, world.variables[move.server], labels, received))
        world = move.world


def _summary(v: Variables) -> list[Line]:
    shown = together(f"{name} {show(getattr(v, name))}" for name in v.__slots__ if getattr(v, name))
    return [Line(f"  {shown}")]


def lay_out(path: Path, width: int = 100, numbers: Sequence[str] = ()) -> Text:
    """The diagram, in columns that fit a width. Steps are numbered from 1, or by `numbers`."""
    servers = list(path.start.variables)
    margin = max(NUMBER_WIDTH, *(len(n) + 2 for n in numbers), 0)
    column = max(MIN_COLUMN, (width - margin) // len(servers))
    out = Text(" " * margin + "".join(i.ljust(column) for i in servers).rstrip() + "\n", "bold")
    for number, server, lines in _rows(path, numbers or map(str, itertools.count(1))):
        place = servers.index(server)
        first = True
        for line in lines:
            indent = " " * (len(line.text) - len(line.text.lstrip()))
            for piece in textwrap.wrap(
                line.text, column - 2, initial_indent="", subsequent_indent=indent + "  ",
                drop_whitespace=True, break_on_hyphens=False,
            ):  # fmt: skip
                out.append((number if first else "").rjust(margin - 2) + "  ", "dim")
                out.append((LIFELINE.ljust(column)) * place, "dim")
                out.append(piece.replace(HARD_SPACE, " "), line.style)
                after = len(servers) - place - 1
                if after:
                    out.append(" " * (column - len(piece)))
                    out.append((LIFELINE.ljust(column) * after).rstrip(), "dim")
                out.append("\n")
                first = False
    return out


def at_the_end(path: Path) -> Text:
    """Where the path leads: roles, terms and logs."""
    out = Text()
    for i, v in path.world.variables.items():
        parts = [
            f"{name} {show(getattr(v, name))}"
            for name in v.__slots__
            if getattr(v, name) or isinstance(getattr(v, name), list)
        ]
        out.append(f"{i:>{NUMBER_WIDTH}}  {', '.join(parts)}\n")
    past = path.world.past
    seen = [f"{name} {show(getattr(past, name))}" for name in past.__slots__ if getattr(past, name)]
    if seen:
        out.append(f"{'past':>{NUMBER_WIDTH}}  {', '.join(seen)}\n", "dim")
    return out


def explain(
    path: Path, broken: Property | None = None, without: Iterable[str] = (), width: int = 100
) -> Text:
    """The diagram, where it leads, what is broken there, and the rules that would have prevented it."""
    out = lay_out(path, width)
    out.append("\n")
    out.append_text(at_the_end(path))
    if broken is not None:
        out.append("\n")
        out.append(f"violated: {broken.name}\n", "bold red")
        out.append(_filled(broken.doc, width))
    taken: Sequence[str] = sorted(without)
    for rule in taken:
        out.append(f"without: {rule}", "bold")
        out.append(f" (section {RULES[rule].section})\n".replace("section Figure", "Figure"))
        out.append(_filled(RULES[rule].why, width))
    return out


def _filled(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, initial_indent="  ", subsequent_indent="  ") + "\n"
