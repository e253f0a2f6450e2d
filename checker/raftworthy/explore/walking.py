"""Random walks, for what is too large to be exhausted: where to go, what was found, and a short way there.

Each walk has a bias of its own: it prefers some actions to others by up to a hundred times. So walks differ
much more than if all steps were alike, and some go where only few do. One seed gives the same walks again.

    s, t  states     p  a property's name
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path
from raftworthy.generated import World


class Bias:
    """How much more one walk prefers an action than another: 1, 2, 4, … times."""

    POWERS = 8


@dataclass(frozen=True)
class Walked:
    """What random walks found. `path` is the way to where `broken` fails, as walked; `shortest` as told."""

    seed: int
    depth: int  # steps of the longest walk that was allowed
    walks: int
    steps: int
    deepest: int
    seconds: float
    distinct: int  # states seen, about
    broken: str | None = None
    path: Path | None = None
    shortest: Path | None = None

    def told(self, shortest: Path) -> Walked:
        """The same, with the way that is to be shown."""
        return replace(self, shortest=shortest)


def estimate(counters: Sequence[int]) -> int:
    """About how many different things were counted, from the longest run of zeros in each class of them.

    HyperLogLog, of Flajolet and others; for few things, by how many classes are empty.
    """
    n = len(counters)
    found = 0.7213 / (1 + 1.079 / n) * n * n / sum(2.0**-x for x in counters)
    empty = counters.count(0)
    return round(n * math.log(n / empty) if empty and found <= 2.5 * n else found)


def walk_python(
    model: Model,
    start: World,
    properties: Iterable[str],
    *,
    seed: int,
    depth: int,
    walks: int | None = None,
    seconds: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Walked:
    """Walk until a property fails, or there were so many `walks`, or `seconds` have passed.

    With neither limit it never ends on a specification without faults.
    """
    rng = random.Random(seed)
    claims, declared = model.generated.properties, model.spec.properties
    wanted = list(properties)
    began = time.perf_counter()
    seen: set[int] = set()
    done = steps = deepest = 0

    def result(broken: str | None = None, path: Path | None = None) -> Walked:
        spent = time.perf_counter() - began
        return Walked(seed, depth, done, steps, deepest, spent, len(seen), broken, path)

    def late() -> bool:
        return seconds is not None and time.perf_counter() - began > seconds

    while (walks is None or done < walks) and not late():
        done += 1
        weights = {action: 1 << rng.randrange(Bias.POWERS) for action in model.spec.actions}
        path = Path(start)
        while len(path) < depth:
            s = path.world
            moves = [m for m in model.moves(s) if m.world != s]
            if not moves:
                break
            (move,) = rng.choices(moves, [weights[m.action] for m in moves])
            path, t = path.then(move), move.world
            steps += 1
            deepest = max(deepest, len(path))
            seen.add(hash(t))
            for p in wanted:
                if not (claims[p](t) if declared[p].states == 1 else claims[p](s, t)):
                    return result(p, path)
            if late():
                return result()
            if progress:
                progress(steps, time.perf_counter() - began)
    return result()


# --- shorter ways ------------------------------------------------------------


def follow(model: Model, path: Path, steps: Iterable[tuple[str, tuple[object, ...]]], p: str) -> Path | None:
    """A path gone on with those of these steps that are possible and change something, up to where p fails.

    None: p does not fail on it.
    """
    claim, states = model.generated.properties[p], model.spec.properties[p].states
    for action, params in steps:
        s = path.world
        types = model.spec.actions[action].params.values()
        command = f"c{s.past.commands + 1}"  # commands are numbered in the order in which they come
        params = tuple(command if t.name == "value" else x for x, t in zip(params, types, strict=True))
        first = params[0]
        if not isinstance(first, str) and first not in s.messages:
            continue
        move = model.take(s, action, params)
        if move is None:
            continue
        if not claim(*(s, move.world)[-states:]):
            return path.then(move)
        if move.world != s:
            path = path.then(move)
    return None


def shorten(model: Model, path: Path, p: str) -> Path:
    """A shorter path to where p fails: no single step of it, and no half or quarter, can be left out."""
    best = path
    size = max(len(best) // 2, 1)
    while True:
        found = False
        at = 0
        while at < len(best):
            # What comes before is as it was.
            steps = [(m.action, m.params) for m in best.moves[at + size :]]
            shorter = follow(model, Path(best.start, best.moves[:at]), steps, p)
            if shorter is not None and len(shorter) < len(best):
                best, found = shorter, True
            else:
                at += size
        if size == 1 and not found:
            return best
        size = max(size // 2, 1)
