"""The Python back end: each action becomes a function, generated from its expressions.

Two variants of the same text. `pure` functions return the new state and are what the reference
explorer runs. The others change a server's variables in place, so that logs of any length
are never copied; they are what replay runs.

    n  a node     a  its arguments     q  a sequence     me  the acting server's variables
"""

from __future__ import annotations

import builtins
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import msgspec

from raftspec.graph import LEAVES, OPERATIONS, Node, free_variables, postorder
from raftspec.spec import Property, Spec
from raftspec.tracing import Tracer, Transition
from raftspec.types import Record, Type, zero
from raftspec.values import Map, Seq, ServerSet
from raftworthy.traced import Traced, kept_trace

# An operation's text, from the texts of its arguments. None: see the method of that name.
RULES: dict[str, str | None] = {
    "not": "(not {})",
    "and": "({} and {})",
    "or": "({} or {})",
    "eq": "({} == {})",
    "lt": "({} < {})",
    "le": "({} <= {})",
    "add": "({} + {})",
    "sub": "({} - {})",
    "ite": "({1} if {0} else {2})",
    "count": None,
    "rule": "{}",
    "set_add": "({} | {{{}}})",
    "set_has": "({1} in {0})",
    "set_size": "len({})",
    "map_get": None,
    "map_set": "{{**{}, {}: {}}}",
    "len": None,
    "at": None,
    "prefix": "{}[:{}]",
    "slice": "{}[{}:{}]",
    "append": "(*{}, {})",
    "concat": "(*{}, *{})",
    "agrees": "agrees({}, {}, {})",
    "record": None,
    "field": None,
    "forall": None,
    "exists": None,
    "latest": None,
}

# How a variable's list or dict becomes the operation's value in place; {0} is the variable.
IN_PLACE: dict[str, str] = {
    "map_set": "{0}[{1}] = {2}",
    "append": "{0}.append({1})",
    "prefix": "del {0}[{1}:]",
    "concat": "{0} += {1}",
}
assert RULES.keys() == OPERATIONS.keys()

# A sequence that is no variable's own list: Python makes a tuple for these.
MADE = frozenset({"slice", "append", "concat", "message"})
NATURAL = frozenset({"len", "count", "set_size", "latest"})
# What the generated text calls, so that no action's parameter has its name.
RESERVED = frozenset({"S", "T", "m", "send", "sent", "agrees", "World", "EMPTY", *dir(builtins)})


def agrees(a: Any, b: Any, n: int) -> bool:
    """Both have n entries, and the same ones. A list and a tuple of the same entries are equal here."""
    if n > len(a) or n > len(b):
        return False
    return n <= 0 or a is b or list(a[:n]) == list(b[:n])


def _frozen(value: Any, nothing: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return tuple(sorted(item for item in value.items() if item[1] != nothing))
    return value


class Variables:
    """A server's variables, or history's, as attributes. Logs are lists, maps are dicts.

    `nothing` has, for each map, the value of a key that isn't in its dict.
    """

    __slots__: tuple[str, ...] = ()
    nothing: ClassVar[Mapping[str, Any]] = {}
    extensions: ClassVar[frozenset[str]] = frozenset()

    def copy(self) -> Variables:
        new = type(self)()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(new, name, value.copy() if isinstance(value, list | dict) else value)
        return new

    def key(self) -> tuple[Any, ...]:
        """The values, hashable, in order. Equal keys are equal values, as `same` says sooner."""
        return tuple(_frozen(getattr(self, name), self.nothing.get(name)) for name in self.__slots__)

    def same(self, other: Variables, names: Iterable[str] | None = None) -> bool:
        """Whether all values are equal, or those of these names; what a step didn't change is one object."""
        return self is other or all(
            mine == theirs or (name in self.nothing and self._same_map(name, mine, theirs))
            for name in names or self.__slots__
            for mine, theirs in [(getattr(self, name), getattr(other, name))]
        )

    def _same_map(self, name: str, mine: Any, theirs: Any) -> bool:
        nothing = self.nothing[name]
        return bool(_frozen(mine, nothing) == _frozen(theirs, nothing))


class World:
    """A state: every server's variables, history, and the messages sent."""

    __slots__ = ("messages", "past", "variables")

    def __init__(self, variables: dict[str, Any], past: Any, messages: frozenset[Any] = frozenset()) -> None:
        self.variables = variables
        self.past = past
        self.messages = messages

    def key(self) -> tuple[Any, ...]:
        return (*(v.key() for v in self.variables.values()), self.past.key(), self.messages)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, World) or self.messages != other.messages:
            return False
        mine, theirs = ((w.past, *w.variables.values()) for w in (self, other))
        return len(mine) == len(theirs) and all(a.same(b) for a, b in zip(mine, theirs, strict=True))

    def __hash__(self) -> int:
        return hash(self.key())


