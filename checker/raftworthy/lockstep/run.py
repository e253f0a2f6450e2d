"""The run over all states within bounds, and all inputs, up to the first difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raftd.faults import BREAKS
from raftspec.extensions import EXTENSIONS, having
from raftspec.spec import Spec
from raftspec.types import Type
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.paths import Progress, describe
from raftworthy.explore.paths import Result as Explored
from raftworthy.explore.reference import explore
from raftworthy.generated import World, to_spec
from raftworthy.lockstep.clients import MEANINGS
from raftworthy.lockstep.comparing import compare, rule_broken
from raftworthy.lockstep.core import MESSAGES
from raftworthy.lockstep.inputs import Input, S, inputs
from raftworthy.lockstep.report import Disagreement, Result
from raftworthy.lockstep.specification import settle, spec_state, spec_step, variables_of
from raftworthy.lockstep.wording import show_variables

# Reaches leaders with logs in both terms, conflicts, commits of both, and late copies of every message.
DEFAULT_BOUNDS = Bounds(servers=3, max_term=2, max_log=1, commands=2, crashes=1, max_messages=8)
# With all extensions: an election with pre-votes, entries of each kind, and a snapshot on its way.
WHOLE_BOUNDS = Bounds(servers=2, max_term=1, max_log=2, max_messages=7, extensions=tuple(EXTENSIONS))

# The choices that raftd makes, too. The others only set `next_index`; off, they open more states.
FOLLOWED = {
    "vote.refuse", "append.refuse", "election.not_leader", "replicate.latest_commit", "pre_vote.leader_heard",
    "reads.one_round", "membership.caught_up", "transfer.to_voter",
}  # fmt: skip


def usual_bounds(extensions: tuple[str, ...]) -> Bounds:
    """How far to go with these extensions, if nobody says otherwise."""
    whole = set(extensions) == set(EXTENSIONS)
    return WHOLE_BOUNDS if whole else replace(DEFAULT_BOUNDS, extensions=extensions)


def lockstep(
    bounds: Bounds = DEFAULT_BOUNDS,
    *,
    broken: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Compare the core with the specification on every step within bounds, up to the first difference.

    `broken` names a fault of `raftd.faults.BREAKS` to run the core with.

    Raises:
        UnusableError: there is no such fault.
    """
    if broken is not None and broken not in BREAKS:
        raise UnusableError(f"no fault is called {broken!r}; there are {', '.join(sorted(BREAKS))}")
    comparison = Comparison((broken,))
    explored = _explore(bounds, comparison, progress)
    found = comparison.found.get(broken)
    if found is not None and explored.witness is not None:
        found = replace(found, path=tuple(map(str, explored.witness.moves)))
    return Result(
        explored,
        broken,
        {e: comparison.agreed[e] for e in having(*bounds.extensions).actions if e in comparison.agreed},
        comparison.rested,
        comparison.exercised(having(*bounds.extensions)),
        found,
    )


def faults_seen(bounds: Bounds, faults: Iterable[str | None]) -> Mapping[str | None, Disagreement]:
    """Compare many broken cores in one run, each up to its first difference; of those that differ, that.

    None is the core as it is, which should not be among them.
    """
    comparison = Comparison(tuple(faults))
    _explore(bounds, comparison, None)
    return comparison.found


def _explore(bounds: Bounds, comparison: Comparison, progress: Callable[[Progress], None] | None) -> Explored:
    spec = having(*bounds.extensions)
    return explore(
        spec,
        bounds,
        without=spec.policy - FOLLOWED,
        properties=(),
        find=comparison.ends_in,
        progress=progress,
    )


@dataclass
class Comparison:
    """Compares step by step, and remembers what it has compared.

    One core, or several at a time that each have a fault, or none.
    """

    cores: tuple[str | None, ...] = (None,)
    agreed: Counter[str] = field(default_factory=Counter)  # inputs on which all that are left agree
    asked: set[tuple[str, bool]] = field(default_factory=set)
    rested: int = 0  # different servers' variables in which a core can be
    found: dict[str | None, Disagreement] = field(default_factory=dict)
    # Of each server's variables, the messages that it has been given, and what their entries mean; None if
    # no core rests there.
    _given: dict[Any, set[Any] | None] = field(default_factory=dict)

    def exercised(self, spec: Spec) -> tuple[str, ...]:
        """The rules that came out both ways."""
        return tuple(r for r in spec.rules if {(r, True), (r, False)} <= self.asked)

    def ends_in(self, world: World) -> bool:
        """Compare all steps from this state; whether every core has been seen to differ, as `found` says."""
        for i, variables in world.variables.items():
            key = (i, variables.key(), _meanings(world, variables.log))
            is_new = key not in self._given
            if is_new:
                s = spec_state(world)
                self._given[key] = set() if settle(s, i).variables[i] == s[i] else None
                self.rested += self._given[key] is not None
            given = self._given[key]
            if given is None:
                continue
            mine = {(m, _meanings(world, _entries(m))) for m in world.messages if m.target == i}
            news = [m for m, _ in mine - given]
            if is_new or news:
                given |= mine
                s = spec_state(world)
                messages = [
                    to_spec(m, Type("record", cls=MESSAGES[type(m).__name__]))
                    for m in sorted(news, key=describe)
                ]
                for given_now in inputs(s, i, messages, alone=is_new):
                    self._compare(s, i, given_now)
                    if len(self.found) == len(self.cores):
                        return True
        return False

    def _compare(self, s: S, i: str, given: Input) -> None:
        t = spec_step(s, i, given, self.asked)
        for broken in self.cores:
            if broken in self.found:
                continue
            # A fault shows in what a server does; what the trace says of it would have to be made for each.
            traced = broken is None or len(self.cores) == 1
            if differences := compare(s, t, i, given, broken, traced):
                told = sum(not d.name.startswith("trace") for d in differences)
                rule = rule_broken(s, i, given, broken, told)
                before = show_variables(variables_of(s, i))
                self.found[broken] = Disagreement(i, str(given), before, differences, rule)
        if len(self.found) < len(self.cores):
            self.agreed[given.event] += 1


def _meanings(world: World, entries: Iterable[Any]) -> Any:
    """What history says of entries, which a server reads where it has them."""
    past: Any = world.past
    names: tuple[str, ...] = MEANINGS if "sessions" in past.extensions else ()
    names += ("voters", "outgoing") if "membership" in past.extensions else ()
    told = [getattr(past, name) for name in names]
    return tuple(tuple(said.get(e.value) for said in told) for e in entries)


def _entries(m: Any) -> Sequence[Any]:
    """The entries in a message."""
    found: Sequence[Any] = getattr(m, "entries", getattr(m, "prefix", ()))
    return found
