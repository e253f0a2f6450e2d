"""A transition system: servers' variables, history, messages, actions, properties.

An action is a function of the state and its parameters. It returns a `Step`: guards,
one server's new variables, messages, what history records. What isn't mentioned
stays as it was. With a concrete `State` it is ordinary Python, to be stepped in a debugger.

    s  the state before a step     t  the state after it
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from raftspec.types import Message, Record, Type, type_of, zero
from raftspec.values import Map

S = TypeVar("S", bound=Record)
H = TypeVar("H", bound=Record)


class When(NamedTuple):
    """A guard: what must hold, in words and as a condition."""

    text: str
    condition: bool


class OnlyIf(NamedTuple):
    """A message that is sent only if a condition holds."""

    condition: bool
    message: Message


when = When
only_if = OnlyIf


class Step:
    """What `server` does: if all guards hold, its variables become `then`, and `send` is sent."""

    def __init__(
        self,
        server: str,
        *guards: When,
        then: Record | None = None,
        send: Message | OnlyIf | Iterable[Message | OnlyIf] = (),
        history: Record | None = None,
    ) -> None:
        self.server = server
        self.guards = guards
        self.then = then
        self.sends = (send,) if isinstance(send, Message | OnlyIf) else tuple(send)
        self.history = history


class Asked(NamedTuple):
    """A rule that a step came by, and what it said."""

    rule: str
    holds: bool


class State(Generic[S, H]):
    """A concrete state. `rules` forces rules to an answer; `asked` collects what they said."""

    extensions: frozenset[str] = frozenset()

    def __init__(
        self,
        variables: Mapping[str, S],
        past: H,
        messages: frozenset[Any] = frozenset(),
        rules: Mapping[str, bool] | None = None,
        extensions: frozenset[str] = frozenset(),
    ) -> None:
        self.servers = tuple(variables)
        self.variables = variables
        self._past = past
        self.messages = messages
        self.rules = rules or {}
        self.extensions = extensions
        self.asked: list[Asked] = []

    def has(self, extension: str) -> bool:
        """Whether the specification has an extension of Raft; never a symbolic value."""
        return extension in self.extensions

    @property
    def n(self) -> int:
        return len(self.servers)

    @property
    def past(self) -> H:
        """What happened, for the properties; no server can read it."""
        return self._past

    def __getitem__(self, i: str) -> S:
        return self.variables[i]

    def rule(self, name: str, condition: bool, without: bool = True) -> bool:
        """Whether a named rule of the protocol lets this happen; with the rule taken away, `without`."""
        self.asked.append(Asked(name, condition))
        return self.rules.get(name, condition)

    def follows(self, name: str) -> bool:
        """Whether a rule that has no condition is followed: yes, unless it is taken away."""
        return self.rule(name, True, without=False)


def _params(function: Callable[..., Any], states: int) -> dict[str, Type]:
    """The parameters of a function after its first ones, which are states, with their types."""
    hints = inspect.get_annotations(function, eval_str=True)
    return {name: type_of(hints[name]) for name in list(inspect.signature(function).parameters)[states:]}


@dataclass(frozen=True)
class Action:
    """A named transition: its function and its parameters' types. A handler's one parameter is a message."""

    name: str
    function: Callable[..., Step]
    params: Mapping[str, Type]

    @property
    def message(self) -> type[Message] | None:
        """What a handler receives."""
        return next((t.cls for t in self.params.values() if t.kind == "record"), None)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""


@dataclass(frozen=True)
class Property:
    """A claim that every reachable state (`states` is 1) or step (2) satisfies.

    If it has parameters, it holds for every value of them; a parameter that is a message is called `m`, and
    stands for every message that was sent.
    """

    name: str
    claim: Callable[..., bool]
    states: int
    params: Mapping[str, Type] = field(default_factory=dict)

    @classmethod
    def of(cls, claim: Callable[..., bool], states: int) -> Property:
        """The property that a function states; its annotations after those of the states are parameters'."""
        return cls(claim.__name__, claim, states, _params(claim, states))

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.claim) or ""


