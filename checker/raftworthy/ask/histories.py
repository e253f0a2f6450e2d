"""Histories of given logs, round by round, as Z3 chooses them: who led each term, and who took over how much.

What a history has to satisfy is not written here: it is the claims of `raftspec.rounds`, which every step of
the specification keeps. So logs for which no history satisfies them don't exist side by side. A history that
does satisfy them is only a plan until its steps have been taken.

    i  a server     t  a term     n  an index
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import z3

from raftspec.properties import raft
from raftspec.rounds import HISTORIES, ROUNDS, with_rounds
from raftspec.spec import Property, Spec
from raftspec.types import INDEX, MAYBE_SERVER, TERM, Type
from raftworthy.ask.logs import NOBODY, Logs, Named
from raftworthy.explore.model import Model
from raftworthy.prove.inductive import solver
from raftworthy.prove.logic import Entries, Number, Table, Truth, Value
from raftworthy.prove.machine import Machine
from raftworthy.prove.terms import Variables

Terms = tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """A term as a plan has it: its leader with its log, and everybody's log when the term is over."""

    term: int
    leader: str | None
    log: Terms
    logs: Mapping[str, Terms]
    commit: int


class Fact(NamedTuple):
    """Something that the file says of a server."""

    server: str
    what: str
    holds: Truth


