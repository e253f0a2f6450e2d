"""Expressions of the specification and their values, in the words of the trace format.

n  an expression     i  the server that took the step
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from raftspec.graph import LEAVES, OPERATIONS, QUANTIFIERS, Node
from raftspec.spec import State
from raftworthy.structs import snake_case

DERIVED = ("length of slice", "length of prefix")  # parts of sums, told by their other parts


def describe_event(e: Any) -> str:
    """An event in a few words."""
    if e.message is UNSET:
        return f"{e.server} {e.event}"
    return f"{e.server} {e.event} from {e.message.source}, term {e.message.term}"


def a_message(m: Any) -> str:
    """A message's kind with its article."""
    kind = snake_case(type(m).__name__)
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def show(value: Any) -> str:
    """A value as the messages print it."""
    if value is None:
        return "nobody"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset | set):
        return "{" + ", ".join(sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return f"{len(value)} entries" if len(value) > 4 else "[" + ", ".join(map(show, value)) + "]"
    if hasattr(value, "__struct_fields__"):
        fields = {f: getattr(value, f) for f in value.__struct_fields__}
        if set(fields) == {"term", "value"}:
            return f"{value.term}:{value.value}"
        return f"{snake_case(type(value).__name__)}({', '.join(f'{f}={show(x)}' for f, x in fields.items())})"
    return str(value)


class Reader:
    """Evaluates and describes expressions of one step, in the state before it."""

    def __init__(self, s: State[Any, Any], i: str, params: Mapping[str, Any], message: Any) -> None:
        self.s = s
        self.i = i
        self.params = params
        self.message = message
        self.bound: dict[str, int] = {}

    def leaf(self, n: Node) -> Any:
        match n.op:
            case "const":
                return n.attr
            case "param":
                return self.params[n.attr]
            case "message":
                return getattr(self.message, n.attr[1])
            case "past":
                return getattr(self.s.past, n.attr[0])
            case _:
                return getattr(self.s[self.value(n.args[0])], n.attr[0])

    def value(self, n: Node) -> Any:
        """What an expression comes to."""
        if n.op == "bound":
            return self.bound[n.attr]
        if n.op in LEAVES:
            return self.leaf(n)
        if n.op == "ite":
            return self.value(self.chosen(n))
        if n.op in QUANTIFIERS:
            top, claim = n.args
            return OPERATIONS[n.op].meaning(self.value(top), lambda k: self._at(n, k, claim))
        args = [self.value(a) for a in n.args]
        meaning = OPERATIONS[n.op].meaning
        return meaning(*args) if n.attr is None else meaning(*args, attr=n.attr)

    def _at(self, n: Node, k: int, claim: Node) -> Any:
        self.bound[n.attr] = k
        return self.value(claim)

    def chosen(self, n: Node) -> Node:
        return n.args[1] if self.value(n.args[0]) else n.args[2]

    def name(self, n: Node) -> str:
        """An expression in the words of the trace format."""
        match n.op:
            case "const":
                return show(n.attr)
            case "param":
                return str(n.attr)
            case "message":
                return f"message.{n.attr[1]}"
            case "past":
                return f"history.{n.attr[0]}"
            case "get":
                server = self.value(n.args[0])
                return str(n.attr[0]) if server == self.i else f"{server}.{n.attr[0]}"
            case "ite":  # a variable that an earlier part of the step may have set
                chosen = self.chosen(n)
                other = n.args[2] if chosen is n.args[1] else n.args[1]
                return self.name(other if chosen.op == "const" else chosen)
            case "len":
                q = self.name(n.args[0])
                return "log_length" if q == "log" else f"length of {q}"
            case "set_size":
                return self.name(n.args[0])
            case "at":
                return f"{self.name(n.args[0])}[{self.value(n.args[1])}]"
            case "field":
                return f"{self.name(n.args[0])}.{n.attr}"
            case "map_get":
                return f"{self.name(n.args[0])}[{show(self.value(n.args[1]))}]"
            case "add" | "sub":
                a, b = n.args
                return f"{self.name(a)} {'+' if n.op == 'add' else '-'} {self.name(b)}"
        return n.op

    def terms(self, n: Node) -> list[Node]:
        """The parts of a condition whose values tell why it holds or not.

        Of a claim about several entries, the first for which it holds is shown.
        """
        found: dict[Node, None] = {}

        def collect(n: Node) -> None:
            if n.op == "const":
                return
            if n.op == "ite" and n.type.kind != "bool":
                chosen = self.chosen(n)
                found.update({n: None}) if chosen.op == "const" else collect(chosen)
            elif n.op in QUANTIFIERS:
                top, claim = n.args
                collect(top)
                numbers = range(1, self.value(top) + 1)
                if n.op == "latest":
                    numbers = numbers[::-1]
                witness = next((k for k in numbers if self._at(n, k, claim)), None)
                if witness is not None:
                    collect(claim)
            elif (
                n.type.kind == "bool" and n.op not in LEAVES and n.op not in ("field", "map_get")
            ) or n.op in ("count", "add", "sub"):
                for a in n.args:
                    collect(a)
            elif n.op not in ("param", "bound") or n.type.kind != "server":
                found[n] = None

        collect(n)
        return list(found)

    def values(self, n: Node) -> str:
        """The values that a condition is about: `log[4].term = 2, current_term = 3`."""
        texts: dict[str, str] = {}
        maps: dict[str, dict[str, str]] = {}
        for t in self.terms(n):
            shown = self.value(t.args[0]) if t.op == "set_size" else self.value(t)
            name = self.name(t)
            if t.op == "map_get" and self.value(t.args[1]) in self.s.servers and "map_get" not in texts:
                j = self.value(t.args[1])
                if j != self.i:  # what it stores itself, a leader need not be told
                    maps.setdefault(self.name(t.args[0]), {})[j] = show(shown)
            elif (
                t.op != "bound"
                and not name.startswith(DERIVED)
                and not (t.type.kind == "seq" and len(shown) > 4)
            ):
                texts[name] = f"{name} = {show(shown)}"
        for name, of in maps.items():
            if len(of) == 1:
                texts[name] = ", ".join(f"{name}[{j}] = {n}" for j, n in of.items())
            else:
                texts[name] = f"{name} = {{{', '.join(f'{j}: {n}' for j, n in of.items())}}}"
        return ", ".join(texts.values())
