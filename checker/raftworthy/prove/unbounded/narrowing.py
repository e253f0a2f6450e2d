"""From which conjuncts a question is tried: those that it takes at fixed sizes.

With a few servers, terms and entries Z3 decides in hundredths of a second, whatever it is told. What it
used there says what is likely to matter for any number of servers, where it loses its way among many
hypotheses. It is a place to begin, no more: what is proved is proved from what is then tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import z3

from raftspec.invariant import lemmas
from raftworthy.explore.broken_steps import NO_STEP, Question, sizes
from raftworthy.prove.inductive import Induction
from raftworthy.prove.unbounded.induction import Unbounded

SIZES = ((3, 2, 2), (3, 3, 2))  # of servers, terms, entries, in turn
WITH_SESSIONS = ((3, 2, 2), (3, 2, 3), (3, 3, 2))  # somebody is registered, asks, and asks again
# What is said of leaders' logs alone: little of the short ones at these sizes, much of longer ones.
OF_LONG_LOGS = frozenset({"g8_terms_grow_along_logs", "g9_leader_logs_share_prefixes"})
LIMIT = 20_000_000  # Z3's steps for one answer; most take a hundredth

# What lemmas are proved from: mostly by induction on their ranks, which isn't done at fixed sizes.
TOLD: Mapping[str, str] = {
    "j1": "g9 g6",
    "j2": "g8 v5",
    "j3": "g6 g9 p1 v5",
    "j4": "b1 d2 v1 v3 v5",
    "j5": "b1 d2 p1 p2 p3 p4 p5 p6 p7 v1 v3 v5",
    "j6": "b1 d2 p1 p2 p3 p4 p5 p6 p7 v1 v3 v5",
    "j7": "b1 d2 p1 p2 p3 p4 p5 p6 p7 v1 v3 v5",
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
    # With snapshots, the one question for which fixed sizes name too few.
    "handle_append_entries/d3": "d3 d7 g3 g6 g9 l1 l2 l3 m1 m3 m4 s1",
}


def sizes_for(extensions: Collection[str]) -> tuple[tuple[int, int, int], ...]:
    """The sizes at which to ask first."""
    return WITH_SESSIONS if "sessions" in extensions else SIZES


def written_down(question: Question, known: Iterable[str]) -> frozenset[str]:
    """From what a question is proved, if that is said of it and there is all of it."""
    number = question.claim.split("_")[0]
    words = TOLD.get(number if question.action == NO_STEP else f"{question.action}/{number}", "").split()
    found = frozenset(n for n in known if n.split("_")[0] in words)
    return found if len(found) == len(words) else frozenset()


class Narrowing:
    """Answers questions at fixed sizes, and says from which hypotheses."""

    def __init__(self, induction: Unbounded, size: tuple[int, int, int]) -> None:
        bounds = sizes(*size, induction.extensions)
        self.small = Induction(bounds, induction.without, induction.mutant)
        self._known = frozenset(self.small.questions())
        claims = {
            **{n: list(self.small.instances(p)) for n, p in lemmas(self.small.machine.spec).items()},
            **self.small.invariant,
        }
        self._marks = {name: z3.Bool(name) for name in claims}
        self._solver = z3.SolverFor("QF_BV")
        self._solver.set(rlimit=LIMIT)
        self._solver.add(*self.small.typed)
        truth = self.small.logic.truth
        for name, of in claims.items():
            self._solver.add(*(z3.Implies(self._marks[name], truth(c)) for c in of))

    def used(
        self, question: Question, allowed: frozenset[str], fewest: bool = False
    ) -> frozenset[str] | None:
        """Of the hypotheses that are allowed, those that an answer takes; None if the claim is broken.

        With `fewest` none of them can be left out. All of them, if nothing can be said.
        """
        if question not in self._known:
            return allowed
        formulas = self.small.wrong(question).formulas
        if any(c is False for c in formulas):
            return frozenset()
        self._solver.push()
        self._solver.add(*(c for c in formulas if c is not True))
        answer = self._ask(allowed)
        if answer and fewest:
            for name in reversed(self._marks):  # later conjuncts rest on earlier ones
                answer = (self._ask(answer - {name}) or answer) if name in answer else answer
        self._solver.pop()
        return answer

    def _ask(self, names: frozenset[str]) -> frozenset[str] | None:
        """The names of those used; none if all can be true together."""
        found = self._solver.check(*(mark for name, mark in self._marks.items() if name in names))
        if found == z3.sat:
            return None
        return frozenset(x.decl().name() for x in self._solver.unsat_core()) if found == z3.unsat else names
