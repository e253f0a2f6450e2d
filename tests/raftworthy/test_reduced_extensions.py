"""Reductions keep the answer where Raft is extended, and are refused where they would not.

States are compared as in `test_reductions`, but of a log's commands only what they mean, as sorted steps
number commands otherwise.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
pytest.importorskip("z3")

from tests.raftworthy.test_reductions import MOST, states

from raftspec.extensions import having
from raftspec.membership import change_voters
from raftspec.mutants import MUTANTS, Mutant
from raftspec.raft import raft
from raftspec.spec import Step, when
from raftspec.types import Index, Server, Value
from raftspec.values import ServerSet
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.generated import World
from raftworthy.native.engine import explore_native
from raftworthy.reduce import order
from raftworthy.reduce.deriving import permits_for
from raftworthy.reduce.lemmas import Claim, kept, recorded
from raftworthy.reduce.looking import at_sight
from raftworthy.reduce.meanings import changing, settled
from raftworthy.reduce.order import Clock
from raftworthy.reduce.permits import Permits
from raftworthy.reduce.questions import Questions

MEMBERS = Bounds(servers=2, max_term=1, extensions=("membership",))
MEANINGS = ("voters", "outgoing", "client", "sequence", "lowest", "time", "registered", "expired")


def changed(name: str, bounds: Bounds) -> Model:
    """The extended specification with a bug, or without a rule; as it is, if there is no name."""
    spec = having(*bounds.extensions)
    return Model(spec, bounds, [name] if "." in name else [], MUTANTS.get(name))


def made_up(bounds: Bounds, *without: str, **actions: object) -> Model:
    """The extended specification without some rules, and with these actions."""
    mutant = Mutant("made up", "", "", without=frozenset(without), actions=actions)  # type: ignore[arg-type]
    return Model(having(*bounds.extensions), bounds, mutant=mutant)


def projection(s: World) -> str:
    """What a state looks like, whoever is who."""
    top = max(v.current_term for v in s.variables.values())
    maps = [getattr(s.past, h) for h in MEANINGS if hasattr(s.past, h)]

    def seen(to: dict[str | None, int]) -> str:
        def named(x: Any) -> Any:
            return sorted(to[i] for i in x) if isinstance(x, frozenset) else x

        rows: dict[int, object] = {}
        for i, v in s.variables.items():
            log = [(e.term, *(named(x.get(e.value)) for x in maps)) for e in v.log]
            office = (v.role, to[v.voted_for]) if v.current_term == top else ()
            known = [
                getattr(v, f, 0) for f in ("commit_index", "last_applied", "configured", "snapshot_index")
            ]
            rows[to[i]] = (v.current_term == top, log, known, office)
        return repr((top, sorted(rows.items())))

    places = itertools.permutations(range(1, len(s.variables) + 1))
    return min(seen({None: 0, **dict(zip(s.variables, p, strict=True))}) for p in places)


def seen(model: Model, permits: Permits | None) -> set[str]:
    return set(map(projection, states(model, permits)))


def agree(model: Model) -> None:
    """The same verdict; and, if nothing is violated and that isn't too much, the same is seen."""
    permits = permits_for(model, model.properties())
    whole, reduced = explore_native(model), explore_native(model, permits=permits)
    assert (reduced.stopped, reduced.violation is None) == (whole.stopped, whole.violation is None)
    if whole.violation is None and whole.distinct < MOST:
        projections = seen(model, None)
        assert seen(model, replace(permits, assumed=False)) == projections
        assert seen(model, permits) >= projections


WHOLE = (
    Bounds(servers=2, extensions=("membership",)),
    Bounds(servers=2, max_term=1, max_log=2, changes=2, extensions=("membership",)),
    Bounds(servers=2, extensions=("sessions",)),
    Bounds(servers=2, max_term=1, max_log=2, extensions=("sessions",)),
)  # where Figure 2's rules are taken away, too
OWN = (
    Bounds(servers=2, extensions=("leadership_transfer",)),
    Bounds(servers=2, extensions=("check_quorum",)),
    Bounds(servers=2, max_term=1, extensions=("snapshots",)),
)
ALL_PAIRS = [
    (name, bounds)
    for bounds in (*WHOLE, *OWN)
    for name in (
        "",
        *(r for r in having(*bounds.extensions).rules if bounds in WHOLE or r not in raft.rules),
        *(m.name for m in MUTANTS.values() if m.extensions == bounds.extensions),
        *(m.name for m in MUTANTS.values() if bounds in WHOLE and not m.extensions),
    )
]


