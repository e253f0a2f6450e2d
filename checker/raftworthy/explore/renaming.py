"""States that differ only in terms, or in messages that never matter again, are one.

In a livelock terms grow without end, so no state comes back; up to a renaming of terms one does. The
specification does nothing with terms but compare them, with 0 too, and count one on from a server's own. So
a renaming that keeps 0 and the order makes the same of every step, if it keeps distances at and above the
least term that is still counted from. `counted` makes sure of that, from the types in the graph: numbers of
different types don't mix there. What becomes of old messages has been proved: see `fates`.

    s  a state     v  a server's variables     m  a message     t  a type     terms  from old terms to new
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from raftspec.graph import Node, postorder
from raftspec.tracing import Transition
from raftspec.types import TERM, Type, zero
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.fates import AHEAD, ALIKE, BEHIND, IDLE, NOT_AHEAD, Fates, Kind, kind_of
from raftworthy.explore.model import Model
from raftworthy.generated import Variables, World

Terms = Mapping[int, int]
# What compares terms, hands them on, or takes them out of something: it comes to the same after renaming.
PLAIN = frozenset({
    "const", "get", "past", "param", "message", "eq", "lt", "le", "ite", "record", "field", "at", "len",
    "prefix", "slice", "append", "concat", "agrees",
})  # fmt: skip


# --- what the specification does with terms ----------------------------------


def counted(transitions: Mapping[str, Transition], kept: frozenset[str]) -> frozenset[str]:
    """The actions that count terms on. `kept` are the variables of history that matter.

    Raises:
        UnusableError: some expression does with terms what a renaming could change; the text says which.
    """
    counting = set()
    for name, t in transitions.items():
        roots = list(_roots(t, kept))
        for n in postorder(*roots):
            if n.op == "add" and _counts_on(n, t):
                counting.add(name)
            elif not _is_plain(n) or any(map(_is_a_term, (*n.args, *roots))):
                raise UnusableError(f"terms can't be renamed: {name} computes {n!r} with them")
    return frozenset(counting)


def _is_plain(n: Node) -> bool:
    """Whether an expression comes to the same after renaming, if what it is made of does."""
    types = [t for x in (n, *n.args) for t in (x.type, x.type.key)]
    return n.op in PLAIN or TERM not in types


def _is_a_term(n: Node) -> bool:
    """Whether an expression is a certain term, other than 0."""
    return n.op == "const" and n.type == TERM and n.attr != 0


def _counts_on(n: Node, t: Transition) -> bool:
    """Whether a sum is a term of the acting server's own, and more."""
    a, b = n.args
    own = a.op == "get" and a.args == (t.server,) and a.attr[1] == 0
    # A parameter (a timeout's server) can be restricted; a message's receiver can't.
    return own and b.op == "const" and b.attr > 0 and t.server.op == "param"


def _roots(t: Transition, kept: frozenset[str]) -> Iterator[Node]:
    """The expressions of an action that matter."""
    yield from (g.condition for g in t.guards)
    yield from t.updates.values()
    yield from (n for name, n in t.history.items() if name in kept)
    for send in t.sends:
        yield send.condition
        yield from send.fields


def kept_history(transitions: Mapping[str, Transition], goal: Node) -> frozenset[str]:
    """What of history a step or the goal reads. The rest only looks on."""
    kept = {n.attr[0] for n in postorder(goal) if n.op == "past"}
    while True:
        roots = (r for t in transitions.values() for r in _roots(t, frozenset(kept)))
        more = {n.attr[0] for n in postorder(*roots) if n.op == "past"} - kept
        if not more:
            return frozenset(kept)
        kept |= more


# --- values ------------------------------------------------------------------


def terms_in(value: Any, t: Type) -> Iterator[int]:
    """All terms that a value holds."""
    if t == TERM:
        yield value
    elif t.kind == "record":
        assert t.cls is not None
        for f, ft in t.cls.types().items():
            yield from terms_in(getattr(value, f), ft)
    elif t.kind == "seq":
        assert t.of is not None
        for x in value:
            yield from terms_in(x, t.of)
    elif t.kind == "map":
        assert t.of is not None
        assert t.key is not None
        for k, x in value.items():
            yield from terms_in(k, t.key)
            yield from terms_in(x, t.of)


def renumbered(value: Any, t: Type, terms: Terms) -> Any:
    """A value with its terms renamed."""
    if t == TERM:
        return terms[value]
    if t.kind == "record":
        assert t.cls is not None
        fields = {f: renumbered(getattr(value, f), ft, terms) for f, ft in t.cls.types().items()}
        return msgspec.structs.replace(value, **fields)
    if t.kind == "seq":
        assert t.of is not None
        return type(value)(renumbered(x, t.of, terms) for x in value)
    if t.kind == "map":
        assert t.of is not None
        assert t.key is not None
        return {renumbered(k, t.key, terms): renumbered(x, t.of, terms) for k, x in value.items()}
    return value


# --- states ------------------------------------------------------------------


