"""The specification's side: its state in an explored world, and its step by an input.

What Figure 2 lets a server do by itself, the core does in the step that makes it possible; so the
specification is made to do it at once, too.

    s, t  the state before and after     i  the server     me  i's variables in s
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raftd.core import NO_OP
from raftspec.extensions import having
from raftspec.raft import CANDIDATE, LEADER
from raftspec.spec import State, run
from raftspec.types import Type
from raftspec.values import ServerSet
from raftworthy.generated import World, to_spec
from raftworthy.lockstep.clients import spec_table
from raftworthy.lockstep.inputs import Input, S
from raftworthy.lockstep.meanings import command_of, text_of


def spec_state(world: World) -> S:
    """An explored state as the specification's own functions read it, with everything committed applied.

    Its messages are left out, so that those after a step are those that it sent.
    """
    spec = having(*world.past.extensions)
    record = Type("record", cls=spec.server)
    variables = {i: to_spec(v, record) for i, v in world.variables.items()}
    applied = variables
    if "sessions" not in spec.extensions:  # with a table, applying does more; it is left to `settle`
        applied = {i: me.but(last_applied=me.commit_index) for i, me in variables.items()}
    past = to_spec(world.past, Type("record", cls=spec.history))
    return State(applied, past, extensions=spec.extensions)


def spec_step(s: S, i: str, given: Input, asked: set[tuple[str, bool]] | None = None) -> S | None:
    """Where the specification gets to by an input and by what follows from it; None if it is refused.

    `asked` notes the rules that it came by, and what they said.
    """
    heard: list[S] = [s]
    failed: str | None = None
    t, actions = s, having(*s.extensions).actions
    for action, *params in _actions(s, i, given):
        failed, t = run(actions[action], t, *params)
        heard.append(t)
        if failed:
            break
    else:
        t = settle(t, i, heard)
    if asked is not None:
        asked |= {(a.rule, a.holds) for x in heard for a in x.asked}
    return None if failed else t


def _actions(s: S, i: str, given: Input) -> Iterator[tuple[Any, ...]]:
    """The actions that an input stands for."""
    if given.message is not None:
        yield given.event, given.message
    elif given.means:
        action, *said = given.means
        yield action, i, given.commands[0], *said
    elif given.commands:
        for command in given.commands:
            yield "client_request", i, command
    elif given.voters:
        yield given.event, i, "x", ServerSet(given.voters)
    elif given.successor is not None:
        yield given.event, i, given.successor
    elif given.event == "take_snapshot":
        yield given.event, i, s[i].last_applied  # all that there is: the state machine has no older state
    elif given.event != "append_entries":  # which changes nothing; what it may send, is asked later
        yield given.event, i


def settle(s: S, i: str, heard: list[S] | None = None) -> S:
    """Server i does at once what Figure 2 lets it do by itself: lead, with a no-op; commit; apply."""
    passed: list[S] = []
    actions = having(*s.extensions).actions

    def take(action: str, *params: Any) -> bool:
        failed, t = run(actions[action], passed[-1], *params)
        if not failed:
            passed.append(t)
        return not failed

    passed.append(s)
    if take("become_leader", i):
        take("client_request", i, NO_OP.decode())
    me = passed[-1][i]
    for n in range(me.log.length, me.commit_index, -1):
        if take("advance_commit_index", i, n):
            break
    me = passed[-1][i]
    for n in range(me.last_applied + 1 if s.has("sessions") else me.commit_index, me.commit_index + 1):
        take("apply_entries", i, n)
    if heard is not None:
        heard += passed
    return passed[-1]


def variables_of(s: S, i: str) -> dict[str, Any]:
    """A server's variables, as they are compared: votes of candidates, matches of leaders."""
    me = s[i]
    values = {
        "role": str(me.role),
        "current_term": me.current_term,
        "voted_for": me.voted_for,
        "log": [(e.term, text_of(command_of(s, e.value))) for e in me.log],
        "commit_index": me.commit_index,
        "last_applied": me.last_applied,
    }
    if me.role == CANDIDATE:
        values["votes"] = sorted(me.votes)
    if me.role == LEADER:
        values["match_index"] = dict(me.match_index.items)
    for name in (
        "pre_votes",
        "hears",
        "told_to_stand",
        "read_index",
        "read_round",
        "read_acks",
        "configured",
        "snapshot_index",
    ):
        if name in type(me).types():
            value = getattr(me, name)
            values[name] = sorted(value) if isinstance(value, ServerSet) else value
    if s.has("sessions"):
        values |= spec_table(s, i)
    if s.has("snapshots"):
        values["snapshot_term"] = me.log.at(me.snapshot_index).term
    return values
