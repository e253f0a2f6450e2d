"""What can happen to a server next, as an explored state has it.

s  the specification's state     i  the server     me  i's variables in s
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from raftspec.extensions import WHOLE, having
from raftspec.raft import LEADER, AppendEntriesReply, has_quorum
from raftspec.spec import State, run
from raftspec.types import Message
from raftworthy.lockstep.clients import requests
from raftworthy.lockstep.wording import describe_message

S = State[Any, Any]

READS = ("begin_read", "serve_read")  # what a driver asks of a core that has readers
CHANGES = ("change_voters", "enter_joint")
HANDLERS = {a.message: a.name for a in WHOLE.actions.values() if a.message}


@dataclass(frozen=True)
class Input:
    """What a server is given, and what the specification leaves open about the core that takes it."""

    event: str
    message: Message | None = None
    commands: tuple[str, ...] = ()
    behind: bool = False  # leader: next_index follows match_index, instead of the log's end
    silent: bool = False  # leader: nobody has answered for a heartbeat's time
    hint: int = 0  # in a refusal: where to try next
    voters: tuple[str, ...] = ()  # of a configuration that a leader shall append
    means: tuple[Any, ...] = ()  # of a command about sessions: the action that appends it, and what it says
    successor: str | None = None  # to whom a leader hands over

    def __str__(self) -> str:
        told = (
            describe_message(self.message)
            if self.message
            else self.successor or ", ".join(map(str, self.means or self.commands or self.voters))
        )
        chosen = [
            f"hint={self.hint}" if self.hint else "",
            "next_index = match_index + 1" if self.behind else "",
            "followers silent" if self.silent else "",
        ]
        return f"{self.event}({told})" + "".join(f", {c}" for c in chosen if c)


def inputs(s: S, i: str, messages: Iterable[Message], alone: bool = True) -> Iterator[Input]:
    """What can happen to server i next: these messages and, unless not `alone`, what needs none."""
    me = s[i]
    leads = me.role == LEADER
    # Where `next_index` is makes a difference only if the log goes on after `match_index`.
    places = (
        (False, True) if leads and any(me.match_index[j] < me.log.length for j in s.servers) else (False,)
    )
    for behind in places:
        for m in messages:
            # A hint is the follower's advice; whatever it says, the step must be right.
            refused = isinstance(m, AppendEntriesReply) and not m.success
            for hint in range(me.log.length + 1 if refused else 1):
                yield Input(HANDLERS[type(m)], m, behind=behind, hint=hint)
        if not alone:
            continue
        yield Input("client_request", commands=("x",), behind=behind)
        yield Input("client_request", commands=("x", "y"), behind=behind)
        if s.has("sessions") and not behind:  # `next_index` is about what is sent of it, as of any entry
            for means in requests():
                yield Input("client_request", commands=("x",), means=means)
        if s.has("membership"):
            for size in range(1, len(s.servers) + 1):
                for voters in combinations(s.servers, size):
                    yield from (Input(event, voters=voters, behind=behind) for event in CHANGES)
        if leads:
            yield Input("append_entries", behind=behind)
            yield Input("append_entries", behind=behind, silent=True)
    if alone:
        yield from _of_itself(s, i)


def _of_itself(s: S, i: str) -> Iterator[Input]:
    """What happens to server i without a message: time passes, an operator wants something, it dies."""
    if s[i].role != LEADER:
        # Whoever has to ask first asks, until enough would vote for it.
        waits, _ = run(having(*s.extensions).actions["timeout"], s, i)
        yield Input("start_pre_vote" if waits and s.has("pre_vote") else "timeout")
    else:
        if s.has("check_quorum") and not has_quorum(s, s[i], lambda j: j == i, 1):  # who hears only itself
            yield Input("lose_quorum")
        if s.has("leadership_transfer"):
            yield from (Input("transfer_leadership", successor=j) for j in s.servers if i != j)
    if s.has("reads"):
        yield from map(Input, READS)
    if s.has("snapshots") and s[i].last_applied > s[i].snapshot_index:
        yield Input("take_snapshot")
    yield Input("restart")
