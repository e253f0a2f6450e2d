"""The unbounded proof for somebody at a terminal: what is proved, from what, and what fails without a rule.

The exit code is 0 if all is proved, 1 if a step breaks the invariant, 2 if something is undecided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from raftspec.anynumber import disagreement
from raftspec.extensions import having
from raftspec.graph import Node
from raftspec.mutants import MUTANTS, Mutant
from raftspec.tracing import Tracer
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.broken_steps import Counterexample, Question, as_data, sizes, table, title
from raftworthy.explore.cases import mutant_called, with_extensions
from raftworthy.prove.counterexample import find
from raftworthy.prove.inductive import LEFT_OUT, Induction
from raftworthy.prove.running import BROKEN, HOLDS, UNDECIDED
from raftworthy.prove.unbounded.cores import needed, record, recorded
from raftworthy.prove.unbounded.induction import AT_FIRST, NATURAL, Unbounded
from raftworthy.prove.unbounded.narrowing import sizes_for
from raftworthy.prove.unbounded.solving import EFFORT, Proof, Prover

Told = Callable[[Proof, int, int], None]
UNTOLD: Told = lambda proof, done, total: None  # noqa: E731
SMALL = EFFORT // 3  # Z3's steps for one try where most questions are expected to fail


def agrees(induction: Unbounded, numbers: Iterable[int] = (2, 3)) -> str | None:
    """Whether the specification for any number of servers is, for these, the one that is explored."""
    for k in numbers:
        ordinary = Tracer(induction.spec, tuple(f"s{i}" for i in range(1, k + 1)), induction.without)
        found = disagreement(induction.tracer, ordinary)
        if found:
            return found
    return None


def possible_actions(small: Induction) -> tuple[list[str], list[str]]:
    """Actions that can be taken in a state of the invariant with a commit and two leaders, and the others."""
    actions = list(small.machine.transitions)
    can = [a for a in actions if small.possible(a)]
    return can, [a for a in actions if a not in can]


def run_unbounded(
    *,
    without: Iterable[str] = (),
    mutant: str | None = None,
    extensions: Iterable[str] = (),
    cores: bool = True,
    record_cores: bool = False,
    seed: int = 0,
    every: bool = False,
    told: Told = UNTOLD,
) -> tuple[dict[str, Any], str, int]:
    """Prove the invariant and the promises, or say what fails first without a rule. Data, text, exit code."""
    began = time.process_time()
    bug = mutant_called(mutant)
    extensions = with_extensions(extensions, mutant)
    for rule in without:
        if rule not in having(*extensions).rules:
            raise UnusableError(f"no rule is called {rule}; see raftworthy rules")
    try:
        induction = Unbounded(without, bug, extensions)
    except TypeError as error:
        named = ", ".join(extensions)
        what = str(error).splitlines()[0]
        raise UnusableError(f"with {named} it can't be asked for any number of servers: {what}") from error
    tie = agrees(induction)
    if tie:
        raise UnusableError(f"the specification for any number of servers is read differently: {tie}")
    changed = induction.without or bug
    if record_cores and len(induction.extensions) > 1:
        raise UnusableError("what is used is recorded of one extension at a time")
    known = recorded(induction.extensions)
    prover = Prover(induction, known if cores else {}, seed)
    if changed:
        search = failing(induction, prover, bug, every, told)
        return _without(induction, search, mutant, time.process_time() - began)
    questions = induction.questions()
    proofs = []
    for q in questions:
        proofs.append(prover.core(q) if record_cores else prover.prove(q))
        told(proofs[-1], len(proofs), len(questions))
    solving = time.process_time() - began
    if record_cores:
        record(proofs, *induction.extensions)
    can, cannot = possible_actions(Induction(sizes(3, 3, 2, extensions)))
    failed = [p for p in proofs if p.verdict != "proved"]
    example = _finite(failed[0].question, (), None, extensions) if failed else None
    verdict = "proved" if not failed and not cannot else "broken" if example else "undecided"
    unproved = {p.question.claim for p in failed}
    used = {p.question: p.used for p in proofs} | dict(known)
    promises = induction.properties.keys() - induction.conjuncts.keys() - induction.lemmas.keys()
    bases = {n: needed(n, used, induction) for n in induction.properties if n in promises}
    data: dict[str, Any] = {
        "verdict": verdict,
        "questions": len(proofs),
        "conjuncts": {title(n): " ".join(p.doc.split()) for n, p in induction.conjuncts.items()},
        "proofs": [
            {"action": p.question.action, "claim": p.question.claim, "verdict": p.verdict, "tries": p.tries}
            for p in proofs
        ],
        "promises": {
            name: [n.split("_")[0].upper() for n in names]
            for name, names in bases.items()
            if unproved.isdisjoint([name, *names])
        },
        "extensions": sorted(induction.spec.extensions),
        "not_proved": sorted(LEFT_OUT),
        "possible_actions": can,
        "impossible_actions": cannot,
        "seed": seed,
        "cpu_seconds": round(solving, 2),
    }
    if example:
        data["counterexample"] = as_data(example)
    code = {"proved": HOLDS, "broken": BROKEN}.get(verdict, UNDECIDED)
    return data, _text(data, proofs, example), code


def _text(data: Mapping[str, Any], proofs: list[Proof], example: Counterexample | None) -> str:
    out = []
    rows: dict[str, list[Proof]] = {}
    for p in proofs:
        rows.setdefault(p.question.action, []).append(p)
    for action, of in rows.items():
        done = sum(p.verdict == "proved" for p in of)
        out.append(f"  {action:28} {done:3} of {len(of):3} proved, {sum(p.seconds for p in of):.1f} s")
    failed = [p.question for p in proofs if p.verdict != "proved"]
    out += [f"  undecided: {q.action} / {title(q.claim)}" for q in failed]
    if example:
        out += ["", table(example)]
    for name in data["impossible_actions"]:
        out.append(f"  {name} is possible in no state of the invariant: nothing is said of it")
    out += ["", "promises that are proved, and the conjuncts that each rests on:"]
    for name, names in data["promises"].items():
        out.append(f"  {name:28} {len(names):2}: {' '.join(names)}")
    told = {
        "proved": "proved: for any number of servers, any terms, any logs, messages of any number and age",
        "broken": "not proved: a step breaks the invariant",
        "undecided": "undecided",
    }
    out += ["", told[data["verdict"]]]
    out.append(
        f"  {data['questions']} questions, {len(data['conjuncts'])} conjuncts, "
        f"{data['cpu_seconds']:.1f} s CPU, seed {data['seed']}; not asked: {', '.join(data['not_proved'])}"
    )
    out.append(
        "  with 2 and 3 servers these are, node by node, the expressions that are explored and replayed"
    )
    if data["extensions"]:
        out.append(f"  with {', '.join(data['extensions'])}")
    if not data["impossible_actions"]:
        out.append(
            f"  all {len(data['possible_actions'])} actions are possible in a state of 3 servers and the "
            "invariant in which an entry is committed and two terms had leaders"
        )
    return "\n".join(out)


# --- without a rule ------------------------------------------------------------


def changed_actions(induction: Unbounded, usual: Unbounded) -> list[str]:
    """The actions that a missing rule, a bug or an extension makes different or adds.

    Questions about others are as they were.
    """

    def shape(n: Node) -> str:
        return repr(n)

    def told(t: Any) -> Any:
        return [
            [(g.text, shape(g.condition)) for g in t.guards],
            {f: shape(n) for f, n in t.updates.items()},
            {f: shape(n) for f, n in t.history.items()},
            [(s.message, shape(s.condition), [shape(n) for n in s.fields]) for s in t.sends],
        ]

    of = usual.transitions
    return [name for name, t in induction.transitions.items() if name not in of or told(t) != told(of[name])]


class Failing(NamedTuple):
    """What is not proved without a rule, and the smallest step that breaks the first claim that can break.

    What a step breaks with the rule, too, is in `anyway`.
    """

    actions: list[str]
    questions: int
    failed: list[Question]
    anyway: list[Question]
    example: Counterexample | None


def failing(
    induction: Unbounded, prover: Prover, bug: Mutant | None = None, every: bool = False, told: Told = UNTOLD
) -> Failing:
    """Ask what a missing rule or a bug can change, up to the first claim that a step breaks, or all of it."""
    usual = Unbounded(extensions=induction.extensions)
    actions = changed_actions(induction, usual)
    wanted = [q for q in induction.questions() if q.action in actions]
    failed: list[Question] = []
    anyway: list[Question] = []
    example = None
    for k, q in enumerate(wanted, 1):
        p = prover.prove(q, effort=SMALL)
        told(p, k, len(wanted))
        if p.verdict == "proved":
            continue
        if _broken_anyway(q, usual):
            anyway.append(q)
            continue
        if example is None and q.claim != NATURAL:
            example = _finite(q, induction.without, bug, induction.extensions)
        failed.append(q)
        if example and not every:
            break
    return Failing(actions, len(wanted), failed, anyway, example)


def _broken_anyway(question: Question, usual: Unbounded) -> bool:
    """Whether the claim is broken with the rule, or without the bug, as well."""
    if question not in usual.questions():
        return False
    if Prover(usual, recorded(usual.extensions)).prove(question, effort=SMALL).verdict == "proved":
        return False
    return _finite(question, (), None, usual.extensions) is not None


def _without(
    induction: Unbounded, search: Failing, mutant: str | None, seconds: float
) -> tuple[dict[str, Any], str, int]:
    actions, questions, failed, anyway, example = search
    verdict = "broken" if example else "undecided" if failed or anyway else "proved"
    data: dict[str, Any] = {
        "verdict": verdict,
        "without": sorted(induction.without),
        "mutant": mutant,
        "changed_actions": actions,
        "questions": questions,
        "failed": [q._asdict() for q in failed],
        "broken_anyway": [q._asdict() for q in anyway],
        "cpu_seconds": round(seconds, 2),
    }
    out = []
    if example:
        data["counterexample"] = as_data(example)
        out += [table(example), ""]
    out.append(_verdict(search, induction.extensions))
    for q in failed:
        if not example or q != example.question:
            out.append(f"  not proved either: {q.action} / {title(q.claim)}")
    out += [f"  broken with it, too: {q.action} / {title(q.claim)}" for q in anyway]
    for rule in data["without"]:
        out.append(f"  without: {rule}: {induction.spec.rules[rule].why}")
    if mutant:
        out.append(f"  mutant {mutant}: {MUTANTS[mutant].story}")
    out.append(
        f"  {len(actions)} actions are different: {', '.join(actions) or 'none'}; {questions} questions, "
        f"{data['cpu_seconds']:.1f} s CPU"
    )
    return data, "\n".join(out), {"broken": BROKEN, "proved": HOLDS}.get(verdict, UNDECIDED)


def _verdict(search: Failing, extensions: Collection[str]) -> str:
    """The first line of the answer."""
    if search.example:
        action, claim = search.example.question
        return f"not inductive: {action} / {title(claim)}"
    if search.failed:
        action, claim = search.failed[0]
        tried = sizes_for(extensions)
        looked = ", ".join(f"{s} servers, terms up to {t}, logs up to {n}" for s, t, n in tried)
        return (
            f"undecided: {action} / {title(claim)} is not proved, and no counterexample was found at {looked}"
        )
    if search.anyway:
        return "undecided: without it nothing is broken but what is broken with it, too"
    return "proved: what is promised holds without it, too"


def _finite(
    question: Question, without: Iterable[str], bug: Mutant | None, extensions: Iterable[str]
) -> Counterexample | None:
    """The smallest counterexample at fixed sizes, taken again by Python; None if there is none."""
    if question.action == AT_FIRST or question.claim == NATURAL:
        return None
    for size in sizes_for(tuple(extensions)):
        small = Induction(sizes(*size, extensions), without, bug)
        if question in small.questions() and small.answer(question).verdict == "broken":
            return find(question, small)
    return None
