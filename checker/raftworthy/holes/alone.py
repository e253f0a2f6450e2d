"""One server's lines by themselves: whatever the others did, do they follow from each other?

Where a server's lines tell every message that it received and all that it did of its own accord, its
variables are known from them alone. A line that contradicts them is refuted, whatever any other server did.

    i  the server     m  a message
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from raftspec.extensions import having
from raftspec.graph import postorder
from raftspec.spec import Rule
from raftworthy.holes.hints import LaterLines
from raftworthy.holes.lines import Line, Lines, known, whole
from raftworthy.holes.trial import Trial
from raftworthy.replay.ledger import FIGURE_2, Violation
from raftworthy.replay.meanings import mean
from raftworthy.wording import show

# What follows from what entries mean, which other servers' lines may tell.
TABLE = {"answers", *having("sessions").server.types()} - FIGURE_2


@dataclass(frozen=True)
class Contradiction:
    """A line that its server's lines before it don't allow."""

    line: Line
    before: Sequence[Line]
    action: str
    claim: str
    rule: Rule | None
    because: Sequence[tuple[Line, str]]


def contradiction(lines: Lines) -> Contradiction | None:
    """The first line that contradicts its own server's lines before it, as far as those tell everything."""
    found = [c for i in lines.servers if (c := _of(lines, i)) is not None]
    return min(found, key=lambda c: c.line.number, default=None)


def _of(lines: Lines, i: str) -> Contradiction | None:
    if "membership" in lines.extensions:  # which of its entries are configurations, other lines tell
        return None
    trial = Trial(lines.servers, lines.extensions)
    trial.hints = hints = LaterLines(lines)
    known_meanings = "sessions" in lines.extensions and _all_appended_told(lines)
    if known_meanings:
        for value, told in hints.told.items():
            mean(trial.world.past, value, told, trial.appending)
    for k, line in enumerate(lines.of[i]):
        m: Any = line.e.message if line.receives else UNSET
        if line.entries_unknown or (line.receives and not whole(m)):
            return None
        if hasattr(m, "last_included_index"):  # of what, other servers' lines tell
            return None
        sends = None if line.e.sends is UNSET else line.e.sends
        found = trial.attempt(trial.filled(line, m), line, sends)
        if isinstance(found, Violation):
            table = any(m.name.partition("[")[0] in TABLE for m in found.mismatches)
            if found.kind == "restart" or (table and not known_meanings):
                return None  # others may have seen what the disk shows, or what an entry means
            return _told(trial, lines.of[i][:k], line, found)
        if found is False or trial.inferred or trial.bounded:
            return None
    return None


def _all_appended_told(lines: Lines) -> bool:
    """Whether lines tell every entry that a leader appended, and of all that clients asked for what it means.

    If so, the others mean nothing: they are no requests, as a leader's first entry is none.
    """
    if lines.lost or any(line.entries_unknown for line in lines.all()):
        return False
    asked = (x for line in lines.all() if line.e.event == "client_request" for x in line.e.entries)
    return all(getattr(x, "meaning", None) is not None for x in asked)


def _told(trial: Trial, before: Sequence[Line], line: Line, v: Violation) -> Contradiction:
    """What is wrong, and the rule that says so."""
    i = line.e.server
    rule: Rule | None = None
    if v.kind == "guard" and v.guard:
        guard = trial.generated.transitions[v.action].guards[v.guard - 1]
        names = [n.attr for n in postorder(guard.condition) if n.op == "rule"]
        rule = trial.spec.rules[names[0]] if names else None
        params = ", ".join(show(x) for x in v.params if x != i)
        claim = f"{i} may not {v.action}({params}) here: it doesn't hold that {guard.text}"
    elif v.mismatches:
        m = v.mismatches[0]
        claim = f"{i} comes out of {v.action} with {m.name} = {show(m.expected)}, not {show(m.seen)}"
    else:
        claim = f"{i} sends in {v.action} what the specification does not send"
    return Contradiction(line, before, v.action, claim, rule, list(_heard(before, line)))


def _heard(before: Sequence[Line], line: Line) -> list[tuple[Line, str]]:
    """What the server last heard from each other, as far as it is counted."""
    last: dict[str, tuple[Line, str]] = {}
    for earlier in before:
        if earlier.receives and earlier.e.event.endswith("_reply"):
            m = known(earlier.e.message)
            what = ", ".join(f"{f} = {show(x)}" for f, x in m.items() if f not in ("source", "target"))
            last[m["source"]] = earlier, f"the last that {line.e.server} heard from {m['source']}: {what}"
    return sorted(last.values(), key=lambda x: x[0].number)
