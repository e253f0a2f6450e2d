"""The TLA+ back end: the text of an expression.

A server's variables are a record, a log is a sequence, a map a function on all of its keys, a command
its number. The graph speaks of each server by name. Where it says the same of several, the text says it once,
of a variable.

    n  a node     q  a sequence     me  the acting server's variables
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from raftspec.graph import LEAVES, OPERATIONS, Node, postorder
from raftspec.types import SERVER, Type, zero

T = TypeVar("T")

WIDTH = 88
VARIABLES = ("i", "j")  # of which several servers, or a map's keys, are said

# How tightly an expression holds together: as an operand of one that needs more, it gets parentheses.
OPEN, IMPLIES, JOINED, NOT, COMPARED, UNITED, ADDED, SUBTRACTED, JUXTAPOSED, CLOSED = range(10)


class Rule(NamedTuple):
    """An operation's text from the texts of its operands, how tightly it holds, and what they need."""

    text: str
    binds: int
    needs: int


# None: see the method of that name.
RULES: dict[str, Rule | None] = {
    "not": None,
    "and": None,
    "or": None,
    "eq": Rule("{} = {}", COMPARED, UNITED),
    "lt": Rule("{} < {}", COMPARED, UNITED),
    "le": Rule("{} <= {}", COMPARED, UNITED),
    "add": Rule("{} + {}", ADDED, SUBTRACTED),
    "sub": Rule("{} - {}", SUBTRACTED, JUXTAPOSED),
    "ite": None,
    "count": None,
    "rule": None,
    "set_add": None,
    "set_has": Rule("{1} \\in {0}", COMPARED, UNITED),
    "set_size": Rule("Cardinality({})", CLOSED, OPEN),
    "map_get": Rule("{}[{}]", CLOSED, CLOSED),
    "map_set": None,
    "len": Rule("Len({})", CLOSED, OPEN),
    "at": None,
    "prefix": Rule("Prefix({}, {})", CLOSED, OPEN),
    "slice": Rule("Slice({}, {}, {})", CLOSED, OPEN),
    "append": Rule("Append({}, {})", CLOSED, OPEN),
    "concat": Rule("{} \\o {}", JUXTAPOSED, CLOSED),
    "agrees": Rule("Agrees({}, {}, {})", CLOSED, OPEN),
    "record": None,
    "field": None,
    "forall": None,
    "exists": None,
    "latest": None,
}
assert RULES.keys() == OPERATIONS.keys()

NEGATED = {"eq": "{} # {}", "lt": "{1} <= {0}", "le": "{1} < {0}"}
# All that a key or a parameter can be, by its type.
KEYS = {
    "server": "Servers",
    "term": "Terms",
    "index": "Indexes",
    "count": "Counts",
    "value": "Values",
    "set of servers": "SUBSET Servers",
}
PRIMES = ("", "'")  # of the state before a step, and after it

# The operators that these texts use; TLA+'s own are not total.
OPERATORS = """\
Prefix(q, n) == SubSeq(q, 1, IF n < Len(q) THEN n ELSE Len(q))
Slice(q, after, upto) ==
    SubSeq(q, IF after < 0 THEN 1 ELSE after + 1, IF upto < Len(q) THEN upto ELSE Len(q))
Latest(S) == IF S = {} THEN 0 ELSE CHOOSE k \\in S : \\A j \\in S : j <= k
Agrees(q, r, n) == n <= Len(q) /\\ n <= Len(r) /\\ \\A k \\in 1..n : q[k] = r[k]
"""


@dataclass(frozen=True)
class Text:
    """An expression's text, which may have several lines, and how tightly it holds together."""

    text: str
    binds: int = CLOSED

    def within(self, needs: int) -> str:
        """The text as an operand."""
        return self.text if self.binds >= needs else hang("(", self.text) + ")"


def hang(before: str, text: str) -> str:
    """A text after another one's end: its further lines are indented as far as its first."""
    column = len(before) - before.rfind("\n") - 1
    return before + text.replace("\n", "\n" + " " * column)


def fill(template: str, parts: Sequence[str]) -> str:
    """A template with its operands put in, however many lines they have."""
    if not any("\n" in part for part in parts):
        return template.format(*parts)
    marks = [f"\0{k}\0" for k in range(len(parts))]
    out = ""
    for k, piece in enumerate(template.format(*marks).split("\0")):
        out = hang(out, parts[int(piece)] if k % 2 else piece)
    return out


