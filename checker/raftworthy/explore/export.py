"""Paths as traces: what an exploration found, written in the format that replay reads.

Also the shortest traces that break a rule: the specification without the rule runs beside the
complete one, until something is seen that the complete one doesn't do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath
from typing import Any

import msgspec

from raftspec.extensions import WHOLE
from raftspec.rules import POLICY, RULES
from raftspec.spec import Spec
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import BEGINNINGS, RULE_CASES, Case, Walk
from raftworthy.explore.keys import Keys
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move, Path
from raftworthy.generated import Variables, World
from raftworthy.replay.format import appending

VERSION = 1
# What a server knows in one role only; in another the values mean nothing to anybody.
MEANINGS = appending(WHOLE)
NUMBERED = ("lowest", "responses")
ROLE_OF = {"votes": "candidate", "next_index": "leader", "match_index": "leader"}
# Figure 2's choices are not asked of a server, but its refusals are part of the conversation.
NOT_ASKED = POLICY - {"vote.refuse", "append.refuse"}
# A restart may lose the last step if nobody has heard of it; so somebody has to have heard.
# And what nothing follows from within reach is still to be seen in a trace.
TRACE_CASES = {
    "restart.keep_log": Case(Bounds(max_term=1, crashes=1), "stored"),
    "vote.current_term": Case(Bounds(max_log=0)),
}


# --- a path as a trace -------------------------------------------------------


def trace_events(path: Path) -> Iterator[dict[str, Any]]:
    """A path's lines: a header, a first start of every server, then an event for each step.

    The path must begin in the initial state: a trace tells all that a server ever did.
    """
    servers = list(path.start.variables)
    extensions = sorted(path.start.past.extensions)
    yield {"raftworthy": VERSION, "servers": servers} | ({"extensions": extensions} if extensions else {})
    sequence = dict.fromkeys(servers, 1)
    starts = dict.fromkeys(servers, 1)
    for i, v in path.start.variables.items():
        if any(v.key()[1:]):
            raise ValueError(f"the path begins in the middle of {i}'s life; begin in the initial state")
        yield _restart(i, 1, 1, v)
    for move in path.moves:
        i = move.server
        after = move.world.variables[i]
        sequence[i] += 1
        if move.action == "restart":
            starts[i] += 1
            sequence[i] = 1
            yield _restart(i, 1, starts[i], after)
        else:
            yield _event(i, sequence[i], move, after)


def _restart(i: str, seq: int, start: int, v: Variables) -> dict[str, Any]:
    state = {name: _state(v)[name] for name in ("current_term", "voted_for", "log_length", "last_log_term")}
    event = {"server": i, "seq": seq, "event": "restart", "start": start, "state": state}
    log = v.log  # type: ignore[attr-defined]
    return event | ({"after": 0, "entries": msgspec.to_builtins(log)} if log else {})


def _event(i: str, seq: int, move: Move, after: Variables) -> dict[str, Any]:
    event: dict[str, Any] = {"server": i, "seq": seq, "event": move.action}
    if move.message is not None:
        event["message"] = msgspec.to_builtins(move.message)
    # All variables, not only those that changed: what should have changed and did not is to be seen, too.
    event["state"] = _state(after)
    meant = MEANINGS.get(move.action, ())
    meaning: dict[str, Any] = {}
    params = zip(WHOLE.actions[move.action].params.items(), move.params, strict=True)
    for (name, t), value in params:
        if name in meant:
            meaning[name] = value
        if t.name == "value":
            event["entries"] = msgspec.to_builtins(after.log[-1:])  # type: ignore[attr-defined]
        elif t.kind == "set":
            event[name] = sorted(value)
    if meaning:
        event["entries"] = [[*event["entries"][0], meaning]]
    event["sends"] = [msgspec.to_builtins(m) for m in move.sent]
    return event


def _state(v: Variables) -> dict[str, Any]:
    """A server's variables as a trace tells them."""
    state: dict[str, Any] = {}
    for name in v.__slots__:
        value = getattr(v, name)
        if isinstance(value, list):
            state[f"{name}_length"] = len(value)
            state[f"last_{name}_term"] = value[-1].term if value else 0
        elif name in NUMBERED:
            continue  # a trace has requests of many clients, the specification one client's numbers
        elif ROLE_OF.get(name, v.role) == v.role:  # type: ignore[attr-defined]
            state[name] = sorted(value) if isinstance(value, frozenset) else value
    return state