class Renaming:
    """The normal form of states: equal for states that make no difference to anybody from now on.

    `counting` are the servers whose terms may still be counted on; `frozen` those whose term never changes
    any more, `stopped` those who do nothing any more.
    """

    def __init__(
        self,
        model: Model,
        fates: Fates,
        kept: frozenset[str],
        counting: Iterable[str],
        frozen: Iterable[str] = (),
        stopped: Iterable[str] = (),
    ) -> None:
        self.model = model
        self.fates = fates
        self.kept = kept
        self.counting = tuple(counting)
        self.frozen = frozenset(frozen)
        self.stopped = frozenset(stopped)
        self.clock = fates.clock
        self._types = model.spec.server.types()
        self._messages = {
            model.generated.structs[cls]: Type("record", cls=cls) for cls in model.spec.messages
        }
        self._past = model.generated.initial().past
        self._terms: dict[Any, frozenset[int]] = {}
        self._images: dict[Any, Any] = {}
        self._servers: dict[Any, Variables] = {}
        self._one: dict[Any, Variables] = {}  # one object for equal variables in normal states
        self._keys: dict[int, Any] = {}  # of these objects
        self._kinds: dict[Any, Kind] = {}

    def normal(self, s: World) -> World:
        """The state that stands for s and all like it."""
        fated = [(m, self._fate(s, m)) for m in s.messages]
        terms = self._renaming(s, fated)
        renamed = tuple(terms.items())
        variables = {i: self._renumbered(v, terms, renamed) for i, v in s.variables.items()}
        past = self._past.copy()
        for name in self.kept:
            setattr(past, name, getattr(s.past, name))
        images = (self._image(s, m, fate, terms, renamed) for m, fate in fated)
        return World(variables, past, frozenset(m for m in images if m is not None))

    def image(self, s: World, m: Any) -> Any | None:
        """The message that stands for m in the normal form of s; None if m never matters again."""
        terms = self.terms(s)
        return self._image(s, m, self._fate(s, m), terms, tuple(terms.items()))

    def terms(self, s: World) -> Terms:
        """The new name of each term in s that matters."""
        return self._renaming(s, [(m, self._fate(s, m)) for m in s.messages])

    def key(self, v: Variables) -> Any:
        """A server's variables as a key."""
        known = self._keys.get(id(v))
        return v.key() if known is None else known

    # --- parts ---

    def _renaming(self, s: World, fated: list[tuple[Any, str | None]]) -> Terms:
        used = {0}.union(*(self._held(v) for v in s.variables.values()))
        used = used.union(*(self._in_message(m) for m, fate in fated if fate is None))
        least = min((getattr(s.variables[i], self.clock) for i in self.counting), default=max(used))
        ordered = sorted(used)
        base = sum(x < least for x in ordered)
        return {x: k if x < least else base + x - least for k, x in enumerate(ordered)}

    def _fate(self, s: World, m: Any) -> str | None:
        """What of a message is proved for good: that it is idle, or like others of its kind; or nothing."""
        if m.target in self.stopped:
            return IDLE
        kind = self._kinds.get(m)
        if kind is None:
            kind = self._kinds[m] = kind_of(m)
        now = getattr(s.variables[m.target], self.clock)
        if m.term > now:
            return self.fates.get(kind, AHEAD) if m.target in self.frozen else None
        if self.fates.get(kind, NOT_AHEAD) == IDLE:
            return IDLE
        return self.fates.get(kind, BEHIND) if m.term < now else None

    def _image(self, s: World, m: Any, fate: str | None, terms: Terms, renamed: Any) -> Any | None:
        if fate == IDLE:
            return None
        if fate == ALIKE:
            now = getattr(s.variables[m.target], self.clock)
            return self._any_like(m, terms[now] + 1 if m.term > now else 0)
        key = (m, renamed)
        if key not in self._images:
            self._images[key] = renumbered(m, self._messages[type(m)], terms)
        return self._images[key]

    def _any_like(self, m: Any, term: int) -> Any:
        """The message that stands for all those that do what m does."""
        key = (m, term)
        if key not in self._images:
            cls = self._messages[type(m)].cls
            assert cls is not None
            same = {f: getattr(m, f) for f, t in cls.types().items() if t.kind in ("server", "bool")}
            other = {f: () if t.kind == "seq" else zero(t) for f, t in cls.types().items() if f not in same}
            self._images[key] = type(m)(**same | other | {"term": term})
        return self._images[key]

    def _held(self, v: Variables) -> frozenset[int]:
        key = self.key(v)
        if key not in self._terms:
            pairs = ((getattr(v, f), t) for f, t in self._types.items())
            self._terms[key] = frozenset(x for value, t in pairs for x in terms_in(value, t))
        return self._terms[key]

    def _in_message(self, m: Any) -> frozenset[int]:
        if m not in self._terms:
            self._terms[m] = frozenset(terms_in(m, self._messages[type(m)]))
        return self._terms[m]

    def _renumbered(self, v: Variables, terms: Terms, renamed: Any) -> Variables:
        key = (self.key(v), renamed)
        if key not in self._servers:
            new = v.copy()
            for f, t in self._types.items():
                setattr(new, f, renumbered(getattr(new, f), t, terms))
            one = self._servers[key] = self._one.setdefault(new.key(), new)
            self._keys[id(one)] = one.key()
        return self._servers[key]