class Writer:
    """Writes the statements of one function. An expression used twice becomes a local variable."""

    def __init__(self, roots: Iterable[Node], primed: bool = False) -> None:
        self.lines: list[str] = []
        self.indent = "    "
        self.names: dict[Node, str] = {}
        self.uses: dict[Node, int] = {}
        self.owners: dict[tuple[Node, int], str] = {}
        self.primed = primed
        self.lengths: dict[Node, Node] = {}  # of sequences
        self.within: set[tuple[Node, Node]] = set()  # sequences with an index that is never outside
        roots = list(roots)
        for n in postorder(*roots):
            if n.op == "len":
                self.lengths[n.args[0]] = n
            for a in n.args:
                self.uses[a] = self.uses.get(a, 0) + 1
        for n in roots:
            self.uses[n] = self.uses.get(n, 0) + 1

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def expr(self, n: Node) -> str:
        """The text of an expression, after any statements that it needs."""
        if n in self.names:
            return self.names[n]
        text = self._leaf(n) if n.op in LEAVES else self._rule(n)
        simple = n.op == "const" or text.isidentifier()
        shared = self.uses.get(n, 0) > 1 or n.op == "rule"
        return self.bind(n, text) if shared and not simple and not free_variables(n) else text

    def atom(self, n: Node) -> str:
        """The text of an expression that may be written several times."""
        text = self.expr(n)
        return text if text.isidentifier() or n.op == "const" or free_variables(n) else self.bind(n, text)

    def bind(self, n: Node, text: str) -> str:
        name = f"{n.attr[0] if n.op in ('get', 'past') else n.attr[1] if n.op == 'message' else n.op}_{n.id}"
        self.line(f"{name} = {text}")
        self.names[n] = name
        return name

    def _leaf(self, n: Node) -> str:
        match n.op:
            case "const":
                return literal(n.attr)
            case "message":
                return f"m.{n.attr[1]}"
            case "get":
                name, prime = n.attr
                return f"{self.variables(n.args[0], prime)}.{name}"
            case "past":
                name, prime = n.attr
                return f"{'TS'[1 - prime] if self.primed else 'S'}.past.{name}"
            case _:
                return str(n.attr)

    def variables(self, server: Node, prime: int = 0) -> str:
        """The text of a server's variables."""
        state = "T" if prime else "S"
        if server.op == "bound":
            return f"{state}.variables[{server.attr}]"
        owner = self.owners.get((server, prime))
        if owner is None:
            key = self.expr(server)
            owner = self.owners[server, prime] = f"{state}_{key if key.isidentifier() else server.id}"
            self.line(f"{owner} = {state}.variables[{key}]")
        return owner

    def _rule(self, n: Node) -> str:
        special = getattr(self, f"op_{n.op}", None)
        if special is not None:
            return str(special(n))
        text = RULES[n.op]
        assert text is not None
        return text.format(*map(self.expr, n.args))

    def natural(self, n: Node) -> str:
        """The text of a number, 0 if it is negative."""
        if n.op in NATURAL or (n.op == "const" and n.attr >= 0):
            return self.expr(n)
        text = self.atom(n)
        return f"({text} if {text} > 0 else 0)"

    def immutable(self, n: Node) -> str:
        """The text of a value that no later step changes."""
        text = self.expr(n)
        return f"tuple({text})" if n.type.kind == "seq" and n.op not in MADE else text

    def op_count(self, n: Node) -> str:
        return f"({' + '.join(self.expr(a) for a in n.args) or '0'})"

    def op_map_get(self, n: Node) -> str:
        return f"{self.expr(n.args[0])}.get({self.expr(n.args[1])}, {literal(zero(n.type))})"

    def op_prefix(self, n: Node) -> str:
        return str(RULES["prefix"]).format(self.expr(n.args[0]), self.natural(n.args[1]))

    def op_slice(self, n: Node) -> str:
        whole, after, upto = n.args
        text = str(RULES["slice"]).format(self.expr(whole), self.natural(after), self.natural(upto))
        return text if whole.op == "message" else f"tuple({text})"

    def op_len(self, n: Node) -> str:
        q = n.args[0]
        if q.op == "prefix":  # without making it
            return f"min({self.natural(q.args[1])}, len({self.expr(q.args[0])}))"
        if q.op == "slice":
            whole, after, upto = q.args
            end = self.expr(upto)
            if upto.op != "len" or upto.args[0] is not whole:
                end = f"min({end}, len({self.expr(whole)}))"
            size = f"{end} - {self.natural(after)}"
            return f"({size} if {size} > 0 else 0)"
        return f"len({self.expr(q)})"

    def op_at(self, n: Node, name: str = "") -> str:
        q, k = n.args
        seq, suffix = self.atom(q), f".{name}" if name else ""
        nothing = zero(n.type)
        missing = literal(getattr(nothing, name) if name else nothing)
        if k.op == "len" and k.args[0] is q:
            return f"({seq}[-1]{suffix} if {seq} else {missing})"
        index, length = self.atom(k), f"len({seq})"
        if q in self.lengths:
            length = self.names.get(self.lengths[q], length)
        if (q, k) in self.within:
            return f"{seq}[{index} - 1]{suffix}"
        return f"({seq}[{index} - 1]{suffix} if 0 < {index} <= {length} else {missing})"

    def op_field(self, n: Node) -> str:
        (record,) = n.args
        return self.op_at(record, n.attr) if record.op == "at" else f"{self.expr(record)}.{n.attr}"

    def op_record(self, n: Node) -> str:
        return f"{n.attr.cls.__name__}({', '.join(map(self.immutable, n.args))})"

    def op_forall(self, n: Node) -> str:
        return self._loop(n, found=False)

    def op_exists(self, n: Node) -> str:
        return self._loop(n, found=True)

    def op_latest(self, n: Node) -> str:
        return self._loop(n, found=True)

    def _loop(self, n: Node, found: bool) -> str:
        """A loop that stops at the first number for which the claim is `found`; of `latest`, from the end."""
        top, claim = n.args
        result = f"{n.op}_{n.id}"
        down = n.op == "latest"
        self.line(f"{result} = {0 if down else not found}")
        top_text = self.atom(top)
        numbers = f"range({top_text}, 0, -1)" if down else f"range(1, {top_text} + 1)"
        known, owners = dict(self.names), dict(self.owners)
        # Most loops are over nothing; asking first is quicker than making a range.
        self.line(f"for {n.attr} in {numbers} if {top_text} > 0 else ():")
        outer, self.indent = self.indent, self.indent + "    "
        indexed = ((n.args[0], n.args[1]) for n in postorder(claim) if n.op == "at")
        before = self.within
        self.within = before | {(q, k) for q, k in indexed if _is_within(q, k, n.attr, top)}
        text = self.expr(claim)
        self.line(f"if {text if found else f'not {text}'}:")
        self.line(f"    {result} = {n.attr if down else found}")
        self.line("    break")
        self.indent = outer
        self.within = before
        self.names, self.owners = known | ({n: result} if not free_variables(n) else {}), owners
        return result

    def in_place(self, n: Node, place: Node | None, target: str) -> list[str]:
        """Statements that turn the list or dict `target`, which holds the variable `place`, into n.

        They run after all other statements, so they use no variable's value but the target's.
        """
        if n is place:
            return []
        if n.op == "ite":
            condition = self.atom(n.args[0])
            yes, no = (self.in_place(a, place, target) for a in n.args[1:])
            if not yes:
                return [f"if not {condition}:", *_indented(no)]
            return [f"if {condition}:", *_indented(yes), *(["else:", *_indented(no)] if no else [])]
        if n.op in IN_PLACE:
            if n.op == "prefix":
                self.atom(n.args[1])  # a length, too, is what it was before other variables change
            arguments = map(self.natural if n.op == "prefix" else self.settled, n.args[1:])
            return [*self.in_place(n.args[0], place, target), IN_PLACE[n.op].format(target, *arguments)]
        if n.op == "const" and not _size(n.attr):
            return [f"{target}.clear()"]
        name = f"new_{len(self.lines)}"
        self.line(f"{name} = {'list' if n.type.kind == 'seq' else 'dict'}({self.expr(n)})")
        return [f"{target} = {name}"]

    def settled(self, n: Node) -> str:
        """The name of a value that stays what it is while variables change in place."""
        if n.type.kind == "seq" and n.op not in MADE:
            name = f"settled_{len(self.lines)}"
            self.line(f"{name} = {self.immutable(n)}")
            return name
        return self.atom(n)


