"""The reference explorer: every behaviour of a specification within bounds, breadth first.

It runs the generated Python functions on whole states, and knows a state by all of its values: no
hashes, no reductions but symmetry over servers, which can be switched off. Every faster
engine is checked against it, so where speed and plainness were in conflict, plainness won.

    s, t  states     a move  an action with its parameters, and where it leads
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raftspec.mutants import Mutant
from raftspec.spec import Spec
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.keys import Keys, Parts
from raftworthy.explore.model import Model
from raftworthy.explore.paths import EXHAUSTED, VIOLATED, WITNESSED, Move, Path, Progress, Result, Violation
from raftworthy.generated import World

PROGRESS_EVERY = 0.2  # seconds


class Watch(NamedTuple):
    """What is looked for: properties of states and of steps that must hold, and a state to be found."""

    states: Mapping[str, Callable[[World], bool]]
    steps: Mapping[str, Callable[[World, World], bool]]
    find: Callable[[World], bool] | None = None


@dataclass
class _Search:
    """A search as it stands. State number k was reached from `parents[k]` by `how[k]`."""

    known: set[tuple[int, ...]]
    parents: list[int] = field(default_factory=lambda: [0])
    how: list[tuple[str, tuple[Any, ...]]] = field(default_factory=lambda: [("", ())])

    def steps_to(self, k: int) -> list[tuple[str, tuple[Any, ...]]]:
        steps = []
        while k:
            steps.append(self.how[k])
            k = self.parents[k]
        return steps[::-1]


def explore(
    spec: Spec,
    bounds: Bounds,
    *,
    without: Iterable[str] = (),
    mutant: Mutant | None = None,
    any_policy: bool = False,
    properties: Iterable[str] | None = None,
    find: Callable[[World], bool] | None = None,
    symmetry: bool = True,
    progress: Callable[[Progress], None] | None = None,
    limit_states: int | None = None,
    start: Path | World | None = None,
) -> Result:
    """Explore every behaviour within bounds, until a property is violated or `find` is true.

    `without` names rules to take away, `any_policy` takes away all those of policy. `start` is where to
    begin, if not in the initial state. Of a step to a known state the step properties are checked too.

    Raises:
        UnusableError: a rule or a property is not known.
    """
    model = Model(spec, bounds, without, mutant, any_policy)
    return explore_model(
        model, properties=properties, find=find, symmetry=symmetry, progress=progress,
        limit_states=limit_states, start=start,
    )  # fmt: skip


def explore_model(
    model: Model,
    *,
    properties: Iterable[str] | None = None,
    find: Callable[[World], bool] | None = None,
    symmetry: bool = True,
    progress: Callable[[Progress], None] | None = None,
    limit_states: int | None = None,
    start: Path | World | None = None,
    visit: Callable[[World], None] | None = None,
) -> Result:
    """As `explore`, of a specification that is already compiled. `visit` sees each state that is expanded."""
    bounds, mutant, spec = model.bounds, model.mutant, model.spec
    watch = _watch(model, properties, find)
    prefix = start if isinstance(start, Path) else Path(start or model.generated.initial())
    keys = Keys(model.spec, model.servers, symmetry)
    began = time.perf_counter()
    states = depth = 0
    shown = began

    def result(stopped: str, **found: Any) -> Result:
        return Result(
            bounds, model.without, mutant.name if mutant else None, symmetry, states, len(search.known),
            depth, time.perf_counter() - began, stopped, **found,
        )  # fmt: skip

    def path(k: int, *last: Move) -> Path:
        """The path to state k, taken again from the beginning: what is reported is what happens."""
        again = model.repeat(prefix.world, [*search.steps_to(k), *((m.action, m.params) for m in last)])
        return prefix.then(*again.moves)

    def broken(name: str, where: Path) -> Result:
        return result(VIOLATED, violation=Violation(name, spec.properties[name].doc, where))

    first = prefix.world
    parts = keys.parts(first)
    search = _Search({keys.key(parts)})
    for name, claim in watch.states.items():
        if not claim(first):
            return broken(name, path(0))
    if watch.find and watch.find(first):
        return result(WITNESSED, witness=path(0))

    level = [(0, first, parts)]
    while level:
        frontier: list[tuple[int, World, Parts]] = []
        for k, s, parts in level:
            stayed = False
            if visit:
                visit(s)
            for move in model.moves(s):
                t = move.world
                states += 1
                new_parts = keys.parts(t, s, parts)
                if new_parts == parts:
                    # One step from s to s says what any other says.
                    if stayed:
                        continue
                    stayed = True
                for name, step_claim in watch.steps.items():
                    if not step_claim(s, t):
                        depth += 1
                        return broken(name, path(k, move))
                key = keys.key(new_parts)
                if key in search.known:
                    continue
                search.known.add(key)
                search.parents.append(k)
                search.how.append((move.action, move.params))
                new = len(search.parents) - 1
                frontier.append((new, t, new_parts))
                for name, claim in watch.states.items():
                    if not claim(t):
                        depth += 1
                        return broken(name, path(new))
                if watch.find and watch.find(t):
                    depth += 1
                    return result(WITNESSED, witness=path(new))
            if limit_states is not None and len(search.known) >= limit_states:
                return result(f"stopped at the limit of {limit_states} states")
            if progress and time.perf_counter() - shown > PROGRESS_EVERY:
                shown = time.perf_counter()
                progress(Progress(states, len(search.known), depth, len(level), shown - began))
        level = frontier
        depth += bool(frontier)
    return result(EXHAUSTED)


def _watch(model: Model, names: Iterable[str] | None, find: Callable[[World], bool] | None) -> Watch:
    declared = model.spec.properties
    wanted = model.properties(names)
    return Watch(
        {name: model.claim(name) for name in wanted if declared[name].states == 1},
        {name: model.claim(name) for name in wanted if declared[name].states == 2},
        find,
    )
