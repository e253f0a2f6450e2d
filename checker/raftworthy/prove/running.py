"""Bounded proofs for somebody at a terminal: what was asked, what was found, at which sizes.

The exit code is 0 if everything asked for holds, 1 if something is broken, 2 if a question was
unusable or not decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from raftspec.extensions import WHOLE
from raftspec.mutants import MUTANTS
from raftworthy.diagram import explain
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.broken_steps import NO_STEP, Counterexample, as_data, sizes, table, title
from raftworthy.explore.cases import mutant_called, with_extensions
from raftworthy.explore.export import trace_events
from raftworthy.prove.counterexample import find
from raftworthy.prove.inductive import LEFT_OUT, Answer, Induction
from raftworthy.prove.reach import reach

HOLDS, BROKEN, UNDECIDED = 0, 1, 2


def run_inductive(
    servers: int,
    max_term: int,
    max_log: int,
    *,
    without: Iterable[str] = (),
    mutant: str | None = None,
    extensions: Iterable[str] = (),
    every: bool = False,
    rounds: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[dict[str, Any], str, int]:
    """Ask whether the invariant is inductive. Returns data, text and exit code.

    With `every`, goes on after the first claim that is broken.
    """
    began = time.process_time()
    bounds = sizes(servers, max_term, max_log, with_extensions(extensions, mutant))
    induction = Induction(bounds, without, mutant_called(mutant), rounds)
    answers = induction.check(progress, first=not every)
    vacuous = [a for a in induction.machine.transitions if not induction.possible(a)]
    broken = [a for a in answers if a.verdict == "broken"]
    example = find(broken[0].question, induction) if broken else None
    undecided = [a for a in answers if a.verdict == "undecided"]
    at_first = induction.not_at_first()
    verdict = "broken" if broken or at_first else "undecided" if undecided or vacuous else "inductive"
    seconds = time.process_time() - began
    data = {
        "verdict": verdict,
        "sizes": {"servers": servers, "max_term": max_term, "max_log": max_log},
        "extensions": list(bounds.extensions),
        "without": sorted(induction.without),
        "mutant": mutant,
        "conjuncts": {title(n): " ".join(p.doc.split()) for n, p in induction.conjuncts.items()},
        "left_out": sorted(LEFT_OUT),
        "questions": len(answers),
        "answers": [
            {"action": a.question.action, "claim": a.question.claim, "verdict": a.verdict} for a in answers
        ],
        "broken_at_first": at_first,
        "impossible_actions": vacuous,
        "cpu_seconds": round(seconds, 2),
    }
    if example:
        data["counterexample"] = as_data(example)
    return (
        data,
        _text(data, answers, example, broken),
        {"inductive": HOLDS, "broken": BROKEN}.get(verdict, UNDECIDED),
    )


def _text(data: dict[str, Any], answers: list[Answer], c: Counterexample | None, broken: list[Answer]) -> str:
    out = []
    if c:
        out += [table(c), ""]
    for a in broken[1:]:
        out.append(f"also broken: {a.question.action} / {title(a.question.claim)}")
    rows: dict[str, list[Answer]] = {}
    for a in answers:
        rows.setdefault(a.question.action, []).append(a)
    if not c:
        for action, of in rows.items():
            kept = sum(a.verdict == "kept" for a in of)
            claims = "claims follow from the invariant" if action == NO_STEP else "claims are kept"
            out.append(f"  {action:28} {kept} of {len(of)} {claims}, {sum(a.seconds for a in of):.1f} s")
    for name in data["broken_at_first"]:
        out.append(f"  {title(name)} doesn't hold in the initial state")
    for name in data["impossible_actions"]:
        out.append(f"  {name} is possible in no state of the invariant: nothing is said of it")
    of = data["sizes"]
    told = {
        "inductive": "inductive: every step from any state of the invariant leads to one",
        "broken": f"not inductive: {len(broken)} broken",
        "undecided": "undecided",
    }
    out.append(told[data["verdict"]])
    out.append(
        f"  sizes: {of['servers']} servers, terms up to {of['max_term']}, logs up to {of['max_log']}, "
        f"messages of any number and age"
    )
    for rule in data["without"]:
        out.append(f"  without: {rule}: {WHOLE.rules[rule].why}")
    if data["mutant"]:
        out.append(f"  mutant {data['mutant']}: {MUTANTS[data['mutant']].story}")
    out.append(
        f"  {data['questions']} questions, {len(data['conjuncts'])} conjuncts, "
        f"{data['cpu_seconds']:.1f} s CPU; not asked: {', '.join(data['left_out'])}"
    )
    return "\n".join(out)


def run_reach(
    bounds: Bounds,
    depth: int,
    *,
    without: Iterable[str] = (),
    mutant: str | None = None,
    properties: Iterable[str] | None = None,
    seconds: float | None = None,
    width: int = 100,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[dict[str, Any], str, int]:
    """Look for a violation in so many steps from the initial state. Returns data, text and exit code."""
    found = reach(
        bounds, depth, without=without, mutant=mutant_called(mutant), properties=properties, seconds=seconds,
        progress=progress,
    )  # fmt: skip
    violation, complete = found.violation, found.completed == depth
    verdict = "violated" if violation else "holds to this depth" if complete else "undecided"
    data: dict[str, Any] = {
        "verdict": verdict,
        "completed_depth": found.completed,
        "stopped": found.stopped,
        "bounds": bounds.as_data(),
        "without": sorted(without),
        "mutant": mutant,
        "cpu_seconds": [round(x, 2) for x in found.seconds],
    }
    out = []
    if violation:
        data["property"] = violation.property
        data["because"] = " ".join(violation.doc.split())
        data["trace"] = list(trace_events(violation.path))
        taken = without or (MUTANTS[mutant].without if mutant else ())
        out.append(explain(violation.path, WHOLE.properties[violation.property], taken, width).plain)
        verdict += f" after {len(violation.path)} steps"
    out.append(verdict)
    out.append(f"  bounds: {bounds}")
    none = (
        f"no violation in {found.completed} steps or fewer" if found.completed else "no depth was completed"
    )
    out.append(f"  {none}; {found.stopped}; {sum(found.seconds):.1f} s CPU")
    code = BROKEN if violation else HOLDS if complete else UNDECIDED
    return data, "\n".join(out), code
