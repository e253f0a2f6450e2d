"""A path as a space-time diagram in text: a line down for each server, time goes down.

Each step says what the acting server did, which message it took (`①` of `n1`), what it sent (`②→n3`), and
which of its variables changed; in its own column if there is room, otherwise beside narrow lanes. A log is
written as its entries' terms.

    v  a server's variables     m  a message
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from raftspec.extensions import WHOLE
from raftspec.spec import Property
from raftworthy.explore.paths import Path
from raftworthy.generated import Variables

NUMBER_WIDTH = 4
MIN_COLUMN = 32  # narrower, and text is easier to read beside the lanes
MIN_TEXT = 40  # beside lanes; narrower than this and a line may be longer than the terminal
LOG_END = 8  # entries of a long log that are shown
LIFELINE = "│"
STEP, SENDER, WRONG = "●", "○", "✗"
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


def changes(before: Variables, after: Variables) -> dict[str, Any]:
    """The variables that a step changed. What a role takes along when it ends goes without saying."""
    changed = {
        name: getattr(after, name)
        for name in after.__slots__
        if getattr(before, name) != getattr(after, name)
    }

    def is_forgotten(value: Any) -> bool:
        return "role" in changed and isinstance(value, dict | frozenset) and not value

    return {name: value for name, value in changed.items() if not is_forgotten(value)}


def shown(values: Mapping[str, Any]) -> str:
    """Variables and their values in a row."""
    return together(f"{name} {show(value)}" for name, value in values.items())


def contents(m: Any) -> str:
    """A message's fields but for its two ends."""
    return shown({f: getattr(m, f) for f in m.__struct_fields__ if f not in ("source", "target")})


def together(items: Iterable[str]) -> str:
    """Items in a row, each to stay on one line."""
    return ", ".join(x.replace(" ", HARD_SPACE) for x in items)


def kind(m: Any) -> str:
    return str(m.__struct_config__.tag)


class Event(NamedTuple):
    """What an event that isn't a step says of itself."""

    server: str
    action: str
    message: Any | None
    told: Mapping[str, Any]  # variables and their values
    sent: tuple[Any, ...]


class Row(NamedTuple):
    """One step, or what some servers were before all of them."""

    number: str
    cells: dict[str, list[Line]]
    sender: str | None = None
    wrong: bool = False


def _step(
    action: str,
    params: str,
    m: Any | None,
    changed: str,
    sent: Sequence[Any],
    labels: Labels,
    received: set[Any],
) -> Iterator[Line]:
    if m is not None:
        yield Line(f"{labels[m]} {kind(m)} from {m.source}", "bold")
        yield Line(f"  {contents(m)}", "dim")
    else:
        yield Line(action, "bold")
        if params:
            yield Line(f"  {params}", "dim")
    if changed:
        yield Line(f"  {changed}", "green")
    elif not sent:
        yield Line("  nothing changes", "dim")
    for name, group in itertools.groupby(sent, kind):
        alike = list(group)
        yield Line(f"{' '.join(f'{labels[m]}→{m.target}' for m in alike)} {name}", "cyan")
        # What a message says is said where it is received, if it ever is.
        if len(alike) == 1 and alike[0] not in received:
            yield Line(f"  {contents(alike[0])}", "dim")


def _rows(path: Path, numbers: Iterable[str], wrong: Event | None) -> Iterator[Row]:
    """Each step's number, server and text; then the event that isn't one."""
    labels = Labels()
    received = {move.message for move in path.moves} | {wrong.message if wrong else None}
    world = path.start
    if any(any(v.key()[1:]) for v in world.variables.values()):
        yield Row("", {i: [Line("at first", "bold"), *_summary(v)] for i, v in world.variables.items()})
    numbers = iter(numbers)
    for move in path.moves:
        names = list(WHOLE.actions[move.action].params)[1:]
        # A trace's events name only the server.
        params = together(f"{name} {x}" for name, x in zip(names, move.params[1:], strict=False))
        changed = shown(changes(world.variables[move.server], move.world.variables[move.server]))
        lines = _step(move.action, params, move.message, changed, move.sent, labels, received)
        sender = None if move.message is None else str(move.message.source)
        yield Row(next(numbers), {move.server: list(lines)}, sender)
        world = move.world
    if wrong is not None:
        first, *rest = _step(wrong.action, "", wrong.message, shown(wrong.told), wrong.sent, labels, received)
        cell = [Line(f"{WRONG} {first.text}", "bold red"), *rest]
        yield Row(next(numbers), {wrong.server: cell}, wrong.message and wrong.message.source, wrong=True)


def _summary(v: Variables) -> list[Line]:
    return [Line(f"  {shown({name: getattr(v, name) for name in v.__slots__ if getattr(v, name)})}")]


def _wrapped(line: Line, width: int) -> list[Line]:
    """A line in pieces that fit, broken between items; within one only if it is too long by itself."""
    indent = " " * (len(line.text) - len(line.text.lstrip()) + 2)
    room = width - len(indent)
    words = (w if len(w) <= room else w.replace(HARD_SPACE, " ") for w in line.text.split(" "))
    pieces = textwrap.wrap(
        " ".join(words), width, subsequent_indent=indent, drop_whitespace=True, break_on_hyphens=False
    )
    return [Line(piece.replace(HARD_SPACE, " "), line.style) for piece in pieces]