@dataclass(frozen=True)
class Rule:
    """A rule of the protocol. `kind` is safety, implied, liveness or policy; `section` is in the paper."""

    name: str
    kind: str
    section: str
    why: str


@dataclass
class Declarations:
    """What a module of the specification declares, in order."""

    server: type[Record]
    history: type[Record]
    rules: Mapping[str, Rule]
    actions: dict[str, Action] = field(default_factory=dict)
    properties: dict[str, Property] = field(default_factory=dict)
    goals: dict[str, Property] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in (self.server(), self.history()):
            for (name, t), value in zip(record.types().items(), record.values(), strict=True):
                if t.of is not None and isinstance(value, Map) and value.default != zero(t.of):
                    raise TypeError(f"{name}: write Map(default={zero(t.of)!r}), the zero of its type")

    def action(self, function: Callable[..., Step]) -> Callable[..., Step]:
        """Declare an action. Its parameters' annotations are their types."""
        self.actions[function.__name__] = Action(function.__name__, function, _params(function, 1))
        return function

    def invariant(self, claim: Callable[..., bool]) -> Callable[..., bool]:
        """Declare a property of every state."""
        self.properties[claim.__name__] = Property.of(claim, 1)
        return claim

    def step_property(self, claim: Callable[..., bool]) -> Callable[..., bool]:
        """Declare a property of every step."""
        self.properties[claim.__name__] = Property.of(claim, 2)
        return claim

    def eventually(self, claim: Callable[..., bool]) -> Callable[..., bool]:
        """Declare a goal: a property of states that every fair behaviour comes to."""
        self.goals[claim.__name__] = Property.of(claim, 1)
        return claim


@dataclass
class Extension(Declarations):
    """What one extension of Raft adds: variables, history, rules, actions and properties.

    `server` and `history` are subclasses of those of the specification that is extended. Where one of its own
    actions differs, it asks `s.has(name)`.
    """

    name: str = ""


@dataclass
class Spec(Declarations):
    """A specification, with the names of the extensions that it has."""

    extensions: frozenset[str] = frozenset()

    @property
    def policy(self) -> frozenset[str]:
        """The rules that a server may follow or not."""
        return frozenset(name for name, rule in self.rules.items() if rule.kind == "policy")

    def but(self, actions: Mapping[str, Callable[..., Step]]) -> Spec:
        """The same specification with some actions' functions replaced."""
        changed = {
            name: Action(name, actions.get(name, a.function), a.params) for name, a in self.actions.items()
        }
        return replace(self, actions=changed)

    @property
    def messages(self) -> tuple[type[Message], ...]:
        """The kinds of messages, in the order of their handlers."""
        return tuple(a.message for a in self.actions.values() if a.message)

    def initial(self, servers: tuple[str, ...], rules: Mapping[str, bool] | None = None) -> State[Any, Any]:
        """The state in which every server starts for the first time."""
        variables = {i: self.server() for i in servers}
        return State(variables, self.history(), rules=rules, extensions=self.extensions)


def run(action: Action, s: State[S, H], *params: Any) -> tuple[str | None, State[S, H]]:
    """Take a step with concrete values.

    Returns the text of the first guard that fails and the same state, or None and the new one.
    """
    step = action.function(s, *params)
    for guard in step.guards:
        if not guard.condition:
            return guard.text, s
    variables = {**s.variables, step.server: step.then} if step.then else s.variables
    sent = [
        m.message if isinstance(m, OnlyIf) else m
        for m in step.sends
        if not isinstance(m, OnlyIf) or m.condition
    ]
    past, messages = step.history or s.past, s.messages | frozenset(sent)
    new: State[S, H] = State(variables, past, messages, s.rules, s.extensions)  # type: ignore[arg-type]
    return None, new