def fits(text: str) -> bool:
    return len(text) <= WIDTH and "\n" not in text


def identifier(name: str) -> str:
    """A name as TLA+ allows it: vote.up_to_date as vote_up_to_date."""
    return name.replace(".", "_")


def record(fields: Mapping[str, str]) -> str:
    """A record's text, from its fields'."""
    parts = [hang(f"{name} |-> ", text) for name, text in fields.items()]
    flat = f"[{', '.join(parts)}]"
    return flat if fits(flat) else hang("[", ",\n".join(parts)) + "]"


def servers_in(*nodes: Node) -> tuple[str, ...]:
    """The servers that expressions name, in the order of their operations."""
    named = [m.attr for m in postorder(*nodes) if m.op == "const" and m.type.kind in ("server", "maybe")]
    return tuple(dict.fromkeys(i for i in named if i is not None))


@dataclass(frozen=True)
class Said(Generic[T]):
    """What is said of some servers: once, of variables, and of which servers it is."""

    text: T
    variables: tuple[str, ...]
    servers: tuple[tuple[str, ...], ...]


class Writer:
    """Writes expressions for fixed servers. `names` has those that are defined, and go by their names."""

    def __init__(self, servers: tuple[str, ...], taken: Iterable[str] = ()) -> None:
        self.servers = servers
        self.taken = set(taken)  # what no variable may be called
        self.names: dict[Node, str] = {}
        self.me: Node | None = None  # the acting server
        self._meant: dict[str, str] = {}  # the variables that servers are called by

    def fresh(self, size: int = 1) -> tuple[str, ...]:
        """So many variables that nothing else is called by."""
        used = {*self.taken, *self._meant.values()}
        names = (f"{name}{k or ''}" for k in itertools.count() for name in VARIABLES)
        return tuple(itertools.islice((name for name in names if name not in used), size))

    # --- values ---

    def literal(self, value: Any, t: Type) -> str:
        """A constant's text."""
        match t.kind:
            case "bool":
                return "TRUE" if value else "FALSE"
            case "num":
                return str(value).removeprefix("c")
            case "server" | "maybe":
                return "Nobody" if value is None else self._meant.get(value, f'"{value}"')
            case "enum":
                assert isinstance(value, enum.Enum)
                return f'"{value.value}"'
            case "set":
                return f"{{{', '.join(self.literal(i, SERVER) for i in sorted(value))}}}"
            case "seq":
                assert t.of is not None
                return f"<<{', '.join(self.literal(x, t.of) for x in value)}>>"
            case "map":
                return self._function(value, t)
        types = type(value).types()
        return record({name: self.literal(getattr(value, name), ft) for name, ft in types.items()})

    def _function(self, value: Any, t: Type) -> str:
        assert t.key is not None
        assert t.of is not None
        (k,) = self.fresh()
        cases = [
            f"{k} = {self.literal(key, t.key)} -> {self.literal(x, t.of)}"
            for key, x in sorted(value.items.items())
        ]
        default = self.literal(zero(t.of), t.of)
        chosen = f"CASE {' [] '.join([*cases, f'OTHER -> {default}'])}" if cases else default
        return f"[{k} \\in {KEYS[t.key.name or t.key.kind]} |-> {chosen}]"

    # --- expressions ---

    def expr(self, n: Node) -> Text:
        """An expression's text: its name, if it has one."""
        return Text(self.names[n]) if n in self.names else self.definition(n)

    def definition(self, n: Node) -> Text:
        """An expression's text, written out."""
        if n.op in LEAVES:
            return Text(self._leaf(n))
        rule = RULES[n.op]
        if rule is None:
            made: Text = getattr(self, f"op_{n.op}")(n)
            return made
        return Text(fill(rule.text, [self.expr(a).within(rule.needs) for a in n.args]), rule.binds)

    def _leaf(self, n: Node) -> str:
        match n.op:
            case "const":
                return self.literal(n.attr, n.type)
            case "message":
                return f"m.{n.attr[1]}"
            case "get":
                name, prime = n.attr
                if n.args[0] is self.me and not prime:
                    return f"me.{name}"
                return f"server{PRIMES[prime]}[{self.expr(n.args[0]).text}].{name}"
            case "past":
                name, prime = n.attr
                return f"past{PRIMES[prime]}.{name}"
        return str(n.attr)

    def op_rule(self, n: Node) -> Text:
        return self.expr(n.args[0])

    def op_not(self, n: Node) -> Text:
        (a,) = n.args
        if a in self.names or a.op not in NEGATED:
            return Text(hang("~", self.expr(a).within(NOT)), NOT)
        return Text(fill(NEGATED[a.op], [self.expr(b).within(UNITED) for b in a.args]), COMPARED)

    def op_and(self, n: Node) -> Text:
        return self._junction(n, "/\\", "\\A", "=>")

    def op_or(self, n: Node) -> Text:
        a, b = n.args
        if a.op == "not" and a not in self.names and a.args[0].op != "rule":
            left, right = self.expr(a.args[0]).within(JOINED), self.expr(b).within(JOINED)
            flat = f"{left} => {right}"
            if "\n" in left:  # or the arrow would belong to the last line only
                left = hang("(", left) + ")"
            return Text(flat if fits(flat) else hang(left + "\n  => ", right), IMPLIES)
        return self._junction(n, "\\/", "\\E", "/\\")

    def _junction(self, n: Node, junction: str, quantifier: str, such_that: str) -> Text:
        """All that is joined by one operation. What is said of several servers is said once."""
        parts = []
        for said in self._each_said(_flat(n, self.names)):
            text, variables, servers = said.text, said.variables, said.servers
            head, body = f"{quantifier} {', '.join(variables)} \\in Servers : ", text.text
            if self.is_each(servers):
                parts.append(Text(hang(head, body), OPEN))
            elif self._is_each_pair(servers):
                unlike = f"{' # '.join(variables)} {such_that} "
                parts.append(Text(hang(f"{head.rstrip()}\n    {unlike}", text.within(JOINED)), OPEN))
            elif variables:
                chosen = ", ".join(
                    f"<<{', '.join(self.literal(i, SERVER) for i in row)}>>" for row in servers
                )
                head = f"{quantifier} <<{', '.join(variables)}>> \\in {{{chosen}}} :"
                parts.append(Text(hang(f"{head}\n    ", body), OPEN))
            else:
                parts.append(text)
        if len(parts) == 1:
            return parts[0]
        flat = f" {junction} ".join(p.within(NOT) for p in parts)
        lines = [hang(f"{junction} ", p.text) for p in parts]
        return Text(flat if fits(flat) else "\n".join(lines), JOINED)

    def op_ite(self, n: Node) -> Text:
        c, x, y = (self.expr(a).text for a in n.args)
        flat = f"IF {c} THEN {x} ELSE {y}"
        lines = [hang("IF ", c), hang("THEN ", x), hang("ELSE ", y)]
        return Text(flat if fits(flat) else "\n".join(lines), OPEN)

    def op_count(self, n: Node) -> Text:
        ones = []
        said = self._each_said(n.args)
        if len(said) == 1 and self.is_each(said[0].servers):
            counted = f"{said[0].variables[0]} \\in Servers : "
            return Text(hang(hang("Cardinality({", counted), said[0].text.text) + "})")
        ones = [hang("(IF ", self.expr(a).text) + " THEN 1 ELSE 0)" for a in n.args]
        return Text(" + ".join(ones), ADDED if len(ones) > 1 else CLOSED)

    def op_map_set(self, n: Node) -> Text:
        """Several keys' values in a row; if every server gets the same, it is said once."""
        changes: list[tuple[Node, Node]] = []
        inner = n
        while inner.op == "map_set" and (inner is n or inner not in self.names):
            inner, key, value = inner.args
            changes.append((key, value))
        changes.reverse()
        if [k.attr for k, _ in changes if k.op == "const"] == list(self.servers):
            variables = self.fresh()
            texts = set()
            for k, x in changes:
                with self._meaning((k.attr,), variables):
                    texts.add(self.expr(x).text)
            if len(texts) == 1:
                return Text(hang(f"[{variables[0]} \\in Servers |-> ", texts.pop()) + "]")
        text = self.expr(inner).text
        for key, value in changes:
            head = hang("[", text) + f" EXCEPT ![{self.expr(key).text}] = "
            new = self.expr(value).text
            text = (head + new if fits(head + new) else hang(f"{head.rstrip()}\n    ", new)) + "]"
        return Text(text)

    def op_set_add(self, n: Node) -> Text:
        votes, i = n.args
        if votes.op == "const" and not votes.attr:
            return Text(f"{{{self.expr(i).text}}}")
        return Text(f"{self.expr(votes).within(ADDED)} \\cup {{{self.expr(i).text}}}", UNITED)

    def op_at(self, n: Node) -> Text:
        return Text(fill(f"{n.type.name}At({{}}, {{}})", [self.expr(a).text for a in n.args]))

    def op_field(self, n: Node) -> Text:
        return Text(f"{self.expr(n.args[0]).within(CLOSED)}.{n.attr}")

    def op_record(self, n: Node) -> Text:
        names = n.attr.cls.types()
        return Text(record({name: self.expr(a).text for name, a in zip(names, n.args, strict=True)}))

    def op_forall(self, n: Node) -> Text:
        return self._quantified(n, "\\A")

    def op_exists(self, n: Node) -> Text:
        return self._quantified(n, "\\E")

    def op_latest(self, n: Node) -> Text:
        top, claim = n.args
        head = hang(f"Latest({{{n.attr} \\in 1..", self.expr(top).within(ADDED)) + " : "
        text = self.expr(claim).text + "})"
        return Text(head + text if fits(head + text) else hang(f"{head.rstrip()}\n    ", text), CLOSED)

    def _quantified(self, n: Node, quantifier: str) -> Text:
        top, claim = n.args
        head = hang(f"{quantifier} {n.attr} \\in 1..", self.expr(top).within(ADDED)) + " : "
        text = self.expr(claim).text
        return Text(head + text if fits(head + text) else hang(f"{head.rstrip()}\n    ", text), OPEN)

    # --- what is said of several servers ---

    def said(
        self, things: Iterable[tuple[Node, ...]], write: Callable[[tuple[Node, ...]], T]
    ) -> list[Said[T]]:
        """The texts of expressions, once for those that differ only in the servers that they name."""
        found: dict[tuple[T, tuple[str, ...]], list[tuple[tuple[Node, ...], tuple[str, ...]]]] = {}
        for nodes in things:
            servers = tuple(i for i in servers_in(*nodes) if i not in self._meant)
            if len(servers) > 2:  # it speaks of all of them, or of nothing that is worth a quantifier
                servers = ()
            variables = self.fresh(len(servers))
            with self._meaning(servers, variables):
                found.setdefault((write(nodes), variables), []).append((nodes, servers))
        out = []
        for (text, variables), said in found.items():
            rows = tuple(servers for _, servers in said)
            if variables and (len(rows) > 1 or self.is_each(rows)):
                out.append(Said(text, variables, rows))
            else:
                out += [Said(write(nodes), (), ((),)) for nodes, _ in said]
        return out

    def _each_said(self, nodes: Iterable[Node]) -> list[Said[Text]]:
        return self.said(((n,) for n in nodes), lambda one: self.expr(*one))

    @contextmanager
    def _meaning(self, servers: Iterable[str], variables: Iterable[str]) -> Iterator[None]:
        """Within it, servers are called by variables."""
        before = self._meant
        self._meant = before | dict(zip(servers, variables, strict=True))
        try:
            yield
        finally:
            self._meant = before

    def is_each(self, rows: Iterable[tuple[str, ...]]) -> bool:
        """Whether something is said of every server."""
        return sorted(rows) == [(i,) for i in sorted(self.servers)]

    def _is_each_pair(self, rows: Iterable[tuple[str, ...]]) -> bool:
        servers = sorted(self.servers)
        return sorted(rows) == [(i, j) for i in servers for j in servers if i != j]


def _flat(n: Node, names: Mapping[Node, str]) -> Iterator[Node]:
    """What an operation joins, however deep, in the order in which a specification says it."""

    def joined(a: Node) -> bool:
        return a.op == n.op and a not in names

    a, b = n.args
    # `every` and `some` put what comes last first.
    for part in (b, a) if joined(b) and not joined(a) else (a, b):
        if joined(part):
            yield from _flat(part, names)
        else:
            yield part
