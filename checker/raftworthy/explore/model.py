"""A specification within bounds: which steps a state allows.

Parameters are tried one by one, and steps are taken by the generated Python functions.

    s, t  states     a move  an action with its parameters, and where it leads
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from raftspec.extensions import having
from raftspec.mutants import MUTANTS, Mutant
from raftspec.properties import BY_POLICY
from raftspec.spec import Spec
from raftspec.types import Record, Type
from raftworthy.explore import bounds as bounds_module
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.paths import Move, Path
from raftworthy.generated import Generated, World, generate
from raftworthy.kept import sources
from raftworthy.structs import structs_of

SOURCES = sources(__file__, bounds_module.__file__)  # by which what is traced within bounds is kept

_CLASSES: dict[type[Record], dict[type[Record], type[msgspec.Struct]]] = {}


def message_classes(spec: Spec) -> dict[type[Record], type[msgspec.Struct]]:
    """The same classes for all variants of a specification, so that each can go on from states of another."""
    known = _CLASSES.setdefault(spec.server, {})
    known.update(made := structs_of(spec, known=known))
    return made


class Model:
    """A specification compiled for exploration: which moves a state allows."""

    def __init__(
        self,
        spec: Spec,
        bounds: Bounds,
        without: Iterable[str] = (),
        mutant: Mutant | None = None,
        any_policy: bool = False,
        properties: bool = True,
    ) -> None:
        unknown = set(without) - set(spec.rules)
        if unknown:
            raise UnusableError(
                f"no rule is called {', '.join(sorted(unknown))}; `raftworthy rules` lists them"
            )
        self.bounds = bounds
        self.mutant = mutant
        self.without = frozenset(without) | (mutant.without if mutant else frozenset())
        if any_policy:
            self.without |= spec.policy
        # Only what is declared is known by its name.
        declared = spec is having(*spec.extensions) and (mutant is None or MUTANTS.get(mutant.name) is mutant)
        asked = f"{bounds!r} {mutant.name if mutant else None} {SOURCES}" if declared else None
        spec = mutant.apply(spec) if mutant else spec
        self.generated: Generated = generate(
            spec, bounds.names, message_classes(spec), self.without, bounds.guards(), pure=True,
            properties=properties, asked=asked,
        )  # fmt: skip
        self.spec = spec
        self.servers = bounds.names
        self._handlers = {
            self.generated.structs[a.message]: name for name, a in spec.actions.items() if a.message
        }
        self._others = {
            name: [self._values(t) for t in a.params.values()]
            for name, a in spec.actions.items()
            if not a.message
        }
        self._sent_first: dict[Any, int] = {}

    def _values(self, t: Type) -> Sequence[Any] | None:
        """What a parameter can be. None: a command, which is always a new one."""
        match t.kind, t.name:
            case "server", _:
                return self.servers
            case "num", "value":
                return None
            case "set", _:  # in the order of the native engine's numbers
                return [
                    frozenset(i for k, i in enumerate(self.servers) if bits >> k & 1)
                    for bits in range(1 << len(self.servers))
                ]
            case "num", "term":
                return range(self.bounds.max_term + 1)
            case "num", _:
                return range(self.bounds.max_log + 1)
        raise UnusableError(f"a parameter that is a {t} can't be enumerated")

    def properties(self, names: Iterable[str] | None = None) -> list[str]:
        """What to check: these properties, or all that the rules followed can make true.

        Raises:
            UnusableError: a property is not known.
        """
        declared = self.spec.properties
        if names is None:
            return [p for p in declared if not (self.without >= self.spec.policy and p in BY_POLICY)]
        wanted = list(names)
        unknown = [name for name in wanted if name not in declared]
        if unknown:
            raise UnusableError(
                f"no property is called {', '.join(unknown)}; there are {', '.join(declared)}"
            )
        return wanted

    def take(self, s: World, action: str, params: tuple[Any, ...]) -> Move | None:
        """The move that an action with these parameters makes; None if a guard or a bound forbids it."""
        result = self.generated.actions[action](s, *params)
        if result is None:
            return None
        t, sent = result
        if not s.messages.issuperset(sent):
            for m in sent:
                self._sent_first.setdefault(m, len(self._sent_first))
            t.messages = s.messages.union(sent)
            limit = self.bounds.max_messages
            if limit is not None and len(t.messages) > limit:
                return None
        return Move(action, params, tuple(sent), t)

    def choices(self, s: World) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Every action with every choice of parameters, whether possible or not, in a fixed order."""
        fresh = (f"c{s.past.commands + 1}",)
        for action, values in self._others.items():
            for params in itertools.product(*(fresh if v is None else v for v in values)):
                yield action, params
        first = self._sent_first
        for m in sorted(s.messages, key=lambda m: first.setdefault(m, len(first))):
            yield self._handlers[type(m)], (m,)

    def moves(self, s: World) -> Iterator[Move]:
        """Every move from a state, in an order that depends on nothing but the specification."""
        for action, params in self.choices(s):
            if (move := self.take(s, action, params)) is not None:
                yield move

    def claim(self, name: str) -> Callable[..., bool]:
        """A property as a function of one state or two, for all values of its parameters."""
        claim, types = self.generated.properties[name], self.spec.properties[name].params.values()
        if not types:
            return claim

        def holds(*states: World) -> bool:
            return all(claim(*states, *params) for params in self.instances(types, states[-1]))

        return holds

    def instances(self, types: Iterable[Type], s: World) -> Iterator[tuple[Any, ...]]:
        """All values that a property's parameters can have; a message is one that was sent."""
        return itertools.product(
            *(
                self._values(t) or ()
                if t.cls is None
                else [m for m in s.messages if type(m) is self.generated.structs[t.cls]]
                for t in types
            )
        )

    def repeat(self, start: World, steps: Iterable[tuple[str, tuple[Any, ...]]]) -> Path:
        """The path that these actions make from a state. Raises ValueError where one is not possible."""
        path = Path(start)
        for action, params in steps:
            move = self.take(path.world, action, params)
            if move is None:
                raise ValueError(f"{action}{params} is not possible after {len(path)} steps")
            path = path.then(move)
        return path