def _size(value: Any) -> int:
    return len(value.items) if isinstance(value, Map) else len(value)


def _is_within(q: Node, k: Node, variable: str, top: Node) -> bool:
    """Whether an index k, a variable from 1 to `top` or that much after others, is always one of q's.

    It is if the variable goes no further than q's length, or than what follows in q after so many.
    """
    if top.op == "ite" and top.args[0].op == "lt" and top.args[0].args == top.args[1:]:  # the smaller of two
        return any(_is_within(q, k, variable, n) for n in top.args[1:])
    if (k.op, k.attr) == ("bound", variable):
        return top.op == "len" and top.args[0] is q
    if k.op != "add" or (k.args[1].op, k.args[1].attr) != ("bound", variable):
        return False
    if k.args[0].op not in {"message", *NATURAL}:
        return False
    whole, skipped = top.args if top.op == "sub" else (top, None)
    return skipped is k.args[0] and whole.op == "len" and whole.args[0] is q


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def literal(value: Any) -> str:
    """A constant's text."""
    if isinstance(value, enum.Enum):
        return repr(value.value)
    if isinstance(value, Map):
        return f"{{{', '.join(f'{literal(k)}: {literal(x)}' for k, x in value.items.items())}}}"
    if isinstance(value, ServerSet):
        return f"frozenset({sorted(value)!r})" if value else "EMPTY"
    if isinstance(value, Seq):
        return f"({''.join(f'{literal(x)}, ' for x in value)})"
    if isinstance(value, Record):
        return f"{type(value).__name__}({', '.join(map(literal, value.values()))})"
    return repr(value)