class Histories:
    """All histories with so many terms and entries that satisfy `claims`; `facts` are what the file says.

    With an `open_end`, the last term stands for any number of terms, in which anything may happen to logs
    that the claims about earlier terms, and those about logs by themselves, don't exclude. Nothing is
    committed then: what is, ends with an entry of its leader's term, and stays on a quorum, and the file has
    none of such terms.
    """

    def __init__(
        self, logs: Logs, terms: int, entries: int, open_end: bool = False, claims: Iterable[str] = HISTORIES
    ) -> None:
        self.logs, self.terms, self.entries, self.open_end = logs, terms, entries, open_end
        bounds = Named(
            len(logs.names), terms, max(entries, 1), None, 0, 0, max(entries, 1), True, called=logs.names
        )
        whole = with_rounds(terms)
        # Histories are told by claims alone, so no action is needed.
        known = {name: p for name, p in HISTORIES.items() if name in set(claims)}
        spec = Spec(whole.server, whole.history, raft.rules, {}, known)
        self.machine = Machine(Model(spec, bounds))
        self.logic = self.machine.logic
        self.formulas: list[Truth] = []
        self.state = self._state()
        self.claims = {name: list(self._instances(p)) for name, p in known.items()}

    # --- an unknown history ---

    def _state(self) -> Variables:
        """The end of an unknown history. Commands are all alike: no step depends on them."""
        known = self.machine.known(self.machine.model.generated.initial())
        servers = []
        for log, first in zip(self.logs.servers, known.servers, strict=True):
            i = log.server
            # A server may stand for election at any time, so whose term isn't known may be in the last.
            term = self.terms if log.term is None else log.term
            ends = [self._log(f"{i}.ends.{t}") if t < term else e for t, e in enumerate(first["ends"].items)]
            voted = [
                tuple(z3.Bool(f"{i}.voted.{t}.{c}") for c in self.logs.names)
                for t in range(len(first["voted"].items))
            ]
            servers.append(
                {
                    **first,
                    "current_term": term,
                    "voted_for": self._number(MAYBE_SERVER, f"{i}.voted_for"),
                    "log": self._log(f"{i}.log"),
                    "commit_index": self._number(INDEX, f"{i}.commit_index"),
                    "ends": Table(tuple(ends)),
                    "voted": Table(tuple(voted)),
                }
            )
        past = dict(known.past)
        keys = range(len(past["logs"].items))
        past["committed"] = self._log("committed")
        past["leaders"] = Table(tuple(self._number(MAYBE_SERVER, f"leaders.{t}") for t in keys))
        past["commits"] = Table(tuple(self._number(INDEX, f"commits.{t}") for t in keys))
        if self.open_end:
            self.formulas.append(self.logic.same(past["commits"].items[self.terms], 0))
        past["logs"] = Table(tuple(self._log(f"logs.{t}") for t in keys))
        return Variables(tuple(servers), past)

    def _number(self, t: Type, name: str) -> Number:
        value, typed = self.machine.shapes.fresh(t, name)
        self.formulas += typed
        return value

    def _log(self, name: str) -> Entries:
        """An unknown log: terms from 1 on, and zeros behind them."""
        length = self._number(INDEX, f"{name}.length")
        self.formulas.append(self.logic.at_most(length, self.entries))
        items = []
        for n in range(self.entries):
            term = self._number(TERM, f"{name}.{n + 1}")
            self.formulas.append(self.logic.same(self.logic.less(n, length), self.logic.less(0, term)))
            items.append((term, 0))
        return Entries(length, tuple(items))

    def _instances(self, p: Property) -> Iterator[tuple[Mapping[str, Any], Truth]]:
        """A claim for every value of its parameters; one about a message says nothing of logs."""
        if any(t.kind == "record" for t in p.params.values()):
            return
        terms = self.machine.terms(self.state)
        values = [
            range(1, len(self.logs.names) + 1)
            if t.kind == "server"
            else range((self.terms if t == TERM else self.entries) + 1)
            for t in p.params.values()
        ]
        for params in itertools.product(*values):
            environment = dict(zip(p.params, params, strict=True))
            if self.open_end and p.name in ROUNDS and environment.get("t") == self.terms:
                continue
            holds = terms.value(self.machine.claims[p.name], environment)
            if holds is not True:
                yield environment, holds

    # --- what the file says ---

    def facts(self) -> Iterator[Fact]:
        """What the file says of each server's log and commit index."""
        logic = self.logic
        for log, variables in zip(self.logs.servers, self.state.servers, strict=True):
            have = variables["log"]
            for n, t in enumerate(log.terms, 1):
                yield Fact(log.server, f"entry {n} is of term {t}", logic.same(have.items[n - 1][0], t))
            if len(log.terms) < self.entries:
                yield Fact(
                    log.server, f"there is no entry {len(log.terms) + 1}",
                    logic.at_most(have.length, len(log.terms)),
                )  # fmt: skip
            commit = variables["commit_index"]
            if log.commit is None:
                self.formulas.append(logic.same(commit, 0))
            else:
                yield Fact(log.server, f"commit_index is {log.commit}", logic.same(commit, log.commit))
            if log.votes and log.term is not None:
                vote = self.logs.names.index(log.vote) + 1 if log.vote else 0
                told = f"votes for {log.vote or NOBODY} in term {log.term}"
                yield Fact(log.server, told, logic.same(variables["voted_for"], vote))

    def exists(self, rounds: bool = True) -> bool:
        """Whether some history satisfies the claims, or those that aren't about rounds."""
        claims = [c for name, of in self.claims.items() if rounds or name not in ROUNDS for _, c in of]
        return self._solved([*(f.holds for f in self.facts()), *self.formulas, *claims]) is not None

    def plan(self) -> list[Round] | None:
        """A history of exactly these logs, round by round; None if no history satisfies the claims.

        If it can be, no leader has entries that nobody has in the end.
        """
        claims = [c for of in self.claims.values() for _, c in of]
        facts = [f.holds for f in self.facts()]
        needed = [*facts, *self.formulas, *claims]
        simple = [*needed, *self._nothing_lost(), *self._commits_are_learned()]
        found = self._solved(simple) or self._solved(needed)
        if found is None:
            return None
        return list(self._rounds(self._calmer(found, needed)))

    def _calmer(self, found: z3.ModelRef, needed: list[Truth], tries: int = 6) -> z3.ModelRef:
        """A history with the same leaders and their logs, in which logs change as seldom as can be."""
        needed = [*needed, *self._commits_are_learned()]
        kept = list(self._leaders_of(found))
        changes = self._changes()
        for _ in range(tries):
            now = sum(bool(z3.is_true(found.eval(c, model_completion=True))) for c in changes)
            fewer = z3.AtMost(*changes, (now * 3) // 4)
            better = self._solved([*needed, *kept, fewer])
            if better is None:
                break
            found = better
        return found

    def _solved(self, conditions: Iterable[Truth]) -> z3.ModelRef | None:
        s = solver()
        s.add(*(self.logic.truth(c) for c in conditions if c is not True))
        found = s.check()
        assert found != z3.unknown, s.reason_unknown()
        return s.model() if found == z3.sat else None

    def _nothing_lost(self) -> Iterator[Truth]:
        """No leader has an entry of its own that isn't in the file, and nobody leads for nothing."""
        last = {t: n for log in self.logs.servers for n, t in reversed(list(enumerate(log.terms, 1)))}
        for log in self.logs.servers:
            for n, t in enumerate(log.terms, 1):
                last[t] = max(last[t], n)
        for t, log in enumerate(self.state.past["logs"].items[1:], 1):
            for n, (term, _) in enumerate(log.items, 1):
                if n > last.get(t, 0):
                    yield self.logic.no(self.logic.same(term, t))
        if all(log.commit is None for log in self.logs.servers):
            yield from (self.logic.same(n, 0) for n in self.state.past["commits"].items)

    def _commits_are_learned(self) -> Iterator[Truth]:
        """Each commit index of the file is what a server hears from a leader, or comes to as leader itself.

        A server that restarts knows of nothing committed, so 0 can be had in the end.
        """
        logic, past = self.logic, self.state.past
        for k, (log, v) in enumerate(zip(self.logs.servers, self.state.servers, strict=True), 1):
            n = log.commit
            if not n:
                continue
            ways = []
            for t in range(1, v["current_term"] + 1):
                commit, have = past["commits"].items[t], past["logs"].items[t]
                after = v["ends"].items[t] if t < v["current_term"] else v["log"]
                leads = logic.same(past["leaders"].items[t], k)
                yield logic.either(logic.no(leads), logic.at_most(commit, n))
                own = logic.both(leads, logic.same(commit, n))
                same = logic.both(
                    logic.at_most(n, after.length), *map(logic.same, after.items[:n], have.items[:n])
                )
                hears = logic.both(logic.no(leads), logic.at_most(n, commit), same)
                ways.append(logic.either(own, hears))
            yield logic.either(*ways)

    def _leaders_of(self, model: z3.ModelRef) -> Iterator[Truth]:
        """That the leaders and their logs are those of a model."""
        past = self.state.past
        for x in (past["leaders"], past["logs"]):
            yield self.logic.same(x.items, self.machine.shapes.seen(model, x.items))

    def _changes(self) -> list[z3.BoolRef]:
        """For each server and term, whether its log changes."""
        out = []
        for v in self.state.servers:
            after = [*v["ends"].items[: v["current_term"]], v["log"]]
            for a, b in itertools.pairwise(after):
                changed = self.logic.no(self.logic.same(a, b))
                if not isinstance(changed, bool):
                    out.append(changed)
        return out

    def _rounds(self, model: z3.ModelRef) -> Iterator[Round]:
        def seen(x: Value) -> Any:
            return self.machine.shapes.seen(model, x)

        def terms_of(q: Entries) -> Terms:
            known = seen(q)
            return tuple(t for t, _ in known.items[: known.length])

        past = self.state.past
        for t in range(1, self.terms + 1):
            leader = seen(past["leaders"].items[t])
            after = {
                i: terms_of(v["ends"].items[t] if t < v["current_term"] else v["log"])
                for i, v in zip(self.logs.names, self.state.servers, strict=True)
            }
            yield Round(
                t,
                self.logs.names[leader - 1] if leader else None,
                terms_of(past["logs"].items[t]) if leader else (),
                after,
                seen(past["commits"].items[t]) if leader else 0,
            )
