"""Why no history leads to given logs: a few facts that can't all be true, and the claims that say so.

Z3 says which facts and claims its contradiction needs. Then each is left out in turn, as long as it stays
one: what remains is minimal, so without any single one of them nothing would contradict the rest.

    t  a term
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import z3

from raftspec.rounds import HISTORIES, ROUNDS
from raftworthy.ask.histories import Fact, Histories

Core = Callable[[Iterable[str]], list[str] | None]


@dataclass(frozen=True)
class Because:
    """Facts of the file that can't all be true, and the claims that contradict them, with their terms."""

    facts: tuple[Fact, ...]
    claims: Mapping[str, tuple[int, ...]]

    def doc(self, claim: str) -> str:
        return " ".join(HISTORIES[claim].doc.split())


def satisfiable(histories: Histories, kept: frozenset[str]) -> Iterator[frozenset[str]]:
    """Claims that some history satisfies, and no more of them together; `kept` are always among them."""
    named, core = _named(histories)

    def possible(claims: frozenset[str]) -> bool:
        return core([n for n, x in named.items() if isinstance(x, Fact) or x[0] in claims]) is None

    others = [name for name in histories.claims if name not in kept]
    found: list[frozenset[str]] = []
    for last in others if possible(kept) else ():
        claims = kept
        for name in (*(x for x in others if x != last), last):
            claims |= {name} if possible(claims | {name}) else set()
        if claims not in found:
            found.append(claims)
            yield claims


def because(
    histories: Histories, progress: Callable[[int, int | None], None], rounds: bool = True
) -> Because:
    """A minimal contradiction. There has to be one: no history has these logs.

    Without `rounds`, already by the claims that aren't about rounds.
    """
    named, core = _named(histories, rounds)
    left = core(named)
    assert left is not None, "there is a history after all"
    # Facts first: the fewer of them, the easier the answer is to see. Long logs lose their ends first.
    order = sorted(left, key=lambda name: (not isinstance(named[name], Fact), -list(named).index(name)))
    for k, name in enumerate(order):
        progress(k, len(order))
        if name in left:
            left = core([x for x in left if x != name]) or left
    facts = [x for name in named if name in left and isinstance(x := named[name], Fact)]
    claims: dict[str, list[int]] = {}
    for name in named:
        if name in left and not isinstance(x := named[name], Fact):
            claims.setdefault(x[0], []).append(x[1])
    return Because(tuple(facts), {c: tuple(sorted(ts)) for c, ts in claims.items()})


def _named(histories: Histories, rounds: bool = True) -> tuple[Mapping[str, Fact | tuple[str, int]], Core]:
    """Names for facts and claims, a claim's with its term, and what says which a contradiction needs."""
    logic = histories.logic
    s = z3.SolverFor("QF_FD")
    s.add(*(logic.truth(c) for c in histories.formulas if c is not True))
    named: dict[str, Fact | tuple[str, int]] = {}
    for fact in histories.facts():
        name = f"fact {len(named)}"
        named[name] = fact
        s.add(z3.Implies(z3.Bool(name), logic.truth(fact.holds)))
    for claim, instances in histories.claims.items():
        if claim in ROUNDS and not rounds:
            continue
        for environment, holds in instances:
            t = environment.get("t", 0)
            name = f"{claim}@{t}"
            named[name] = claim, t
            s.add(z3.Implies(z3.Bool(name), logic.truth(holds)))

    def core(names: Iterable[str]) -> list[str] | None:
        """Those of the names that a contradiction needs; None if there is none."""
        found = s.check(*map(z3.Bool, names))
        assert found != z3.unknown, s.reason_unknown()
        return [str(c) for c in s.unsat_core()] if found == z3.unsat else None

    return named, core
