"""Z3's answers, from as few hypotheses as will do: with all of them it loses its way.

Which conjuncts a question needs is recorded; a record that is wrong or missing costs time and nothing
else, as further sets are tried then. Limits are on Z3's own count of its work, so they don't depend on
how busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import z3

from raftspec.invariant import CONJUNCTS
from raftworthy.prove.inductive import NO_STEP, Question
from raftworthy.prove.unbounded.induction import QUORUM, Unbounded

EFFORT = 4_000_000  # of Z3's steps, for one try; about two seconds
ROUNDS = 6  # seeds that are tried, as Z3 sometimes gives up in a hundredth of a second
STABLE = 3  # of them that are tried first with the hypotheses recorded
SURE = 6  # seeds with which hypotheses have to do to be recorded


@dataclass(frozen=True)
class Proof:
    """What came of a question: `verdict` is proved or unknown, `used` the hypotheses that it took."""

    question: Question
    verdict: str
    used: frozenset[str]
    seconds: float
    tries: int


# By a conjunct's number or its first letter, by an action and that letter, or by name: what is tried first.
FAMILIES: Mapping[str, str] = {
    "a": "a r",
    "b": "a b",
    "r": "a b r",
    "g": "a b g m",
    "m": "b g m d",
    "k": "a b g k m",
    "c": "a b g k c m",
    "c3": "a b c g k r",
    "d": "b g k c d m",
    "d1": "a b d1 d4 g6 g10",
    "d4": "a b d1 d4 g6 g10",
    "d3": "c2 d1 d2 d3 g3 g9 g10 m",
    "d5": "d5 d6 d1 d2 c1 c2 g6 g9 g10 b4 k5 k4",
    "l2": "d1 d2 d3 c2 g6 g9 b2",
    "l3": "d1 d2 c2 g6 g9 b2",
    "s2": "b g10 s",
    "s3": "d3 d7 s",
    "v2": "g10 v2",
    "v3": "g10 v1 v2 v3",
    "v4": "g3 g10 v1 v2 v3 v4",
    "v5": "g10 v2 v3 v5",
    "v6": "b2 b4 g6 g10 v5 v6",
    "p1": "g10 p1 v2 v3 v4",
    "p2": "g10 p1 p2 v2 v3 v4",
    "p3": "b2 b4 g10 p3 v1 v2 v3 v4",
    "p4": "d1 d3 d4 d8 d9 g6 g10 p4 v",
    "p5": "d1 d3 d4 g6 g10 p5 v2 v3",
    "p6": "g10 p1 p6 v2 v3 v4",
    "p7": "g10 p1 p7 v2 v3 v4",
    "change_voters/b1": "b1 g10 v2 v3 v5",
    "enter_joint/b1": "b1 g10 v2 v3 v5",
    "client_request/b1": "b1 g10 v2 v3 v5",
    "d2": "d2 d10 g10 k4 v1 v2 v3",
    "d10": "d10 g6 g10 v2 v3",
    "j1": "g9 g6",
    "j2": "g8 v5",
    "j3": "g6 g9 p1 v5",
    "j4": "b1 d2 v1 v3 v5",
    "j5": "b1 d2 p v1 v3 v5",
    "j6": "b1 d2 p v1 v3 v5",
    "j7": "b1 d2 p v1 v3 v5",
    "j8": "d1 d8 g6 g9 j24 p4 p5",
    "j9": "g6 g9 j8 p1",
    "j10": "j2 j3 j8",
    "j11": "g6 j9 p1 v5 v6",
    "j12": "d2 j3 j10 p1 v5",
    "j13": "g6 g9 j24 p1 p4",
    "j14": "g6 g9 j2 j3 j24 p4 v5",
    "j15": "g6 j1 j13 p1 p3 p4 v5",
    "j16": "g6 j1 j14 p1 p3 p4 v5",
    "j17": "g8 j13 j15 p4 v5",
    "j18": "g8 j14 j16 p4 v5",
    "j19": "j1 j17 j18 p1 v5",
    "j20": "c4 d2 g6 g8 g9 j24 v5 v6",
    "j21": "g6 g8 g9 j24 v5 v6",
    "j22": "d2 g9 j4 j6 j9 j11 p1 v5 v6",
    "j23": "d2 j4 j5 j6 j7 j9 j10 j11 j12 p1 v5",
    "j24": "d2 g6 j4 j19 j20 j21 j22 j23",
    "handle_append_entries/g3": "d7 g3 g6 g9 l m s1",
    "handle_append_entries/k2": "d7 g3 g6 g9 k1 k2 k4 l m s1",
    "handle_append_entries/c1": "c1 c2 d7 g3 g4 g8 g9 k1 l2 m1 m3 s1",
    "handle_append_entries/d3": "d3 d7 g3 g6 g9 l m s1",
    "handle_install_snapshot/g3": "g3 g6 g9 s",
    "handle_install_snapshot/k2": "k1 k2 l2 s2",
    "handle_install_snapshot/c1": "c1 c2 g3 g4 g9 k1 l2 s2",
    "handle_install_snapshot/d3": "d3 l3 s",
    "handle_install_snapshot/committed_never_changes": "l2 s",
    "become_leader/d": "a1 a4 a6 b1 b5 g6 d",
    "election_safety": "a b",
    "log_matching": "g",
    "leader_completeness": "c2 d1 d2 d5 d6 g6 g9 g10 b4",
    "state_machine_safety": "c2 d g",
    "committed_on_quorum": "d c1 g all",
    "committed_never_changes": "c2 d1 d2 d3 g3 g6 g9 m",
    "only_leaders_commit": "d5 d6 d1 d2 c1 c2 g6 g9 g10 b4 k5 k4",
    "one_leader_per_term": "a b",
    "leader_append_only": "-",  # nothing
    "numbers are natural": "-",
}


def families(question: Question, conjuncts: Collection[str] = CONJUNCTS) -> list[frozenset[str]]:
    """What is tried in turn for a question, the narrowest first."""
    action, claim = question
    number = claim.split("_")[0]
    keys = [f"{action}/{number}", f"{action}/{claim[0]}", number, claim[0]]
    if claim not in conjuncts:
        keys = [f"{action}/{claim}", number, claim]
    found = [_called(FAMILIES[k].split(), conjuncts) for k in keys if k in FAMILIES]
    return [*found, frozenset({*conjuncts, QUORUM})]


def _called(words: list[str], conjuncts: Iterable[str]) -> frozenset[str]:
    names = {n: n.split("_")[0].split(" ")[0] for n in (*conjuncts, QUORUM)}
    return frozenset(n for n, number in names.items() if number in words or n[0] in words)


class Prover:
    """Asks the questions of an induction."""

    def __init__(
        self,
        induction: Unbounded,
        cores: Mapping[Question, Iterable[str]] | None = None,
        seed: int = 0,
        rounds: int = ROUNDS,
    ) -> None:
        self.rounds = rounds
        self.induction = induction
        self.cores = {q: frozenset(c) for q, c in (cores or {}).items()}
        self.seed = seed
        self._kept: tuple[Any, list[z3.BoolRef]] = None, []
        self._action = ""
        self._solvers: dict[int, z3.Solver] = {}  # for questions about this action, by seed

    def prove(self, question: Question, effort: int = EFFORT, track: bool = False) -> Proof:
        """Prove a claim from the recorded hypotheses, or from others that are tried in turn."""
        began = time.process_time()
        tries = 0
        for names, seed in self._attempts(question):
            tries += 1
            used = self._refuted(question, names, seed, effort, track)
            if used is not None:
                return Proof(question, "proved", used, time.process_time() - began, tries)
        return Proof(question, "unknown", frozenset(), time.process_time() - began, tries)

    def core(self, question: Question) -> Proof:
        """A proof from hypotheses of which none can be left out.

        Later conjuncts rest on earlier ones, so they are left out first. What remains has to do with several
        seeds.
        """
        found, tracked = self.prove(question), self.prove(question, track=True)
        used = tracked.used | (found.used & self.induction.of_kind(question.claim) - {question.claim})
        if not self._does(question, used):  # Z3 finds it only by way of others
            used = found.used
        if found.verdict == "proved" and self._does(question, used):
            for name in reversed([QUORUM, *self.induction.conjuncts, *self.induction.lemmas]):
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

    def _attempts(self, question: Question) -> Iterator[tuple[frozenset[str], int]]:
        lemmas = self._lemmas(question)
        known = [*self.induction.conjuncts, *lemmas]
        more = frozenset(known) - CONJUNCTS.keys()
        sets = families(question, known)
        if question in self.cores:
            sets = [*([self.cores[question] | more] if more else []), *sets]
        seeds = range(self.seed, self.seed + self.rounds)
        if question in self.cores:
            yield from ((self.cores[question], seed) for seed in seeds[:STABLE])
        for seed in seeds:
            yield from ((names, seed) for names in sets)

    def _lemmas(self, question: Question) -> list[str]:
        """What may be used: for a lemma those before it, and those that it goes by."""
        names = list(self.induction.lemmas)
        if question.action != NO_STEP or question.claim not in names:
            return names
        earlier = names[: names.index(question.claim)]
        return [*earlier, *(n for n in self.induction.goes_by(question) if n not in earlier)]

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
        for name in sorted(terms.keys() & names):
            if not track:
                solver.add(*terms[name])
                continue
            for k, c in enumerate(terms[name]):
                marks[f"{name}#{k}"] = name
                solver.assert_and_track(c, f"{name}#{k}")
        refuted = solver.check() == z3.unsat
        used = frozenset(marks[str(p)] for p in solver.unsat_core()) if refuted and track else names
        solver.pop()
        return used if refuted else None