def _one_test(lines: list[str]) -> list[str]:
    """The same statements, with one `if` where two in a row ask the same."""
    out: list[str] = []
    header = ""
    for line in lines:
        if not line.startswith(" "):
            if line == header:
                continue
            header = line if line.startswith("if ") else ""
        out.append(line)
    return out


@dataclass(frozen=True)
class Body:
    """An action's text in parts. `lines` bind the names that the other parts use.

    `stores` change variables in place, so they come after everything that reads the old ones.
    """

    lines: list[str]  # the guards and the named values, indented
    server: str  # who acts
    me: str  # and its variables
    sends: list[tuple[str, str, list[str]]]  # condition, kind of message, fields
    stores: list[str]


def action_body(t: Transition, w: Writer, refuse: str, watch: Mapping[str, bool] | None = None) -> Body:
    """Write an action. `refuse` is the statement for a guard that fails, given its number.

    `watch` has what each rule says if it is taken away, to note those that make a difference.
    """
    for number, guard in enumerate(t.guards, 1):
        if guard.condition.op != "const" or not guard.condition.attr:
            w.line(f"if not {w.expr(guard.condition)}: {refuse.format(number)}  # {guard.text}")
    me = w.variables(t.server) if t.updates else ""
    stores: list[str] = []
    for group, owner, updates in (("get", me, t.updates), ("past", "S.past", t.history)):
        for name, n in updates.items():
            target = f"{owner}.{name}"
            if n.type.kind in ("seq", "map"):
                args = () if group == "past" else (t.server,)
                places = (p for p in postorder(n) if (p.op, p.attr, p.args) == (group, (name, 0), args))
                stores += w.in_place(n, next(places, None), target)
            else:
                stores.append(f"{target} = {w.atom(n)}")
    sends = [(w.expr(c), message.__name__, list(map(w.immutable, fields))) for c, message, fields in t.sends]
    if watch is not None:
        for text in notes(t, {n: n for n in watched_rules(t)}, watch, w):
            w.line(text)
    return Body(w.lines, w.expr(t.server), me, sends, _one_test(stores))


