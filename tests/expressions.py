"""Random typed expressions of the specification language, and an interpreter of its graphs.

A `Tree` is built twice by the same code: from concrete values, which computes it,
and from symbolic ones, which traces it. What a tree may look like follows from the
operations' own signatures, so a new operation is drawn as soon as it is in the table.

    t  a type     n  a node     depth  how far a tree may still grow
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import product
from random import Random
from typing import Any

from hypothesis import strategies as st

from raftspec.graph import FIXED, OPERATIONS, QUANTIFIERS, Node
from raftspec.spec import Rule, Spec, State, Step
from raftspec.types import (
    BOOL,
    COUNT,
    INDEX,
    MAYBE_SERVER,
    SERVER,
    SERVER_SET,
    TERM,
    VALUE,
    Count,
    Index,
    MaybeServer,
    Message,
    Record,
    Server,
    Term,
    Type,
    Value,
    type_of,
    zero,
)
from raftspec.values import Map, Seq, ServerSet, count, exists, forall, ite, latest, no

SERVERS = ("n1", "n2", "n3")


class Color(StrEnum):
    RED = "red"
    GREEN = "green"


class Item(Record):
    """What the sequences hold: a field of every kind, so that every kind of zero is met."""

    term: Term
    value: Value
    color: Color
    owner: MaybeServer
    flag: bool


class Variables(Record):
    flag: bool = False
    other_flag: bool = False
    term: Term = 0
    index: Index = 0
    other_index: Index = 0
    size: Count = 0
    value: Value = 0
    color: Color = Color.RED
    owner: MaybeServer = None
    votes: ServerSet = ServerSet()
    log: Seq[Item] = Seq()
    spare: Seq[Item] = Seq()
    table: Map[Server, Index] = Map(default=0)
    leaders: Map[Term, MaybeServer] = Map(default=None)
    colors: Map[Server, Color] = Map(default=Color.RED)


class Past(Record):
    committed: Seq[Item] = Seq()
    commits: Map[Term, Index] = Map(default=0)
    steps: Count = 0


class Note(Message):
    index: Index
    flag: bool
    items: Seq[Item]


RULES = {name: Rule(name, "safety", "", "") for name in ("a rule", "another rule")}
LOG, ITEM = type_of(Seq[Item]), type_of(Item)
TABLE, LEADERS, COLORS = (
    type_of(a) for a in (Map[Server, Index], Map[Term, MaybeServer], Map[Server, Color])
)
NUMBERS = (INDEX, TERM, COUNT, VALUE)
SCALARS = (BOOL, *NUMBERS, type_of(Color), SERVER, MAYBE_SERVER, SERVER_SET)
MAPS = (TABLE, LEADERS, COLORS)
TYPES = (*SCALARS, ITEM, LOG, *MAPS)
LITERALS: dict[Type, tuple[Any, ...]] = {
    BOOL: (True, False),
    **dict.fromkeys(NUMBERS, (0, 1, 2)),
    type_of(Color): tuple(Color),
    SERVER: SERVERS,
    MAYBE_SERVER: (None, "n1"),
    SERVER_SET: (ServerSet(), ServerSet({"n2"})),
    LOG: (Seq((), zero(ITEM)),),
    TABLE: (Map(default=0), Map([("n1", 2)], 0)),
    LEADERS: (Map(default=None),),
    COLORS: (Map(default=Color.RED),),
}


@dataclass(frozen=True)
class Tree:
    """An expression before it is computed or traced. `op` is an operation, or variable, bound, literal."""

    op: str
    args: tuple[Tree, ...] = ()
    attr: Any = None

    def __repr__(self) -> str:
        inside = [*map(repr, self.args), *([] if self.attr is None else [repr(self.attr)])]
        return f"{self.op}({', '.join(inside)})"


# How a specification writes each operation.
WRITTEN: dict[str, Callable[..., Any]] = {
    "not": no,
    "and": operator.and_,
    "or": operator.or_,
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "add": operator.add,
    "sub": operator.sub,
    "ite": ite,
    "count": lambda *conditions: count(conditions),
    "set_add": lambda s, i: s.add(i),
    "set_has": lambda s, i: s.has(i),
    "set_size": lambda s: s.size,
    "map_get": lambda m, k: m[k],
    "map_set": lambda m, k, x: m.set(k, x),
    "len": lambda q: q.length,
    "at": lambda q, n: q.at(n),
    "prefix": lambda q, n: q.prefix(n),
    "slice": lambda q, a, b: q.slice(a, b),
    "append": lambda q, x: q.append(x),
    "concat": lambda q, r: q.concat(r),
    "agrees": lambda q, r, n: q.agrees(r, n),
    "record": Item,
    "field": lambda r, attr: getattr(r, attr),
    "rule": lambda c, attr, s: s.rule(attr, c),
    "forall": forall,
    "exists": exists,
    "latest": latest,
}


def build(tree: Tree, s: State[Any, Any], variables: Mapping[str, Any], bound: tuple[Any, ...] = ()) -> Any:
    """Compute a tree, or trace it if the variables are symbolic."""
    match tree.op:
        case "variable":
            return variables[tree.attr]
        case "bound":
            return bound[tree.attr]
        case "literal":
            return tree.attr
        case "forall" | "exists" | "latest":
            n, claim = tree.args
            return WRITTEN[tree.op](
                build(n, s, variables, bound), lambda k: build(claim, s, variables, (*bound, k))
            )
    args = [build(a, s, variables, bound) for a in tree.args]
    match tree.op:
        case "rule":
            return WRITTEN["rule"](*args, tree.attr, s)
        case "field":
            return WRITTEN["field"](*args, tree.attr)
    return WRITTEN[tree.op](*args)


# --- drawing -----------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """One way to use an operation: its arguments' types and its result's."""

    op: str
    args: tuple[Type, ...]
    result: Type
    attr: Any = None


@cache
def forms(op: str) -> tuple[Form, ...]:
    """Every way to use an operation with the types of this module."""
    if op == "record":
        return (Form(op, tuple(Item.types().values()), ITEM),)
    if op == "field":
        return tuple(Form(op, (ITEM,), t, name) for name, t in Item.types().items())
    if op == "rule":
        return tuple(Form(op, (BOOL,), BOOL, name) for name in RULES)
    *names, _, result = OPERATIONS[op].signature.split()
    if names[-1].endswith("*"):
        return tuple(Form(op, (FIXED[names[0][:-1]],) * n, FIXED[result]) for n in (1, 2, 3))
    return tuple(
        Form(op, tuple(types[name] for name in names), types[result])
        for types in _bindings(frozenset(names) - FIXED.keys())
    )


def _bindings(names: frozenset[str]) -> Iterator[dict[str, Type]]:
    choices = {"T": TYPES, "scalar": SCALARS, "num": NUMBERS, "seq": (LOG,), "map": MAPS}
    free = sorted(names & choices.keys())
    for chosen in product(*(choices[name] for name in free)):
        types = dict(FIXED) | dict(zip(free, chosen, strict=True))
        if seq := types.get("seq"):
            assert seq.of
            types["item"] = seq.of
        if table := types.get("map"):
            assert table.key
            assert table.of
            types |= {"key": table.key, "value": table.of}
        yield types


@cache
def forms_for(t: Type) -> tuple[tuple[Form, ...], ...]:
    """The ways to come to a value of type t, by operation."""
    ways = (tuple(f for f in forms(op) if f.result == t) for op in OPERATIONS)
    return tuple(w for w in ways if w)


def names_of(t: Type) -> list[str]:
    """The variables and parameters that hold a value of type t."""
    held = [name for name, have in Variables.types().items() if t.accepts(have)]
    return held + (["i", "j"] if t.accepts(SERVER) else [])


@st.composite
def trees(
    draw: st.DrawFn, t: Type, depth: int = 2, bound: tuple[Type, ...] = (), literal: bool = False
) -> Tree:
    """A tree of type t. A literal stands only where the rest says what its type is."""
    leaves = [Tree("variable", (), name) for name in names_of(t)]
    leaves += [Tree("bound", (), k) for k, have in enumerate(bound) if have == t]
    if literal:
        leaves += [Tree("literal", (), value) for value in LITERALS.get(t, ())]
    if leaves and (depth <= 0 or draw(st.integers(0, 3)) == 0):
        return draw(st.sampled_from(leaves))
    ways = forms("record") if depth <= 0 else draw(st.sampled_from(forms_for(t)))
    return draw(uses(draw(st.sampled_from(ways)), depth, bound))


@st.composite
def uses(draw: st.DrawFn, form: Form, depth: int = 2, bound: tuple[Type, ...] = ()) -> Tree:
    """A tree with a given operation at its root."""
    args = []
    for k, t in enumerate(form.args):
        inside = (*bound, form.args[0]) if k == 1 and form.op in QUANTIFIERS else bound
        typed_by_others = k > 0 and form.op != "record" and not (form.op == "ite" and k == 1)
        args.append(draw(trees(t, depth - 1, inside, typed_by_others)))
    return Tree(form.op, tuple(args), form.attr)


def applications(op: str) -> st.SearchStrategy[tuple[Form, Tree]]:
    """An operation at the root, with anything below it."""
    return st.sampled_from(forms(op)).flatmap(lambda f: uses(f).map(lambda tree: (f, tree)))


def random_item(rng: Random) -> Item:
    return Item(
        rng.randint(0, 3),
        rng.randint(0, 3),
        rng.choice(list(Color)),
        rng.choice((None, *SERVERS)),
        rng.random() < 0.5,
    )


def random_log(rng: Random) -> Seq[Item]:
    return Seq(random_item(rng) for _ in range(rng.randint(0, 3)))


def random_value(t: Type, rng: Random) -> Any:
    """A value of type t. Numbers may be negative, as differences are."""
    match t.kind:
        case "num":
            return rng.randint(-1, 3)
        case "seq":
            return random_log(rng)
        case "map":
            assert t.key is not None
            assert t.of is not None
            keys = SERVERS if t.key == SERVER else range(4)
            chosen = rng.sample(list(keys), rng.randint(0, 2))
            return Map([(k, random_value(t.of, rng)) for k in chosen], LITERALS[t][0].default)
        case "set":
            return ServerSet(rng.sample(SERVERS, rng.randint(0, 3)))
    return rng.choice(LITERALS[t])


def random_state(rng: Random) -> State[Any, Any]:
    """A state in which the first server has anything, and its two logs often agree at the beginning."""
    me = Variables(*(random_value(t, rng) for t in Variables.types().values()))
    me = me.but(spare=Seq((*me.log[: rng.randint(0, 3)], *me.spare)))
    past = Past(random_log(rng), Map([(rng.randint(0, 3), rng.randint(0, 3))], 0), rng.randint(0, 3))
    return State({"n1": me, "n2": Variables(term=1, index=2), "n3": Variables()}, past)


def some_states(size: int = 10) -> st.SearchStrategy[list[State[Any, Any]]]:
    """Several states from one seed: making an expression costs more than computing it."""
    return st.integers(0, 2**32).map(lambda seed: [random_state(Random(seed + k)) for k in range(size)])


def names(s: State[Any, Any], i: Any, j: Any) -> dict[str, Any]:
    """What a tree's variables stand for: server i's variables, and two parameters."""
    me = s[i]
    return {name: getattr(me, name) for name in Variables.types()} | {"i": i, "j": j}


def receive(s: State[Any, Any], m: Note) -> Step:
    """A handler that does nothing: it makes Note a message of the specification."""
    return Step(m.target)


def spec_of(*actions: Callable[..., Step]) -> Spec:
    spec = Spec(server=Variables, history=Past, rules=RULES)
    for action in (*actions, receive):
        spec.action(action)
    return spec


# --- the interpreter ---------------------------------------------------------


def evaluate(n: Node, s: State[Any, Any], params: Mapping[str, Any]) -> Any:
    """What a graph's expression is on concrete values, by the operations' meanings alone."""

    def value(n: Node, bound: Mapping[str, Any]) -> Any:
        match n.op:
            case "const":
                return n.attr
            case "param":
                return params[n.attr]
            case "bound":
                return bound[n.attr]
            case "get":
                return getattr(s[value(n.args[0], bound)], n.attr[0])
            case "past":
                return getattr(s.past, n.attr[0])
            case "forall" | "exists" | "latest":
                top, claim = n.args
                return OPERATIONS[n.op].meaning(
                    value(top, bound), lambda k: value(claim, {**bound, n.attr: k})
                )
        args = [value(a, bound) for a in n.args]
        meaning = OPERATIONS[n.op].meaning
        return meaning(*args) if n.attr is None else meaning(*args, attr=n.attr)

    return value(n, {})
