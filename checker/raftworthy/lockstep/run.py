"""The run over all states within bounds, and all inputs, up to the first difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from raftd.faults import BREAKS
from raftspec.extensions import having
from raftspec.types import Type
from raftworthy.explore.reference import Bounds, Progress, UnusableError, describe, explore
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

# The choices that raftd makes, too. The others only set `next_index`; off, they open more states.
FOLLOWED = {
    "vote.refuse", "append.refuse", "election.not_leader", "replicate.latest_commit", "pre_vote.leader_heard",
    "reads.one_round",
    "membership.caught_up",
}  # fmt: skip


def lockstep(
    bounds: Bounds = DEFAULT_BOUNDS,
    *,
    broken: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Compare the core with the specification on every step within bounds, up to the first difference.

    `broken` names a fault of `raftd.faults.BREAKS` to run the core with.

    Raises:
        UnusableError: no such fault, or nothing to compare these extensions with.
    """
    if broken is not None and broken not in BREAKS:
        raise UnusableError(f"no fault is called {broken!r}; there are {', '.join(sorted(BREAKS))}")
    if "sessions" in bounds.extensions and not {"snapshots", "membership"}.isdisjoint(bounds.extensions):
        raise UnusableError("lockstep compares sessions without snapshots or membership: leave those out")
    if {"snapshots", "membership"} <= {*bounds.extensions}:
        raise UnusableError(
            "the server takes no snapshots where membership can change: leave out one of --with"
        )
    comparison = Comparison(bounds.names, broken)
    spec = having(*bounds.extensions)
    explored = explore(
        spec,
        bounds,
        without=spec.policy - FOLLOWED,
        properties=(),
        find=comparison.differs_in,
        progress=progress,
    )
    found = comparison.found
    if found is not None and explored.witness is not None:
        found = replace(found, path=tuple(map(str, explored.witness.moves)))
    return Result(
        explored,
        broken,
        {e: comparison.agreed[e] for e in spec.actions if e in comparison.agreed},
        comparison.rested,
        tuple(r for r in spec.rules if {(r, True), (r, False)} <= comparison.asked),
        found,
    )


@dataclass
class Comparison:
    """Compares step by step, and remembers what it has compared."""

    servers: tuple[str, ...]
    broken: str | None = None
    agreed: Counter[str] = field(default_factory=Counter)
    asked: set[tuple[str, bool]] = field(default_factory=set)
    rested: int = 0  # different servers' variables in which a core can be
    found: Disagreement | None = None
    # Of each server's variables, the messages that it has been given; None if no core rests there.
    _given: dict[Any, set[Any] | None] = field(default_factory=dict)

    def differs_in(self, world: World) -> bool:
        """Whether any server's step from this state differs; `found` says how."""
        for i, variables in world.variables.items():
            key = (i, variables.key(), _meanings(world))
            is_new = key not in self._given
            if is_new:
                s = spec_state(world)
                self._given[key] = set() if settle(s, i).variables[i] == s[i] else None
                self.rested += self._given[key] is not None
            given = self._given[key]
            if given is None:
                continue
            news = {m for m in world.messages - given if m.target == i}
            if is_new or news:
                given |= news
                s = spec_state(world)
                messages = [
                    to_spec(m, Type("record", cls=MESSAGES[type(m).__name__]))
                    for m in sorted(news, key=describe)
                ]
                for given_now in inputs(s, i, messages, alone=is_new):
                    if self._differs(s, i, given_now):
                        return True
        return False

    def _differs(self, s: S, i: str, given: Input) -> bool:
        t = spec_step(s, i, given, self.asked)
        differences = compare(s, t, i, given, self.broken)
        if not differences:
            self.agreed[given.event] += 1
            return False
        rule = rule_broken(s, i, given, self.broken, sum(not d.name.startswith("trace") for d in differences))
        self.found = Disagreement(i, str(given), show_variables(variables_of(s, i)), differences, rule)
        return True


def _meanings(world: World) -> Any:
    """What history says of entries, which a server reads in its log."""
    past: Any = world.past
    if "sessions" in past.extensions:
        return tuple(frozenset(getattr(past, name).items()) for name in MEANINGS)
    if "membership" not in past.extensions:
        return None
    return frozenset(past.voters.items()), frozenset(past.outgoing.items())
