"""One candidate's election as Z3 terms: it asks some of the others, they answer, it counts, and it wins.

Each step is the specification's own action. Whom it asks is left open, and so is what isn't known.

    c  the candidate     v  a voter     s  a state
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import z3

from raftspec.raft import RequestVote
from raftworthy.explore.broken_steps import DisagreementError
from raftworthy.explore.paths import Path
from raftworthy.prove.inductive import solver
from raftworthy.prove.logic import Truth
from raftworthy.prove.machine import Machine, Sent
from raftworthy.prove.reach import where
from raftworthy.prove.terms import Environment, Variables


class Campaign:
    """The election in `term` of candidate c, from a state that `typed` limits, after so many timeouts."""

    def __init__(
        self, machine: Machine, start: Variables, typed: list[Truth], c: str, term: int, timeouts: int
    ) -> None:
        self.machine, self.logic, self.c = machine, machine.logic, c
        self.start = start
        self.timeouts = timeouts
        names = machine.shapes.servers
        self.me = names.index(c) + 1
        self.formulas = list(typed)
        s, sends = start, tuple[Sent, ...]()
        for _ in range(timeouts):
            taken = machine.take("timeout", s, {"i": self.me})
            self.formulas += [taken.possible, taken.fits]
            s, sends = taken.after, taken.sends
        self.formulas.append(self.logic.same(s.servers[self.me - 1]["current_term"], term))
        requests = {m.fields[1]: m for m in sends if m.kind is RequestVote and m.condition is not False}
        self.asks: dict[str, z3.BoolRef] = {}
        self.requests: dict[str, Environment] = {}
        self.replies: dict[str, Sent] = {}
        for k, v in enumerate(names, 1):
            if k == self.me:
                continue
            asked = self.asks[v] = z3.Bool(f"asks.{v}")
            self.requests[v] = _environment(requests[k])
            taken = machine.take("handle_request_vote", s, self.requests[v])
            self.replies[v] = taken.sends[0]
            s = self._if(asked, taken.possible, taken.fits, taken.after, s)
        for v, reply in self.replies.items():
            taken = machine.take("handle_request_vote_reply", s, _environment(reply))
            s = self._if(self._answers(v), taken.possible, taken.fits, taken.after, s)
        self.end = machine.take("become_leader", s, {"i": self.me})

    def _if(self, c: Truth, possible: Truth, fits: Truth, after: Variables, s: Variables) -> Variables:
        """The state after a step that is taken if c."""
        self.formulas.append(self.logic.either(self.logic.no(c), self.logic.both(possible, fits)))
        return where(self.machine, self.logic.truth(c), after, s)

    def _answers(self, v: str) -> Truth:
        return self.logic.both(self.asks[v], self.replies[v].condition)

    # --- questions ---

    def _ask(self, *more: Truth) -> z3.ModelRef | None:
        formulas = [*self.formulas, *more]
        if any(c is False for c in formulas):
            return None
        s = solver()
        s.add(*(c for c in formulas if c is not True))
        found = s.check()
        if found == z3.unknown:
            raise DisagreementError(f"Z3 doesn't decide a finite question: {s.reason_unknown()}")
        return s.model() if found == z3.sat else None

    def _votes(self, v: str) -> Truth:
        reply = self.replies[v]
        granted = reply.fields[list(reply.kind.types()).index("granted")]
        return self.logic.both(self.asks[v], reply.condition, granted)

    def can_stand(self) -> bool:
        """Whether c comes to stand for election in the term at all."""
        return self._ask() is not None

    def can_grant(self, v: str) -> bool:
        """Whether v can vote for c, whatever isn't known."""
        return self._ask(self._votes(v)) is not None

    def all_vote(self, voters: Sequence[str]) -> z3.ModelRef | None:
        """A way in which exactly these are asked, and vote for c."""
        votes = [self._votes(v) for v in voters]
        return self._ask(*votes, *(self.logic.no(c) for v, c in self.asks.items() if v not in voters))

    def won(self) -> z3.ModelRef | None:
        """A way in which c wins, with as few voters asked as there can be."""
        best, fewer = None, True
        while (found := self._ask(self.end.possible, self.end.fits, fewer)) is not None:
            best = found
            asked = sum(self.is_asked(found, v) for v in self.asks)
            fewer = self.logic.less(self.logic.count(list(self.asks.values())), asked)
        return best

    def asked_only(self, v: str) -> z3.ModelRef:
        """A way in which only v is asked, and has voted for nobody yet if that is possible."""
        only = [c if u == v else self.logic.no(c) for u, c in self.asks.items()]
        names = self.machine.shapes.servers
        fresh = self.logic.same(self.start.servers[names.index(v)]["voted_for"], 0)
        found = self._ask(*only, fresh) or self._ask(*only)
        assert found is not None, f"{v} can't even be asked"
        return found

    def is_asked(self, found: z3.ModelRef, v: str) -> bool:
        return bool(z3.is_true(found.eval(self.asks[v], model_completion=True)))

    # --- a witness ---

    def path(self, found: z3.ModelRef, until: str | None = None, won: bool = True) -> Path:
        """What Z3 found, taken again by Python: the election, or a part of it.

        `until` is the voter whose answer is the last step; without `won`, all but the last step is taken.

        Raises:
            DisagreementError: Python doesn't take a step.
        """
        machine, model = self.machine, self.machine.model

        def message(kind: Any, fields: Any) -> Any:
            return machine.message(found, kind, fields)

        steps: list[tuple[str, tuple[Any, ...]]] = [("timeout", (self.c,))] * self.timeouts
        asked = [v for v in self.asks if self.is_asked(found, v)]
        for v in asked:
            steps.append(("handle_request_vote", (message(RequestVote, self.requests[v].values()),)))
            if v == until:
                break
        if until is None:
            for v in asked:
                if z3.is_true(found.eval(self.logic.truth(self._answers(v)), model_completion=True)):
                    reply = self.replies[v]
                    steps.append(("handle_request_vote_reply", (message(reply.kind, reply.fields),)))
            steps += [("become_leader", (self.c,))] if won else []
        try:
            return model.repeat(machine.world(found, self.start), steps)
        except ValueError as error:
            raise DisagreementError(f"Python doesn't take what Z3 found: {error}") from error


def _environment(m: Sent) -> dict[Any, Any]:
    """A message as what its handler reads."""
    return {(m.kind, f): x for f, x in zip(m.kind.types(), m.fields, strict=True)}
