"""Raft without some rules, or with a known bug, and what can still be said of every history then.

The claims about histories are proved of Raft. Of a changed one Z3 is asked which of them every step still
keeps: those that a step breaks are given up, then those that it breaks without them, and so on, until all
that are left are kept together (Houdini).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import z3

from raftspec.mutants import Mutant
from raftspec.properties import raft
from raftspec.rounds import HISTORIES
from raftspec.spec import Spec
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.broken_steps import Question, sizes
from raftworthy.explore.cases import mutant_called
from raftworthy.explore.model import Model
from raftworthy.prove.inductive import Induction

SIZES = (3, 2, 2)  # servers, terms, entries
LIMIT = 20_000_000  # Z3's steps for one question; most take a hundredth
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Change:
    """Raft without some rules, or with a bug; with neither it is Raft."""

    rules: frozenset[str] = frozenset()
    mutant: Mutant | None = None

    @cached_property
    def spec(self) -> Spec:
        return self.mutant.apply(raft) if self.mutant else raft

    @cached_property
    def without(self) -> frozenset[str]:
        """The rules that are taken away, the bug's among them."""
        return self.rules | (self.mutant.without if self.mutant else frozenset())

    def __bool__(self) -> bool:
        return bool(self.rules or self.mutant)

    def model(self, bounds: Bounds, not_asked: Iterable[str] = ()) -> Model:
        """The specification with the change, and without other rules that nobody is held to."""
        return Model(self.spec, bounds, self.without | frozenset(not_asked), properties=False)

    def passes_terms(self) -> bool:
        """Whether a timeout still leads to the next term, as in Raft."""
        return _term_after_timeout(self) == _term_after_timeout(RAFT)


def _term_after_timeout(change: Change) -> str:
    generated = change.model(Bounds()).generated
    term = generated.transitions["timeout"].updates.get("current_term")
    return repr(term and generated.tracer.graph.without_rules(term))


RAFT = Change()


def changed(without: Iterable[str], mutant: str | None) -> Change:
    """A change by the names of rules, or by a bug's id.

    Raises:
        UnusableError: there is no such rule or bug, or it is one of an extension.
    """
    bug = mutant_called(mutant)
    if bug and bug.extensions:
        raise UnusableError(
            f"{mutant} is a bug of Raft with {', '.join(bug.extensions)}; here it is Figure 2 that is asked"
        )
    if unknown := sorted(set(without) - raft.rules.keys()):
        raise UnusableError(f"Figure 2 has no rule {unknown[0]}; `raftworthy rules` lists them")
    return Change(frozenset(without), bug)


def kept_claims(change: Change, progress: Progress = lambda done, total: None) -> frozenset[str]:
    """The claims about histories that hold in every behaviour of a changed Raft, at fixed sizes."""
    return frozenset(HISTORIES) & Keeping(change).left(progress) if change else frozenset(HISTORIES)


class Keeping:
    """The claims of the invariant and about histories, each to be assumed or not."""

    def __init__(self, change: Change) -> None:
        self.small = Induction(sizes(*SIZES), change.rules, change.mutant, rounds=True)
        self.claims = {*self.small.conjuncts, *HISTORIES}
        self.marks = {name: z3.Bool(name) for name in self.small.conjuncts}
        self.solver = z3.SolverFor("QF_FD")
        self.solver.set(rlimit=LIMIT)
        self.solver.add(*self.small.typed)
        for name, of in self.small.invariant.items():
            self.solver.add(*(self._told(name, c) for c in of))

    def _told(self, name: str, c: object) -> z3.BoolRef:
        return z3.Implies(self.marks[name], self.small.logic.truth(c))

    def left(self, progress: Progress) -> set[str]:
        """The claims that are kept together."""
        gone = set(self.small.not_at_first())
        todo = [q for q in self.small.questions() if q.claim in self.claims]
        used: dict[Question, frozenset[str]] = {}
        while todo:
            for k, q in enumerate(todo):
                progress(k, len(todo))
                found = None if q.claim in gone else self._used(q, self.marks.keys() - gone)
                if found is None:
                    gone.add(q.claim)
                    used.pop(q, None)
                else:
                    used[q] = found
            todo = [q for q, names in used.items() if q.claim not in gone and names & gone]
        return self.claims - gone

    def _used(self, question: Question, names: Iterable[str]) -> frozenset[str] | None:
        """From which of these claims it follows that a step keeps another; None if Z3 doesn't say that."""
        asked = self.small.wrong(question, told=False)
        if any(c is False for c in asked.formulas):
            return frozenset()
        self.solver.push()
        self.solver.add(*(c for c in asked.formulas if c is not True))
        self.solver.add(*(self._told(name, c) for name, c in asked.said))
        found = self.solver.check(*(self.marks[name] for name in names))
        core = frozenset(x.decl().name() for x in self.solver.unsat_core()) if found == z3.unsat else None
        self.solver.pop()
        return core