def write_trace(path: Path, file: FilePath) -> None:
    """Write a path as a trace."""
    encode = msgspec.json.Encoder().encode
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(encode(event) + b"\n" for event in trace_events(path)))


# --- the shortest trace that breaks a rule -----------------------------------


def deviation(
    case: Case, rule: str, spec: Spec | None = None, limit_states: int | None = None
) -> Path | None:
    """The shortest path without a rule, after the case's beginning, whose last step can be seen to be wrong.

    Both run side by side. A step is wrong if the complete specification doesn't take it, sends
    something else, or comes to other variables that a trace would tell. None: there is no such step.
    """
    spec = spec or case.spec
    choices = NOT_ASKED if case.any_policy else frozenset[str]()
    wrong = Model(spec, case.bounds, {rule} | choices, properties=False)
    right = Model(spec, case.bounds, choices, properties=False)
    lenient = [Model(spec, case.bounds, free, properties=False) for free in (NOT_ASKED, spec.policy)]
    keys = Keys(spec, case.bounds.names, symmetry=False)

    def beside(s: World, move: Move) -> World | None:
        """The complete specification's state after the same step, if it takes it."""
        for model in (right, *lenient):
            found = model.take(s, move.action, move.params)
            # What was sent before may be sent again, or be on its way still: nobody can tell.
            if (
                found
                and set(found.sent) - s.messages == set(move.sent) - s.messages
                and _same_to_others(found.world, move.world)
            ):
                return found.world
        return None

    walk = BEGINNINGS[case.start](Walk(Model(spec, case.bounds, {rule}, properties=False))).path
    shadow = walk.start
    for k, move in enumerate(walk.moves):
        followed = beside(shadow, move)
        if followed is None:
            return Path(walk.start, walk.moves[: k + 1])
        shadow = followed

    def key(s: World, t: World) -> tuple[int, ...]:
        return (*keys.key(keys.parts(s)), *keys.key(keys.parts(t)))

    known = {key(walk.world, shadow)}
    level = [(walk, shadow)]
    while level:
        frontier = []
        for path, shadow in level:
            for move in wrong.moves(path.world):
                followed = beside(shadow, move)
                if followed is None:
                    return path.then(move)
                if (found := key(move.world, followed)) not in known:
                    known.add(found)
                    frontier.append((path.then(move), followed))
            if limit_states is not None and len(known) >= limit_states:
                return None
        level = frontier
    return None


def _same_to_others(s: World, t: World) -> bool:
    """Whether a trace tells the same of two states; what is sent next is a server's choice."""
    for a, b in zip(s.variables.values(), t.variables.values(), strict=True):
        if a.log != b.log:
            return False
        if {**_state(a), "next_index": None} != {**_state(b), "next_index": None}:
            return False
    return True


def write_rule_traces(
    folder: FilePath, rules: Iterable[str] | None = None, limit_states: int = 20_000
) -> list[str]:
    """Write `<rule>.ndjson` for every safety rule that a trace can be seen to break. Returns the rules."""
    written = []
    for rule, case in {**RULE_CASES, **TRACE_CASES}.items():
        if RULES[rule].kind != "safety" or (rules is not None and rule not in rules):
            continue
        path = deviation(case, rule, limit_states=limit_states)
        if path is not None:
            write_trace(path, folder / f"{rule}.ndjson")
            written.append(rule)
    return written
