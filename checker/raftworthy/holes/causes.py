"""Which choices a contradiction is likely to come from. What is unlikely is made anew only if that fails.

line  the line that can't be     choices  those made so far, the newest last; as bits, the first lowest
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET

from raftworthy.holes.lines import KINDS, Line, known
from raftworthy.structs import snake_case


class Chosen(Protocol):
    """A choice: the line for which it was made."""

    line: Line
    voters: bool  # whether it was guessed who votes
    astray: bool  # whether the message might have been for another server


def own_choices(line: Line, choices: Sequence[Chosen]) -> int:
    """Those of the line's own server."""
    return sum(1 << k for k, c in enumerate(choices) if c.line.e.server == line.e.server)


def guesses_of_voters(choices: Sequence[Chosen]) -> int:
    """Those where it was guessed who votes: whether anybody may lead or commit depends on it."""
    return sum(1 << k for k, c in enumerate(choices) if c.voters)


def sending_choices(line: Line, choices: Sequence[Chosen]) -> int:
    """Those by which the message that a line received, and nobody sent, may be sent after all.

    Or by which its server received it too early, for another line, or another server did.
    """
    i, event = line.e.server, line.e.event
    asked = event.removesuffix("_reply")  # a reply is sent where its request is handled
    bits = 0
    for k, c in enumerate(choices):
        e = c.line.e
        own = e.server == i and e.event == event
        taken = c.astray and e.server != i and e.event == event
        if own or taken or (e.server != i and asked in (event, e.event) and _may_send(c.line, line)):
            bits |= 1 << k
    return bits


def _may_send(sender: Line, line: Line) -> bool:
    """Whether a line leaves it open that its step sent what another received."""
    pattern = {} if line.e.message is UNSET else known(line.e.message)
    if pattern.get("source", sender.e.server) != sender.e.server:
        return False
    if sender.e.sends is UNSET:
        return True
    sent = [known(x) for x in sender.e.sends if snake_case(type(x).__name__) == KINDS[line.e.event]]
    return any(
        m.get("target", line.e.server) == line.e.server
        and all(f == "entries" or pattern.get(f, x) == x for f, x in m.items())
        for m in sent
    )
