"""What is proved of messages: which change nothing any more, and which do what any other of their kind does.

A message behind its receiver (of an older term) stays behind, if terms never fall; that is asked, too. Each
fate is a question to Z3 about the handler, in any state of some sizes, reachable or not. The sizes leave
room for all terms that a handler can tell apart: it only compares them (`renaming.counted`).

    kind  a message's class, with what its yes-or-no fields say     s  any state     m, n  messages
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raftspec.mutants import Mutant
from raftspec.raft import raft
from raftspec.types import TERM, Record
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.model import Model
from raftworthy.structs import snake_case

if TYPE_CHECKING:
    from raftworthy.prove.machine import Machine, Taken
    from raftworthy.prove.terms import Variables

# Where a message's term stands to its receiver's.
BEHIND, NOT_AHEAD, AHEAD = "behind", "not ahead", "ahead"
# Received, it changes nothing and sends nothing; or what any such message from the same server does.
IDLE, ALIKE = "idle", "alike"

# The logs in these questions, and how many terms: a receiver's own, its log's, and those of two messages.
LOG = 2
TERMS = 1 + LOG + 2 * 3

Kind = tuple[str, tuple[bool, ...]]


def kind_of(m: Any) -> Kind:
    """A message's kind: its name, and its fields that are true or false."""
    values = (getattr(m, f) for f in m.__struct_fields__)
    return m.__struct_config__.tag, tuple(x for x in values if isinstance(x, bool))


@dataclass(frozen=True)
class Fates:
    """What was proved. `clock` is the server's variable that is its term.

    `rises`: no step lets a term fall; `moving`: the actions that change it.
    """

    clock: str
    rises: bool
    moving: frozenset[str]
    known: Mapping[tuple[Kind, str], str]

    def get(self, kind: Kind, where: str) -> str | None:
        """What a message there will always be, if anything is proved."""
        return self.known.get((kind, where))


def clock_of(server: type[Record]) -> str:
    """The server's variable that is its term."""
    clocks = [name for name, t in server.types().items() if t == TERM]
    if len(clocks) != 1:
        raise UnusableError(f"servers have {len(clocks)} variables that are terms; one is needed")
    return clocks[0]


def prove_fates(
    servers: int,
    without: Iterable[str] = (),
    mutant: Mutant | None = None,
    crashes: int = 0,
) -> Fates:
    """Ask Z3 about every kind of message, and about every action whether terms fall."""
    from raftworthy.prove.machine import Machine

    bounds = Bounds(servers, TERMS, LOG, crashes=crashes)
    model = Model(raft, bounds, without, mutant, properties=False)
    asker = _Asker(Machine(model), clock_of(model.spec.server))
    moving, falls = asker.terms_move()
    known: dict[tuple[Kind, str], str] = {}
    if not falls:
        for kind, cls in asker.kinds():
            for where in (NOT_AHEAD, BEHIND, AHEAD):
                if (fate := asker.fate(kind, cls, where)) is not None:
                    known[kind, where] = fate
    return Fates(asker.clock, not falls, moving, known)


class _Asker:
    """Questions about one compiled specification."""

    def __init__(self, machine: Machine, clock: str) -> None:
        from raftworthy.prove.inductive import solver

        self.machine = machine
        self.clock = clock
        self.logic = machine.logic
        self.s, self.typed = machine.state("s")
        self.terms = machine.terms(self.s)
        self._solver = solver
        self._handlers = {t.action.message: name for name, t in machine.transitions.items()}

    def always(self, *claim: Any, given: list[Any]) -> bool:
        """Whether a claim holds in every state in which all of the given does."""
        asked = self._solver()
        for c in (*self.typed, *given, self.logic.no(self.logic.both(*claim))):
            asked.add(self.logic.truth(c))
        return str(asked.check()) == "unsat"

    def terms_move(self) -> tuple[frozenset[str], frozenset[str]]:
        """The actions that change a term, and those that may let one fall."""
        moving, falling = set(), set()
        for name, t in self.machine.transitions.items():
            if self.clock not in t.updates:
                continue
            p, typed = self.machine.parameters(t.action.params, "p")
            taken = self.machine.take(name, self.s, p, self.terms)
            given = [*typed, taken.possible, taken.fits]
            pairs = list(zip(self.s.servers, taken.after.servers, strict=True))
            if not self.always(
                *(self.logic.same(b[self.clock], a[self.clock]) for b, a in pairs), given=given
            ):
                moving.add(name)
            kept = (self.logic.at_most(b[self.clock], a[self.clock]) for b, a in pairs)
            if not self.always(*kept, given=given):
                falling.add(name)
        return frozenset(moving), frozenset(falling)

    def kinds(self) -> Iterator[tuple[Kind, type[Record]]]:
        """Every kind of message."""
        for cls in self.machine.spec.messages:
            flags = [f for f, t in cls.types().items() if t.kind == "bool"]
            for values in itertools.product((False, True), repeat=len(flags)):
                yield (snake_case(cls.__name__), values), cls

    def fate(self, kind: Kind, cls: type[Record], where: str) -> str | None:
        """What is proved of messages of a kind that stand there."""
        one, given_one, p = self._receive(kind, cls, where, "m")
        if self.always(*self._nothing(one), given=given_one):
            return IDLE
        if where == NOT_AHEAD:
            return None
        other, given_other, q = self._receive(kind, cls, where, "n")
        ends = [self.logic.same(p[cls, f], q[cls, f]) for f, t in cls.types().items() if t.kind == "server"]
        alike = self._same(one, other)
        return ALIKE if self.always(*alike, given=[*given_one, *given_other, *ends]) else None

    def _receive(self, kind: Kind, cls: type[Record], where: str, name: str) -> tuple[Taken, list[Any], Any]:
        """What receiving such a message does, and what is given of it."""
        action = self._handlers[cls]  # type: ignore[index]
        t = self.machine.transitions[action]
        p, typed = self.machine.parameters(t.action.params, name)
        flags = (f for f, ft in cls.types().items() if ft.kind == "bool")
        said = [self.logic.same(p[cls, f], x) for f, x in zip(flags, kind[1], strict=True)]
        clocks = [v[self.clock] for v in self.s.servers]
        now = self.logic.pick(clocks, p[cls, "target"], clocks[-1], first=1)
        term = p[cls, "term"]
        stands = {
            BEHIND: self.logic.less(term, now),
            NOT_AHEAD: self.logic.at_most(term, now),
            AHEAD: self.logic.less(now, term),
        }[where]
        taken = self.machine.take(action, self.s, p, self.terms)
        return taken, [*typed, *said, stands, taken.fits], p

    def _nothing(self, taken: Taken) -> list[Any]:
        return [*self._equal(self.s, taken.after), *(self.logic.no(m.condition) for m in taken.sends)]

    def _same(self, one: Taken, other: Taken) -> list[Any]:
        """Two steps are the same: possible, to the same state, with the same messages sent."""
        claims = [*self._equal(one.after, other.after), self.logic.same(one.possible, other.possible)]
        for a, b in zip(one.sends, other.sends, strict=True):
            alike = self.logic.both(*map(self.logic.same, a.fields, b.fields))
            claims.append(self.logic.same(a.condition, b.condition))
            claims.append(self.logic.either(self.logic.no(a.condition), alike))
        return claims

    def _equal(self, a: Variables, b: Variables) -> Iterator[Any]:
        for v, w in zip(a.servers, b.servers, strict=True):
            yield from (self.logic.same(v[f], w[f]) for f in v)
