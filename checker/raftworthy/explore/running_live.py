"""Liveness for somebody at a terminal: what was assumed, what was found, and the livelock drawn.

The exit code is 0 if the goal is always reached within the bounds, 1 if there is a livelock, 2 if that is
undecided or the question was unusable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

from rich.text import Text

from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftspec.rules import RULES
from raftworthy.diagram import lay_out
from raftworthy.explore.export import trace_events, write_trace
from raftworthy.explore.lasso import Lasso
from raftworthy.explore.live import Answer, Question, ask
from raftworthy.explore.running import step_data
from raftworthy.explore.telling import sentences

EXIT = {"holds within bounds": 0, "livelock": 1, "undecided": 2}
ROUND = "↻"


def run_live(
    question: Question,
    save: FilePath | None = None,
    width: int = 100,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[dict[str, Any], Text, int]:
    """Ask, and return the answer for machines, for people, and the exit code."""
    answer = ask(question, progress)
    if save is not None and answer.lasso is not None:
        write_trace(answer.lasso.path, save)
    return as_data(answer), as_text(answer, width, save), EXIT[answer.verdict]


def as_data(a: Answer) -> dict[str, Any]:
    """An answer for machines. The lasso's path is a trace's lines."""
    q = a.question
    data: dict[str, Any] = {
        "verdict": a.verdict,
        "goal": q.goal,
        "alone": q.timing.alone,
        "patient": q.timing.patient,
        "servers_stopped": sorted(q.timing.stopped),
        "bounds": {
            "servers": q.servers, "max_term": q.max_term, "max_log": q.max_log,
            "max_messages": q.max_messages, "crashes": q.crashes,
        },
        "without": sorted(q.without),
        "mutant": q.mutant,
        "states": a.states,
        "late": a.late,
        "steps": a.steps,
        "stopped": a.stopped,
        "seconds": round(a.seconds, 3),
    }  # fmt: skip
    if a.lasso is not None:
        path = a.lasso.path
        data["stem"] = len(a.lasso.stem)
        data["round"] = len(a.lasso.rounds[0]) if a.lasso.rounds else 0
        data["terms_later"] = a.lasso.terms_later(a.clock)
        says = sentences(path)
        data["path"] = [step_data(path, k) | {"says": says[k]} for k in range(len(path))]
        data["trace"] = list(trace_events(path))
    return data


def as_text(a: Answer, width: int, saved: FilePath | None = None) -> Text:
    """An answer for people."""
    q = a.question
    out = Text()
    doc = " ".join(raft.goals[q.goal].doc.split())
    if a.lasso is not None:
        out.append_text(drawn(a.lasso, a.clock, width))
        out.append("\n")
    style = {"livelock": "bold red", "undecided": "yellow"}.get(a.verdict, "bold green")
    told = {
        "livelock": f"livelock: {q.goal} fails",
        "holds within bounds": f"{q.goal} holds within bounds",
        "undecided": f"undecided: {a.stopped}",
    }[a.verdict]
    out.append(told + "\n", style)
    out.append(f"  {doc}\n")
    out.append(f"  assumed: {q.timing}; every step is fair but restarts\n")
    unbounded = "; once the assumption holds, all that follows" if a.late and a.complete else ""
    out.append(f"  bounds: {q}{unbounded}\n")
    for rule in sorted(q.without):
        out.append(f"  without: {rule}: {RULES[rule].why}\n")
    if q.mutant is not None:
        out.append(f"  mutant {q.mutant}: {MUTANTS[q.mutant].story}\n")
    late = f", then {a.late} with the assumption" if a.late else ""
    out.append(f"  {a.states} states up to a renaming of terms{late}, {a.steps} steps, {a.seconds:.1f} s\n")
    if saved is not None and a.lasso is not None:
        out.append(f"  written to {saved}; try: raftworthy show {saved}\n")
    return out


def drawn(lasso: Lasso, clock: str, width: int) -> Text:
    """The stem and one round, and what comes after it."""
    if not lasso.rounds:
        out = lay_out(lasso.stem, width)
        out.append("and nothing more can happen that would change anything\n", "bold")
        return out
    stem, around = len(lasso.stem), len(lasso.rounds[0])
    numbers = [str(k) for k in range(1, stem + 1)] + [
        f"{ROUND}{k}" for k in range(stem + 1, stem + around + 1)
    ]
    out = lay_out(lasso.stem.then(*lasso.rounds[0].moves), width, numbers)
    terms = lasso.terms_later(clock)
    later = f"{terms} term{'s' * (terms != 1)} later: " if terms else ""
    steps = f"step {stem + 1} again" if around == 1 else f"steps {stem + 1} to {stem + around} again"
    out.append(f"and so on, {later}{steps}, for ever\n", "bold")
    return out
