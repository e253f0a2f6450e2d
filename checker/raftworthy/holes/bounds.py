"""How far a server's variables can have come at a line, as its later lines say.

Terms, the commit index, what is applied, a leader's log and what it knows of others never go back while
the server runs, and a vote stays in its term. So what a later line tells bounds them before, and a wrong
guess shows where it is made.

    i  a server     j  another     me  i's variables
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import UNSET

from raftworthy.holes.lines import Line, Lines, known
from raftworthy.replay.ledger import Mismatch

GROWING = ("current_term", "commit_index", "last_applied")


@dataclass(frozen=True)
class Most:
    """What the variables are at most, each by the next line that tells it; nothing is said of the others."""

    growing: Mapping[str, int] = field(default_factory=dict)
    vote: tuple[int, str | None] | None = None  # a term, and who is voted for in it
    match_index: Mapping[str, int] = field(default_factory=dict)  # of a leader
    log_length: int | None = None  # of a leader
    stored: tuple[int, int] = (0, 0)  # a term, and the length of a log that has entries of it

    def exceeded(self, me: Any) -> Mismatch | None:
        """A variable that has come too far."""
        for name, n in self.growing.items():
            x = getattr(me, name)
            if x > n:
                return Mismatch(name, x, n)
        if me.voted_for is not None and self.vote not in (None, (me.current_term, me.voted_for)):
            assert self.vote is not None
            if me.current_term == self.vote[0]:
                return Mismatch("voted_for", me.voted_for, self.vote[1])
        term, length = self.stored
        if me.log and me.log[-1].term == me.current_term == term and len(me.log) > length:
            return Mismatch("log_length", len(me.log), length)
        if me.role == "leader":
            if self.log_length is not None and len(me.log) > self.log_length:
                return Mismatch("log_length", len(me.log), self.log_length)
            for j, n in self.match_index.items():
                if me.match_index.get(j, 0) > n:
                    return Mismatch(f"match_index[{j}]", me.match_index.get(j, 0), n)
        return None


class Bounds:
    """What each line's server can have come to, by its later lines."""

    def __init__(self, lines: Lines) -> None:
        self.after: dict[Line, Most] = {}
        for own in lines.of.values():
            most = Most()
            for line in reversed(own):
                self.after[line] = most
                most = _before(line, most)


def _before(line: Line, most: Most) -> Most:
    """The bounds before a line, from those after it."""
    if line.e.event == "restart":  # the last step before it may have been lost
        return Most()
    if line.e.event in ("timeout", "handle_append_entries"):  # another leadership, or none
        most = replace(most, match_index={}, log_length=None)
    told = _told(line)
    growing = {**most.growing, **{f: told[f] for f in GROWING if f in told}}
    most = replace(most, growing=growing)
    if "current_term" in told and "voted_for" in told:
        most = replace(most, vote=(told["current_term"], told["voted_for"]))
    known_of = {j: n for j, n in told.get("match_index", {}).items() if n}
    if known_of:
        most = replace(most, match_index={**most.match_index, **known_of})
    if "log_length" in told and line.e.event != "handle_append_entries":
        most = replace(most, log_length=told["log_length"])
    if "log_length" in told and "current_term" in growing:
        most = replace(most, stored=(growing["current_term"], told["log_length"]))
    return most


def _told(line: Line) -> dict[str, Any]:
    """What a line says of its server's variables, also by what it sends."""
    state = line.e.state
    values = {} if state is UNSET else {f: getattr(state, f) for f in state.__struct_fields__}
    told = {f: x for f, x in values.items() if x is not UNSET}
    for m in line.e.sends or ():
        have = known(m)
        if "term" in have:
            told.setdefault("current_term", have["term"])
        if type(m).__name__ == "RequestVoteReply" and have.get("granted") and "target" in have:
            told.setdefault("voted_for", have["target"])
    return told
