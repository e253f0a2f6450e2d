"""Z3's answers, from as few hypotheses as will do: with all of them it loses its way.

Which conjuncts a question needs is recorded; a record that is wrong or missing costs time and nothing
else, as further sets are tried then. Limits are on Z3's own count of its work, so they don't depend on
how busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import z3

from raftspec.claims import CONJUNCTS, LEMMAS
from raftworthy.explore.broken_steps import NO_STEP, Question
from raftworthy.prove.unbounded.induction import QUORUM, Unbounded
from raftworthy.prove.unbounded.narrowing import OF_LONG_LOGS, SIZES, Narrowing, sizes_for, written_down

EFFORT = 4_000_000  # of Z3's steps, for one try; about two seconds
LEVELS = (EFFORT // 40, EFFORT // 10, EFFORT // 3, EFFORT)  # with how much a question is tried in turn
SEEDS = 2  # at each level but the first, as Z3 sometimes gives up in a hundredth of a second
SURE = 6  # seeds with which hypotheses have to do to be recorded


@dataclass(frozen=True)
class Proof:
    """What came of a question: `verdict` is proved or unknown, `used` the hypotheses that it took."""

    question: Question
    verdict: str
    used: frozenset[str]
    seconds: float
    tries: int


class Prover:
    """Asks the questions of an induction."""

    def __init__(
        self,
        induction: Unbounded,
        cores: Mapping[Question, Iterable[str]] | None = None,
        seed: int = 0,
        seeds: int = SEEDS,
    ) -> None:
        self.induction = induction
        self.cores = {q: frozenset(c) for q, c in (cores or {}).items()}
        self.seed = seed
        self.seeds = seeds
        self._narrowings: dict[tuple[int, int, int], Narrowing] = {}
        self._kept: tuple[Any, list[z3.BoolRef]] = None, []
        self._action = ""
        self._solvers: dict[int, z3.Solver] = {}  # for questions about this action, by seed

    def _narrowing(self, size: tuple[int, int, int]) -> Narrowing:
        if size not in self._narrowings:
            self._narrowings[size] = Narrowing(self.induction, size)
        return self._narrowings[size]

    def prove(self, question: Question, effort: int = EFFORT, track: bool = False) -> Proof:
        """Prove a claim from the recorded hypotheses, or from others that are tried in turn."""
        began = time.process_time()
        tries = 0
        for names, seed, most in self._attempts(question):
            if most > effort:
                continue
            tries += 1
            used = self._refuted(question, names, seed, most, track)
            if used is not None:
                return Proof(question, "proved", used, time.process_time() - began, tries)
        return Proof(question, "unknown", frozenset(), time.process_time() - began, tries)

    def core(self, question: Question) -> Proof:
        """A proof from hypotheses of which none can be left out.

        Later conjuncts rest on earlier ones, so they are left out first; lemmas make proofs short, so they
        are last. What remains has to do with several seeds.
        """
        found, tracked = self.prove(question), self.prove(question, track=True)
        used = tracked.used | (found.used & self.induction.of_kind(question.claim) - {question.claim})
        if not self._does(question, used):  # Z3 finds it only by way of others
            used = found.used
        if found.verdict == "proved" and self._does(question, used):
            for name in reversed([*self.induction.lemmas, QUORUM, *self.induction.conjuncts]):
                if name in used and self._does(question, used - {name}):
                    used -= {name}
        return replace(found, used=used)

    def _does(self, question: Question, names: frozenset[str]) -> bool:
        """Whether these hypotheses are enough with all seeds but one, and without much work."""
        failed = 0
        for seed in range(SURE):
            failed += self._refuted(question, names, seed, EFFORT // 10, False) is None
            if failed > 1:
                return False
        return True

    def _attempts(self, question: Question) -> Iterator[tuple[frozenset[str], int, int]]:
        """Hypotheses, a seed, and how much effort, one after the other."""
        if question in self.cores:
            core = self.cores[question]
            own = self._allowed(question) - CONJUNCTS.keys() - LEMMAS[""].keys() - {QUORUM}
            # What is recorded without an extension may not be enough with it.
            yield from self._with_more(core, *([core | own] if own and core.isdisjoint(own) else []))
        about = self.induction.of_message(question.action).keys() | self.induction.of_kind(question.claim)
        few = frozenset({question.claim, QUORUM, *about}) & self._allowed(question)
        known = self._allowed(question) - about
        if told := written_down(question, known | about):
            yield from self._with_more(told, known)
            return
        yield few, self.seed, LEVELS[0]
        used: frozenset[str] | None = known
        fewest = frozenset[str]()
        for size in sizes_for(self.induction.extensions):
            narrowing = self._narrowing(size)
            if not fewest or narrowing.used(question, fewest) is None:  # others, or more than before
                used = narrowing.used(question, known)
                if used is None:  # broken, so there is no proof
                    return
                yield used | few, self.seed, LEVELS[0]
                fewest = narrowing.used(question, used, fewest=True) or frozenset()
            yield from self._with_more(fewest | few, levels=1 if size == SIZES[0] else 3)
            yield fewest | few | (OF_LONG_LOGS & known), self.seed, LEVELS[0]
        assert used is not None
        yield from self._with_more(used | few, known | few)

    def _with_more(
        self, *sets: frozenset[str], levels: int = len(LEVELS)
    ) -> Iterator[tuple[frozenset[str], int, int]]:
        """Sets of hypotheses with ever more effort, and other seeds each time."""
        for k, effort in enumerate(LEVELS[:levels]):
            first = self.seed + k * self.seeds
            for seed in range(first, first + (self.seeds if k else 1)):
                yield from ((names, seed, effort) for names in sets)

    def _allowed(self, question: Question) -> frozenset[str]:
        """What may be assumed: of lemmas, for a lemma those before it, and those that it goes by."""
        names = list(self.induction.lemmas)
        if question.action == NO_STEP and question.claim in names:
            names = [*names[: names.index(question.claim)], *self.induction.goes_by(question)]
        return frozenset({QUORUM, *self.induction.conjuncts, *names})

    def _facts(self, question: Question, names: frozenset[str]) -> list[z3.BoolRef]:
        """What a question assumes beside the conjuncts; kept for its next try."""
        key = question, names & self.induction.of_kind(question.claim)
        if key != self._kept[0]:
            self._kept = key, self.induction.facts(question, names)
        return self._kept[1]

    def _solver(self, action: str, seed: int) -> z3.Solver:
        """A solver that has been told what is assumed of every question about an action."""
        if action != self._action:
            self._action = action
            self._solvers.clear()
        if seed not in self._solvers:
            solver = self._solvers[seed] = z3.SimpleSolver()
            solver.set(mbqi=False, auto_config=False, phase_selection=0, random_seed=seed)
            solver.add(*self.induction.assumptions()[""], *self.induction.assumed(action))
        return self._solvers[seed]

    def _refuted(
        self, question: Question, names: frozenset[str], seed: int, effort: int, track: bool
    ) -> frozenset[str] | None:
        """The hypotheses that refute a question, or None if Z3 doesn't find that they do."""
        facts = self._facts(question, names)
        solver = self._solver(question.action, seed)
        solver.set(rlimit=effort)
        solver.push()
        solver.add(*facts)
        by_induction = frozenset(self.induction.goes_by(question))
        terms = {
            **self.induction.assumptions(),
            **self.induction.of_message(question.action),
            **{n: self.induction.below(question.claim, n) for n in names & by_induction},
        }
        marks: dict[str, str] = {}
        for name in sorted(terms.keys() & names & self._allowed(question)):
            if not track:
                solver.add(*terms[name])
                continue
            for k, c in enumerate(terms[name]):
                marks[f"{name}#{k}"] = name
                solver.assert_and_track(c, f"{name}#{k}")
        used = frozenset[str]() if track else names
        # What isn't refuted soon is more likely to be so case by case.
        cases = self.induction.cases(question) if effort > LEVELS[0] else [[]]
        for case in cases:
            solver.push()
            solver.add(*case)
            refuted = solver.check() == z3.unsat
            if track and refuted:
                used |= {marks[str(p)] for p in solver.unsat_core()}
            solver.pop()
            if not refuted:
                break
        solver.pop()
        return used if refuted else None