def watched_rules(t: Transition) -> list[Node]:
    """The rules with a condition that an action comes by."""
    return [n for n in postorder(*t.roots()) if n.op == "rule" and not free_variables(n)]


def notes(t: Transition, said: Mapping[Node, Node], without: Mapping[str, bool], w: Writer) -> list[str]:
    """Statements that note the rules that make a difference in an action that is taken.

    They are those that guard it, and those that say other than `without` them. `said` has what the
    rules say. One that says what it mostly says costs no more than to ask.
    """
    guards = {n for g in t.guards for n in postorder(g.condition)}
    notes: dict[str, list[str]] = {}
    for n, answer in said.items():
        asked = "" if n in guards else w.expr(answer) if not without[n.attr] else f"not {w.expr(answer)}"
        if asked not in ("False", "not True"):
            header = f"if {asked}:" if asked not in ("", "True", "not False") else ""
            notes.setdefault(header, []).append(f"exercised[{n.attr!r}] = True")
    return [
        line for header, lines in notes.items() for line in ((header, *_indented(lines)) if header else lines)
    ]


def action_source(t: Transition, pure: bool, watch: Mapping[str, bool] | None = None) -> str:
    """An action's function.

    Pure: `f(S, …)` returns (new state, messages sent), or None if a guard fails. In place: `f(S, …, send)`
    returns 0, or the number of the first guard that fails. `watch`: see `action_body`.
    """
    assert RESERVED.isdisjoint(t.action.params) or t.action.message, f"{t.name} has a reserved parameter"
    body = action_body(t, Writer(t.roots()), "return None" if pure else "return {}", watch)
    sends = []
    for condition, message, fields in body.sends:
        send = f"send({message}({', '.join(fields)}))"
        sends.append(send if condition == "True" else f"if {condition}: {send}")
    params = ", ".join(["m"] if t.action.message else t.action.params)
    if not pure:
        text = [*body.lines, *("    " + x for x in (*sends, *body.stores)), "    return 0"]
        return "\n".join([f"def {t.name}(S, {params}, send):", *text, ""])
    fresh = ["sent = []", "send = sent.append", *sends, "S = World(dict(S.variables), S.past, S.messages)"]
    if t.updates:
        fresh.append(f"{body.me} = S.variables[{body.server}] = {body.me}.copy()")
    if t.history:
        fresh.append("S.past = S.past.copy()")
    text = [*body.lines, *("    " + x for x in (*fresh, *body.stores)), "    return S, sent"]
    return "\n".join([f"def {t.name}(S, {params}):", *text, ""])


def property_source(p: Property, n: Node) -> str:
    """A property's function, of one state or two, and of its parameters."""
    w = Writer([n], primed=p.states == 2)
    result = w.expr(n)
    params = ", ".join([*"ST"[: p.states], *p.params])
    return "\n".join([f"def {p.name}({params}):", *w.lines, f"    return {result}", ""])


def _stored(value: Any) -> Any:
    """A variable's initial value as this back end holds it."""
    match value:
        case Seq():
            return list(value)
        case Map():
            return dict(value.items)
        case enum.Enum():
            return value.value
    return value


@dataclass(frozen=True)
class Generated:
    """A specification as Python functions, for a fixed tuple of servers."""

    spec: Spec
    servers: tuple[str, ...]
    tracer: Tracer
    transitions: Mapping[str, Transition]
    actions: Mapping[str, Callable[..., Any]]
    properties: Mapping[str, Callable[..., bool]]
    claims: Mapping[str, Node]  # the properties' expressions
    structs: Mapping[type[Record], type[msgspec.Struct]]
    source: str
    exercised: dict[str, bool]  # the rules that made a difference, if that is watched
    _types: Mapping[str, type[Variables]] = field(repr=False)
    _guards: dict[str, Callable[..., int]] = field(default_factory=dict, repr=False)

    def initial(self) -> World:
        """The state in which every server starts for the first time."""
        return World({i: self._new("server") for i in self.servers}, self._new("history"))

    def _new(self, group: str) -> Variables:
        record = (self.spec.server if group == "server" else self.spec.history)()
        new = self._types[group]()
        for name, value in zip(type(record).types(), record.values(), strict=True):
            setattr(new, name, _stored(value))
        return new

    def guards_of(self, action: str) -> Callable[..., int]:
        """An action's guards alone: a function that returns what the action's does, and changes nothing."""
        if action not in self._guards:
            guards = replace(self.transitions[action], updates={}, history={}, sends=())
            scope = scope_of(self.structs)
            exec(action_source(guards, pure=False), scope)
            self._guards[action] = scope[action]
        return self._guards[action]


