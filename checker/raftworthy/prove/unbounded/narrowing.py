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

# What lemmas are proved from: mostly by induction on their ranks, which isn't done at fixed sizes. Of steps
# those for which fixed sizes name too few or too many. Of two lists, the one is with snapshots.
TOLD: Mapping[str, str] = {
    "j1": "g9 g6",
    "j2": "g8 v5",
    "j3": "g6 g9 p1 v5",
    "j4": "b1 d2 v1 v3 v5",
    "j5": "b1 d2 j3 p2 p6 p7 v3",
    "j6": "b1 d2 j3 p2 p6 p7 v3",
    "j7": "b1 d2 j3 p2 p6 p7 v3",
    "j8": "d1 d8 g6 g9 j25 p4 p5",
    "j9": "g6 g9 j8",
    "j10": "j2 j3 j8",
    "j11": "g6 j9 p1 v5 v6",
    "j12": "d2 j3 j10 p1 v5",
    "j13": "g6 g9 j25 p1 p4",
    "j14": "g6 g9 j2 j3 j25 p4 v5",
    "j15": "g6 j1 j13 p1 p3 p4 v5",
    "j16": "g6 j1 j14 p1 p3 p4 v5",
    "j17": "g8 j13 j15 p4 v5",
    "j18": "g8 j14 j16 p4 v5",
    "j19": "j1 j17 j18 p1 v5",
    "j20": "c4 d2 g6 g8 g9 j25 v5 v6",
    "j21": "g6 g8 g9 j25 v6",
    "j22": "d2 g9 j4 j6 j9 j11 p1 v5 v6",
    "j23": "d2 j4 j5 j6 j7 j9 j10 j11 j12 p1 v5",
    "j24": "g6 j4 j19 j22 j23",
    "j25": "j20 j21 j24",
    "w1": "g3 g6 g9",
    "w2": "g3 g8 v4",
    "w3": "g3 g6 g9 p1 v4",
    "w4": "d2 v1 v3 v4",
    "w5": "d2 p2 p6 p7 v3 w3",
    "w6": "d2 p2 p6 p7 v3 w3",
    "w7": "d2 p2 p6 p7 v3 w3",
    "w8": "d1 d8 g3 g6 g9 p4 p5 w25",
    "w9": "g6 g9 p1 w8",
    "w10": "j8 w2 w3",
    "w11": "g6 p1 v4 w9",
    "w12": "d2 p1 v4 w3 w10",
    "w13": "g6 g9 p1 p4 w25",
    "w14": "g6 g9 j25 p4 v4 w2 w3",
    "w15": "g6 p1 p3 p4 v4 w1 w13",
    "w16": "g6 p1 p3 p4 v4 w1 w3 w14",
    "w17": "g3 g8 p4 v4 w13 w15",
    "w18": "g3 g8 p4 v4 w14 w16",
    "w19": "g6 p1 v4 w1 w3 w17 w18",
    "w20": "c3 d2 g3 g6 g8 g9 j25 v4",
    "w21": "g3 g6 g8 g9 j25 v4",
    "w22": "d2 g3 g9 p1 v4 w4 w6 w9 w11",
    "w23": "d2 p1 v4 w3 w4 w5 w6 w7 w9 w10 w11 w12",
    "w24": "g6 w4 w19 w22 w23",
    "w25": "w20 w21 w24",
    "x1": "b7 g3 g6 j9 p1 v5 v6 w3",
    "x2": "b7 g3 g6 j3 p1 v4 v5 v6 w9",
    "x3": "p1 v5 w3 x1 x2",
    "x4": "g6 j3 p1 p3 p4 v4 v5 v6 w1 w3 w13",
    "x5": "b7 g3 g6 j1 j13 p1 p3 p4 v4 w3",
    "x6": "g3 g8 v4 v5 x4 x5",
    "x7": "p1 v4 v5 w1 w3 x6",
    "x8": "b1 j3 p2 p6 p7 v3 w3 x1 x2 x3 x7",
    "e1": "a4 b5 b6 x8",
    "y1": "g9 j3 j10 p1 v5",
    "y2": "j9 j11 p1 v5 y1",
    "y3": "p1",
    "y4": "g9 v5 y3",
    "y5": "j9 j19 y4",
    "y6": "b1 v1 v3",
    "y7": "b1 j3 p2 p6 p7 v3",
    "y8": "b1 j3 p2 p6 p7 v3",
    "y9": "b1 j3 p2 p6 p7 v3",
    "y10": "j9 y5 y6 y9",
    "y11": "j9 y1 y6 y7 y8 y10",
    "y12": "c4 g6 g8 g9 v5 v6 y14",
    "y13": "g6 g8 g9 v6 y14",
    "y14": "g6 y2 y11 y12 y13",
    "z1": "b2 b4 g6 g10 k3 k5 v3 v4",
    "z2": "y14 z1",
    "z3": "b4 d1 d5 d6 g6 g9 g10 j1 l3 z2",
    "l3": "d1 d8 g6 j1 j25",
    "l7": "c1 d1 d2 d8 g3 g6 g9 j25 v1 v3",
    "l8": "b1 b4 g10 v3 v4 v5",
    "become_leader/g9": "a6 b7 e1 g3 g6 g9 v3",
    "become_leader/k2": "a6 e1 k1 k2 v3",
    "become_leader/k4": "a6 e1 k1 k4 v3",
    "become_leader/d3": "a6 d1 d3 e1 g6 v3",
    "become_leader/d5": "a6 d1 d5 e1 g6 v3",
    "become_leader/p5": "a6 b7 d1 e1 g3 g6 p5 v3",
    "client_request/d2": "b4 d2 g10 v3",
    "client_request/p6": "b4 g10 p1 p6 v3",
    "client_request/p5": "b4 g10 p1 p5 v3",
    "advance_commit_index/d5": "b4 d5 g10 v3 z3",
    "advance_commit_index/only_leaders_commit": "b4 d5 g10 v3 z3",
    "advance_commit_index/p5": "b4 d4 p1 p5",
    "change_voters/b1": "b1 b4 g10 v2 v3 v5",
    "change_voters/v5": "b4 g10 v2 v3 v4 v5",
    "change_voters/d2": "b4 d2 g10 v2 v3 v4",
    "change_voters/p2": "b4 g10 p1 p2 v2 v3 v4",
    "change_voters/p4": "b4 d3 d4 d8 d9 g6 g10 p1 p4 v2 v3 v4",
    "change_voters/p5": "b4 d1 d3 d4 g10 p1 p5 v2 v3 v4",
    "enter_joint/v3": "l8 v3",
    "enter_joint/g8": "b4 g4 g8 g10",
    "enter_joint/d2": "b4 d2 g10 v2 v3 v4",
    "enter_joint/p2": "b4 g10 p1 p2 v2 v3 v4",
    "enter_joint/p4": "b4 d3 d4 d8 d9 g6 g10 p1 p4 v2 v3 v4",
    "enter_joint/p5": "b4 d1 d3 d4 g10 p1 p5 v2 v3 v4",
    "enter_joint/p7": "b4 g10 p1 p7 v2 v3 v4",
    "handle_append_entries/d3": "d3 d7 g3 g6 g9 l1 l2 l3 m1 m3 m4 s1 | d3 g3 g6 g9 l3 m1 m3 m4 v1",
    "handle_append_entries/committed_never_changes": "d3 g3 g6 g9 l3 m1 m3 m4 v1",
    "committed_on_quorum": "d5 d6 l7",
}


def sizes_for(extensions: Collection[str]) -> tuple[tuple[int, int, int], ...]:
    """The sizes at which to ask first."""
    return WITH_SESSIONS if "sessions" in extensions else SIZES


def written_down(question: Question, known: Iterable[str]) -> frozenset[str]:
    """From what a question is proved, if that is said of it and there is all of it."""
    first = question.claim.split("_")[0]
    number = first if first[-1].isdigit() else question.claim
    of = number if question.action == NO_STEP else f"{question.action}/{number}"
    for words in map(str.split, TOLD.get(of, "").split("|")):
        found = frozenset(n for n in known if n.split("_")[0] in words)
        if found and len(found) == len(words):
            return found
    return frozenset()


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