@pytest.mark.skipif("RAFTWORTHY_ALL_PAIRS" not in os.environ, reason="takes an hour: RAFTWORTHY_ALL_PAIRS=1")
@pytest.mark.parametrize(("name", "bounds"), ALL_PAIRS)
def test_for_every_change_of_an_extension_the_answer_is_the_same(name: str, bounds: Bounds) -> None:
    agree(changed(name, bounds))


# --- what commands mean ------------------------------------------------------


def test_what_configurations_say_keeps_nothing_from_being_left_out() -> None:
    """It is in history, and read by steps, but no step changes it."""
    model = changed("membership.own_term_first", MEMBERS)
    permits = permits_for(model, ["leader_completeness", "state_machine_safety"])
    assert permits.off.keys() == {"choices"}
    assert seen(model, replace(permits, assumed=False)) == seen(model, None)


def _to_voters(s: Any, i: Server, j: Server, prev: Index, size: Index, commit: Index) -> Step:
    """A leader sends only to who votes in the configuration that was committed first."""
    step = raft.actions["append_entries"].function(s, i, j, prev, size, commit)
    voters = s.past.voters[s[i].log.at(1).value]
    return Step(i, *step.guards, when("j votes", voters.has(j) | (s[i].log.length == 0)), send=step.sends)


def _says_again(s: Any, i: Server) -> Step:
    """Whoever restarts, and has no entry, says anew what was committed first: that it votes."""
    step = raft.actions["restart"].function(s, i)
    past = step.history
    voters = past.voters.set(s.past.committed.at(1).value, ServerSet().add(i))  # type: ignore[union-attr]
    empty = when("i has no entry", s[i].log.length == 0)
    return Step(i, *step.guards, empty, then=step.then, history=past.but(voters=voters))  # type: ignore[union-attr]


def test_what_is_said_again_is_no_meaning_and_sending_at_once_would_lose_messages() -> None:
    bounds = replace(MEMBERS, crashes=1)
    model = made_up(bounds, "membership.own_term_first", append_entries=_to_voters, restart=_says_again)
    assert at_sight(model, [], []).off["eager"].startswith("whether append_entries sends depends on more")
    assert seen(model, Permits(eager=True)) < seen(model, None)


def _uncounted(s: Any, i: Server, v: Value, voters: ServerSet) -> Step:
    """A change after which the next command gets the same number."""
    step = change_voters(s, i, v, voters)
    return Step(i, *step.guards, then=step.then, history=step.history.but(commands=s.past.commands))  # type: ignore[union-attr]


def _as_it_was(s: Any, i: Server, v: Value, voters: ServerSet) -> Step:
    """A change that asks what its own command meant before."""
    step = change_voters(s, i, v, voters)
    return Step(
        i,
        *step.guards,
        when("it says nothing", s.past.voters[v].size == 0),
        then=step.then,
        history=step.history,
    )


@pytest.mark.parametrize("wrong", [_uncounted, _as_it_was])
def test_a_meaning_is_of_a_new_command_and_asked_for_later(wrong: object) -> None:
    right = settled(changed("", MEMBERS), changed("", MEMBERS).generated.transitions)
    assert {"voters", "outgoing"}.isdisjoint(changing(right))
    model = made_up(MEMBERS, change_voters=wrong)
    assert "voters" in changing(settled(model, model.generated.transitions))


# --- who applied first -------------------------------------------------------


def test_which_server_applied_first_is_told_apart_only_where_it_would_be_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That all answer alike is a property, and that history knows of all that is applied, a lemma."""
    model = changed("", Bounds(servers=2, max_term=2, extensions=("sessions",)))

    def unsortable(*but: str) -> str:
        checked = ("replicas_answer_alike", "responses_are_of_executions", "state_machine_safety")
        names = [p for p in checked if p not in but]
        return Clock(Questions(model, names), "current_term", "term").unsortable()

    assert not unsortable()
    refused = "apply_entries and apply_entries of different servers don't come to the same in either order"
    assert unsortable("replicas_answer_alike") == refused
    monkeypatch.setattr(order, "recorded", lambda q: [])
    assert unsortable() == refused


def test_a_lemma_that_a_step_breaks_is_given_up() -> None:
    """History knows of all that was applied, but not of what is only committed."""
    model = changed("", Bounds(servers=1, max_term=1, extensions=("sessions",)))
    q = Questions(model, ["commit_within_log"])
    start = q.machine.known(model.generated.initial())

    def told(lemmas: list[Claim], f: str) -> bool:
        return any(lemma(q.with_own(start, 1, {f: 1})) is False for lemma in lemmas)

    assert told(recorded(q), "commit_index")
    stay = kept(q, recorded(q))
    assert not told(stay, "commit_index")
    assert told(stay, "last_applied")
