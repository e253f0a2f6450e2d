"""The livelock that comes of a missing rule or a bug, and the evidence that there is none without that.

Both are looked for under the same assumption, that in the end one server's timeouts are alone, and within the
same bounds: the smallest of some in which the livelock shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from rich.text import Text

from raftworthy.explore import running_live
from raftworthy.explore.fairness import SOME, Timing
from raftworthy.explore.live import Answer, Question, ask
from raftworthy.explore.needless import LIVELOCKS

WITHIN = ((1, 1), (2, 0))  # the highest term, and how long a log may be
ALONE = Timing(SOME, patient=True)


@dataclass(frozen=True)
class Livelock:
    """What comes of a missing rule or a bug, and what was explored of Raft as it is."""

    found: Answer
    right: Answer


def livelock_of(
    name: str, is_mutant: bool, progress: Callable[[int, int | None], None] | None = None
) -> Livelock | None:
    """The livelock without a rule, or with a bug, that isn't there otherwise; None if none is known to be."""
    if name not in LIVELOCKS or any(find_spec(package) is None for package in ("networkx", "z3")):
        return None
    for term, log in WITHIN:
        as_it_is = Question(max_term=term, max_log=log, timing=ALONE)
        if is_mutant:
            changed = replace(as_it_is, mutant=name)
        else:
            changed = replace(as_it_is, without=frozenset({name}))
        found = ask(changed, progress)
        if found.lasso is None:
            continue
        right = ask(as_it_is, progress)
        return Livelock(found, right) if right.lasso is None and right.complete else None
    return None


def as_data(a: Livelock) -> dict[str, Any]:
    """Both for machines. The lasso's path is a trace's lines."""
    return {"lasso": running_live.as_data(a.found), "without_lasso": running_live.as_data(a.right)}


def as_text(a: Livelock, width: int) -> Text:
    """Both for people: the livelock drawn, and what was explored otherwise."""
    assert a.found.lasso is not None
    out = Text("\n")
    out.append_text(running_live.drawn(a.found.lasso, a.found.clock, width))
    out.append(f"\n  {a.found.question.timing}; every step is fair but restarts\n")
    right = "without the bug" if a.found.question.mutant else "with the rule"
    out.append(
        f"  {right} a command is always decided: {a.right.states} states up to a renaming of terms, then "
        f"{a.right.late} with this assumption, were explored to the end\n"
    )
    out.append(f"  bounds: {a.right.question}\n")
    return out
