"""Raft's invariant over states of which little is known: values come up as they are asked for.

The conjuncts of `raftspec.invariant` hold in every reachable state. Here they are computed, by the rules of
`prove.terms`, in states whose logs and votes are as large as the trace's, and of which a claim names few.
What a claim asks for that isn't named can be anything; a claim that asks for too much is left out.

    t  a term     n  an index     i  a server, by number from 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import z3

from raftspec.graph import Node
from raftspec.types import Type
from raftworthy.explore.bounds import Bounds
from raftworthy.prove.logic import Logic, Number, Table, Truth, Value
from raftworthy.prove.shapes import Ranges, Shapes
from raftworthy.prove.terms import Environment, Terms


class TooMuchError(Exception):
    """A claim asks for more than is kept."""


class Unknown:
    """Values that are made when they are first asked for."""

    def __init__(self, logic: Logic, servers: int, largest: int, terms: int) -> None:
        self.logic = logic
        self.servers = servers
        self.largest = largest
        self.terms = terms
        self.made: dict[str, Any] = {}
        self.rules: list[Truth] = []

    def number(self, name: str, most: int | None = None) -> Any:
        """A number from 0 on."""
        if name not in self.made:
            x = self.made[name] = z3.BitVec(name, self.logic.width)
            top = self.largest if most is None else most
            self.rules += [self.logic.at_most(0, x), self.logic.at_most(x, top)]
        return self.made[name]

    def truth(self, name: str) -> Any:
        if name not in self.made:
            self.made[name] = z3.Bool(name)
        return self.made[name]

    def value(self, name: str, t: Type) -> Value:
        """A value of a type; of a map or a log, what comes up."""
        match t.kind:
            case "bool":
                return self.truth(name)
            case "set":
                return tuple(self.truth(f"{name}.{k}") for k in range(self.servers))
            case "map":
                return Keyed(self, name, t)
            case "seq":
                return Listed(self, name)
            case "enum":
                return self.number(name, 2)
            case "server" | "maybe":
                return self.number(name, self.servers)
        return self.number(name)


class Keyed:
    """A map."""

    def __init__(self, of: Unknown, name: str, t: Type) -> None:
        self.of, self.name, self.type = of, name, t
        self.made: dict[int, Value] = {}

    def at(self, k: Number) -> Value:
        if isinstance(k, int):
            if k not in self.made:
                assert self.type.of is not None
                self.made[k] = self.of.value(f"{self.name}[{k}]", self.type.of)
            return self.made[k]
        assert self.type.key is not None
        of_servers = self.type.key.kind == "server"
        keys = range(1, self.of.servers + 1) if of_servers else range(self.of.terms + 1)
        values = [self.at(key) for key in keys]
        if any(isinstance(x, Listed) for x in values):
            return Chosen(self.of, k, dict(zip(keys, values, strict=True)))
        return self.of.logic.pick(values, k, values[-1], first=keys[0])


class Listed:
    """A log: its length, and the entries that come up."""

    def __init__(self, of: Unknown, name: str) -> None:
        self.of, self.name = of, name

    @property
    def length(self) -> Number:
        return self.of.number(f"{self.name}.length")

    @property
    def last(self) -> Value:
        """The last entry, or zeros."""
        return self.of.number(f"{self.name}.last.term"), self.of.number(f"{self.name}.last.value")

    def entry(self, n: int) -> Value:
        logic, name = self.of.logic, f"{self.name}[{n}]"
        if n <= 0:
            return 0, 0
        there = logic.at_most(n, self.length)
        return tuple(logic.where(there, self.of.number(f"{name}.{f}"), 0) for f in ("term", "value"))


class Chosen:
    """One of several logs, of which only the length is asked for."""

    def __init__(self, of: Unknown, k: Number, logs: Mapping[int, Any]) -> None:
        self.of, self.k, self.logs = of, k, logs

    @property
    def length(self) -> Number:
        first = min(self.logs)
        lengths = [log.length for log in self.logs.values()]
        return self.of.logic.pick(lengths, self.k, lengths[-1], first=first)


class State:
    """A server's variables at one line, or at the end, and what happened until the end."""

    def __init__(
        self,
        of: Unknown,
        names: tuple[str, ...],
        server: Mapping[str, Type],
        past: Mapping[str, Type],
        at: Mapping[int, str],
    ) -> None:
        self.of, self.names, self.types, self.past_types, self.at = of, names, server, past, at
        self.kept: dict[tuple[int, str], Value] = {}

    def get(self, i: int, name: str) -> Value:
        key = (i, name)
        if key not in self.kept:
            where = self.at.get(i, "end")
            self.kept[key] = self.of.value(f"{self.names[i - 1]}@{where}.{name}", self.types[name])
        return self.kept[key]

    def past(self, name: str) -> Value:
        key = (0, name)
        if key not in self.kept:
            self.kept[key] = self.of.value(f"past.{name}", self.past_types[name])
        return self.kept[key]


class SparseTerms(Terms):
    """Computes claims over such states."""

    def __init__(self, of: Unknown, shapes: Shapes, *states: State) -> None:
        super().__init__(shapes, ranges=Ranges(shapes))
        self.of = of
        self.views = states

    def _compute(self, n: Node) -> Value:
        if n.op == "get":
            i = self._value(n.args[0])
            if not isinstance(i, int):
                raise TooMuchError
            name, prime = n.attr
            return self.views[prime].get(i, name)
        if n.op == "past":
            name, prime = n.attr
            return self.views[prime].past(name)
        rule = SPARSE.get(n.op)
        if rule is not None:
            found = rule(self, n)
            if found is not None:
                return found
        return super()._compute(n)


def _map_get(w: SparseTerms, n: Node) -> Value:
    m = w._value(n.args[0])
    return None if isinstance(m, Table) else m.at(w._value(n.args[1]))


def _len(w: SparseTerms, n: Node) -> Value:
    q = w._value(n.args[0])
    return q.length if isinstance(q, Listed | Chosen) else None


def _at(w: SparseTerms, n: Node) -> Value:
    q = w._value(n.args[0])
    if isinstance(q, Chosen):
        raise TooMuchError
    if not isinstance(q, Listed):
        return None
    if n.args[1].op == "len" and n.args[1].args[0] is n.args[0]:
        return q.last
    k = w._value(n.args[1])
    if not isinstance(k, int):
        raise TooMuchError
    return q.entry(k)


def _agrees(w: SparseTerms, n: Node) -> Value:
    """Logs that agree are at least so long. It says less than it could, so it must not be denied."""
    q, r, k = map(w._value, n.args)
    return w.logic.both(w.logic.at_most(k, q.length), w.logic.at_most(k, r.length))


SPARSE: Mapping[str, Callable[[SparseTerms, Node], Value]] = {
    "map_get": _map_get, "len": _len, "at": _at, "agrees": _agrees,
}  # fmt: skip


def shapes_for(servers: tuple[str, ...], structs: Any, terms: int, largest: int) -> Shapes:
    """Numbers wide enough for a trace's terms and indexes."""
    bounds = Bounds(servers=len(servers), max_term=terms, max_log=1)
    made = Shapes(bounds, structs, (2 * largest + 2).bit_length() + 2)
    made.servers = servers
    return made


__all__ = ["Environment", "SparseTerms", "State", "TooMuchError", "Unknown", "shapes_for"]