def lay_out(path: Path, width: int = 100, numbers: Sequence[str] = (), wrong: Event | None = None) -> Text:
    """The diagram, in a width. Steps are numbered from 1, or by `numbers`; `wrong` comes after the last."""
    servers = list(path.start.variables)
    rows = list(_rows(path, numbers or map(str, itertools.count(1)), wrong))
    margin = max(NUMBER_WIDTH, *(len(n) + 2 for n in numbers), 0)
    column = (width - margin) // len(servers)
    if column >= MIN_COLUMN:
        return _in_columns(rows, servers, margin, column)
    return _beside_lanes(rows, servers, margin, width)


def _heading(servers: Sequence[str], margin: int, column: int) -> Text:
    # Not as the style of the whole text, which what is appended would inherit.
    return Text().append(" " * margin + "".join(i.ljust(column) for i in servers).rstrip() + "\n", "bold")


def _put(out: Text, number: str, margin: int, pieces: Iterable[Line]) -> None:
    """One line of the diagram, without spaces at its end."""
    line = Text().append(number.rjust(margin - 2) + "  ", "dim")
    for text, style in pieces:
        line.append(text, style)
    line.rstrip()
    out.append_text(line)
    out.append("\n")


def _in_columns(rows: Sequence[Row], servers: Sequence[str], margin: int, column: int) -> Text:
    """Each server's text in its own column."""
    out = _heading(servers, margin, column)
    for row in rows:
        cells = {
            i: [piece for line in lines for piece in _wrapped(line, column - 2)]
            for i, lines in row.cells.items()
        }
        for k in range(max(map(len, cells.values()))):
            beside = [cells[i][k] if k < len(cells.get(i, ())) else Line(LIFELINE, "dim") for i in servers]
            padded = (Line(text.ljust(column), style) for text, style in beside)
            _put(out, "" if k else row.number, margin, padded)
    return out


def _beside_lanes(rows: Sequence[Row], servers: Sequence[str], margin: int, width: int) -> Text:
    """A narrow lane for each server, in which a sign says who takes the step, and the text beside them."""
    lane = max(map(len, servers)) + 2
    seen = {i for row in rows if row.number for i in (*row.cells, row.sender)}
    idle = [i for i in servers if i not in seen] if lane * len(servers) > width // 2 else []
    servers = [i for i in servers if i not in idle]
    room = max(MIN_TEXT, width - margin - lane * len(servers))
    out = _heading(servers, margin, lane)
    if idle:
        out.append(f"{' ' * margin}no events here: {', '.join(idle)}\n", "dim")
    quiet = Line(LIFELINE.ljust(lane) * len(servers), "dim")
    for row in rows:
        for i in servers:
            signs = Line(_signs(i, row, servers, lane), "bold red" if row.wrong else "bold")
            pieces = (piece for line in row.cells.get(i, ()) for piece in _wrapped(line, room))
            for k, piece in enumerate(pieces):
                _put(out, "" if k else row.number, margin, (quiet if k else signs, piece))
    return out


def _signs(server: str, row: Row, servers: Sequence[str], lane: int) -> str:
    """The lanes beside a server's step, with an arrow from the sender of the message it took."""
    signs = list(LIFELINE.ljust(lane) * len(servers))
    target = servers.index(server) * lane
    if row.sender in servers and row.sender != server:
        source = servers.index(row.sender) * lane
        low, high = sorted((source, target))
        signs[low:high] = ["┼" if sign == LIFELINE else "─" for sign in signs[low:high]]
        signs[source] = SENDER
        signs[target + (-1 if source < target else 1)] = "→" if source < target else "←"
    signs[target] = WRONG if row.wrong else STEP
    return "".join(signs)


def at_the_end(path: Path, width: int = 100) -> Text:
    """Where the path leads: roles, terms and logs."""
    out = Text()
    for i, v in path.world.variables.items():
        parts = [
            f"{name} {show(getattr(v, name))}"
            for name in v.__slots__
            if getattr(v, name) or isinstance(getattr(v, name), list)
        ]
        out.append(_hanging(i, parts, width))
    past = path.world.past
    seen = [f"{name} {show(getattr(past, name))}" for name in past.__slots__ if getattr(past, name)]
    if seen:
        out.append(_hanging("past", seen, width), "dim")
    return out


def _hanging(name: str, items: Iterable[str], width: int) -> str:
    """A name, and beside it items, on as many lines as that takes."""
    first = f"{name:>{NUMBER_WIDTH}}  "
    text = textwrap.fill(
        together(items),
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )
    return text.replace(HARD_SPACE, " ") + "\n"


def explain(
    path: Path,
    broken: Property | None = None,
    without: Iterable[str] = (),
    width: int = 100,
    numbers: Sequence[str] = (),
) -> Text:
    """The diagram, where it leads, what is broken there, and the rules that would have prevented it."""
    out = lay_out(path, width, numbers)
    out.append("\n")
    out.append_text(at_the_end(path, width))
    if broken is not None:
        out.append("\n")
        out.append(f"violated: {broken.name}\n", "bold red")
        out.append(_filled(broken.doc, width))
    taken: Sequence[str] = sorted(without)
    for rule in taken:
        out.append(f"without: {rule}", "bold")
        out.append(f" (section {WHOLE.rules[rule].section})\n".replace("section Figure", "Figure"))
        out.append(_filled(WHOLE.rules[rule].why, width))
    return out


def _filled(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, initial_indent="  ", subsequent_indent="  ") + "\n"
