"""Why Raft's promises hold: an invariant that every step keeps, in conjuncts small enough to be read.

Each is a claim about any state and any servers, terms, indices or messages. Together they are inductive: a
state that satisfies all of them, reachable or not, is followed by such states only, and the promises of
`raftspec.properties` follow. Those of Figure 2 are in `invariant_figure_2`, others with their extensions
in `invariant_extended`, `invariant_sessions` and `invariant_membership`, with lemmas in
`membership_lemmas`, `membership_elections` and `membership_commitment`.

Some speak of what no server remembers: for whom it voted in past terms, what it acknowledged to past
leaders, what a leader's log was. `with_witnesses` keeps that beside the protocol's own variables; no rule
reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import raftspec.invariant_extended
import raftspec.invariant_figure_2
import raftspec.membership_commitment
import raftspec.membership_elections  # noqa: F401  (these declare what holds)
from raftspec.claims import CONJUNCTS, LEMMAS, OF_EXTENSIONS, REPLACED
from raftspec.extensions import joined
from raftspec.invariant_membership import Elections, went_by
from raftspec.invariant_sessions import Tables, written
from raftspec.properties import raft
from raftspec.raft import AppendEntriesReply, RequestVoteReply
from raftspec.reads import ReadIndexReply
from raftspec.spec import Action, OnlyIf, Property, Spec, Step, when
from raftspec.types import Message, Record, Type
from raftspec.values import ite
from raftspec.witnesses import Answering, Chronicle, Made, Witnesses


def conjuncts(spec: Spec) -> dict[str, Property]:
    """The invariant of Raft with its extensions."""
    names = sorted(spec.extensions)
    more = (OF_EXTENSIONS.get(name, {}) for name in names)
    replaced = {old for name in names for old in REPLACED.get(name, ())}
    kept = {name: p for name, p in CONJUNCTS.items() if name not in replaced}
    return {name: p for claims in (kept, *more) for name, p in claims.items()}


def lemmas(spec: Spec) -> dict[str, Property]:
    """What follows from the invariant of Raft with its extensions, and helps to prove that it is kept."""
    names = sorted(spec.extensions)
    replaced = {old for name in names for old in REPLACED.get(name, ())}
    out = {n: p for n, p in LEMMAS[""].items() if n not in replaced}
    return out | {n: p for name in names for n, p in LEMMAS.get(name, {}).items()}


# --- witnesses ---------------------------------------------------------------


def _sent(step: Step, kind: type[Message]) -> list[tuple[Any, Any]]:
    """The messages of a kind that a step sends, each with its condition."""
    pairs = [(x.condition, x.message) if isinstance(x, OnlyIf) else (True, x) for x in step.sends]
    return [(condition, m) for condition, m in pairs if isinstance(m, kind)]


def _own_vote(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    term = step.then.current_term  # type: ignore[union-attr]
    return {"voted": me.voted.set(term, me.voted[term].add(i))}


def _vote(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    voted = me.voted
    for condition, m in _sent(step, RequestVoteReply):
        voted = ite(condition & m.granted, voted.set(m.term, voted[m.term].add(m.target)), voted)
    return {"voted": voted}


def _further(acked: Any, condition: Any, term: Any, n: Any) -> Any:
    return ite(condition & (n > acked[term]), acked.set(term, n), acked)


def _acknowledgement(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    acked = me.acked
    for condition, m in _sent(step, AppendEntriesReply):
        acked = _further(acked, condition & m.success, m.term, m.match_index)
    return {"acked": acked}


def _own_entries(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    """A leader counts itself among those that store what it has."""
    now: Any = step.then
    return {"acked": _further(me.acked, True, now.current_term, now.log.length)}


def _answered(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    answered = me.answered
    for condition, m in _sent(step, ReadIndexReply):
        answered = _further(answered, condition, m.term, m.round)
    return {"answered": answered}


def _own_round(s: Any, i: str, me: Any, step: Step) -> dict[str, Any]:
    """A leader counts itself among those that answer."""
    now: Any = step.then
    return {"answered": _further(me.answered, True, now.current_term, now.read_round)}


_TOLD: dict[str, Callable[..., dict[str, Any]]] = {
    "timeout": _own_vote,
    "handle_request_vote": _vote,
    "handle_append_entries": _acknowledgement,
    "handle_install_snapshot": _acknowledgement,
    "begin_read": _own_round,
    "handle_read_index": _answered,
}
_BY_LEADERS = (
    "become_leader", "client_request", "register_client", "session_request", "expire_sessions",
    "change_voters", "enter_joint",
)  # fmt: skip
_TOLD |= dict.fromkeys(_BY_LEADERS, _own_entries)


def _witnesses(spec: Spec) -> type[Record]:
    """A server's variables with the witnesses beside them."""
    kinds = (Witnesses, Answering) if "reads" in spec.extensions else (Witnesses,)
    return joined(*kinds, spec.server)


def _chronicle(spec: Spec) -> type[Record]:
    """History with the witnesses beside it."""
    kinds = {"membership": Elections, "sessions": Tables}
    return joined(Chronicle, *(kinds[name] for name in sorted(spec.extensions & kinds.keys())), spec.history)


def _recorded(
    name: str, original: Callable[..., Step], taken: Mapping[str, Type], spec: Spec
) -> Callable[..., Step]:
    """An action that also keeps the witnesses."""
    witnesses = _witnesses(spec)
    chronicle = _chronicle(spec)

    def changed(s: Any, *params: Any) -> Step:
        step = original(s, *params)
        me = s[step.server]
        then, history = step.then, step.history
        if then is not None:
            protocol = {name: getattr(then, name) for name in spec.server.types()}
            told = _TOLD[name](s, step.server, me, step) if name in _TOLD else {}
            kept = {f: getattr(me, f) for f in witnesses.types() if f not in protocol}
            then = witnesses(**protocol, **{**kept, **told})
        if name in _BY_LEADERS:
            log, term = then.log, then.current_term  # type: ignore[union-attr]
            history = history.but(logs=s.past.logs.set(term, log))  # type: ignore[union-attr]
        guards = step.guards
        given = dict(zip(taken, params, strict=True))
        v, n = given.get("v"), given.get("n")
        if v is not None and issubclass(chronicle, Made):
            guards = (*guards, when("v is new", s.past.place[v] == 0))
            history = history.but(place=s.past.place.set(v, me.log.length + 1))  # type: ignore[union-attr]
        if issubclass(chronicle, Elections):
            history = went_by(name, me, v, n, s.past if history is None else history)
        if issubclass(chronicle, Tables) and name == "apply_entries":
            history = written(s, then, history)
        return Step(step.server, *guards, then=then, send=step.sends, history=history)

    return changed


def with_witnesses(spec: Spec = raft) -> Spec:
    """Raft, or a mutant of it, that keeps witnesses, and has the conjuncts as properties."""
    actions = {
        name: Action(name, _recorded(name, a.function, a.params, spec), a.params)
        for name, a in spec.actions.items()
    }
    properties = {**conjuncts(spec), **lemmas(spec), **spec.properties}
    kinds = _witnesses(spec), _chronicle(spec)
    return Spec(*kinds, spec.rules, actions, properties, extensions=spec.extensions)