def scope_of(structs: Mapping[type[Record], type[msgspec.Struct]]) -> dict[str, Any]:
    """What the generated text refers to by name."""
    named: dict[str, Any] = {"agrees": agrees, "World": World, "EMPTY": frozenset()}
    return named | {cls.__name__: struct for cls, struct in structs.items()}


def generate(
    spec: Spec,
    servers: tuple[str, ...],
    structs: Mapping[type[Record], type[msgspec.Struct]],
    switched_off: frozenset[str] = frozenset(),
    bounds: Mapping[str, Callable[..., bool]] | None = None,
    pure: bool = False,
    watch: bool = False,
    properties: bool = True,
    asked: str | None = None,
) -> Generated:
    """Compile a specification to Python functions.

    `switched_off` names rules to take away, `bounds` adds a guard to actions by name. `asked` says which
    specification it is and which bounds, if it can be kept on disk by that.
    """

    def trace() -> Traced:
        return _trace(spec, servers, switched_off, bounds or {}, pure, watch, properties)

    if asked is None:
        made = trace()
    else:
        made = kept_trace(spec, servers, switched_off, f"{asked} {pure} {watch} {properties}", trace)
    exercised: dict[str, bool] = {}
    scope = scope_of(structs) | {"exercised": exercised}
    exec(made.code, scope)
    types = {name: _variables_of(getattr(spec, name), spec) for name in ("server", "history")}
    return Generated(
        spec, servers, made.tracer, made.transitions,
        {name: scope[name] for name in made.transitions}, {name: scope[name] for name in made.claims},
        made.claims, structs, made.source, exercised, types,
    )  # fmt: skip


def _trace(
    spec: Spec,
    servers: tuple[str, ...],
    switched_off: frozenset[str],
    bounds: Mapping[str, Callable[..., bool]],
    pure: bool,
    watch: bool,
    properties: bool,
) -> Traced:
    """A specification as expressions and as text."""
    tracer = Tracer(spec, servers, switched_off)
    transitions = {name: tracer.transition(a, bounds.get(name)) for name, a in spec.actions.items()}
    written = transitions if watch else {k: t.but(tracer.graph.without_rules) for k, t in transitions.items()}
    texts = [action_source(t, pure, tracer.rules if watch else None) for t in written.values()]
    declared = spec.properties.values() if properties else ()
    claims = {p.name: tracer.property(p.claim, p.states, p.params) for p in declared}
    texts += [property_source(p, claims[p.name]) for p in declared]
    for n in claims.values():
        tracer.graph.without_rules(n)  # as whoever compiles or proves asks for it, and it is kept
    source = "\n\n".join(texts)
    code = compile(source, "<generated from the specification>", "exec")
    return Traced(tracer, transitions, claims, source, code)


def _variables_of(record: type[Record], spec: Spec) -> type[Variables]:
    nothing = {name: zero(t.of) for name, t in record.types().items() if t.kind == "map" and t.of}
    held = {"__slots__": tuple(record.types()), "nothing": nothing, "extensions": spec.extensions}
    return type(record.__name__, (Variables,), held)


def to_spec(value: Any, t: Type) -> Any:
    """A value of this back end as the specification's own functions handle it."""
    match t.kind:
        case "seq":
            assert t.of is not None
            return Seq((to_spec(x, t.of) for x in value), zero(t.of))
        case "map":
            assert t.of is not None
            return Map(((k, to_spec(x, t.of)) for k, x in value.items()), zero(t.of))
        case "set":
            return ServerSet(value)
        case "enum":
            assert t.cls is not None
            return t.cls(value)
        case "record":
            assert t.cls is not None
            return t.cls(*(to_spec(getattr(value, name), ft) for name, ft in t.cls.types().items()))
    return value
