"""The reference explorer: every behaviour of a specification within bounds, breadth first.

It runs the generated Python functions on whole states, and knows a state by all of its values: no
hashes, no reductions but symmetry over servers, which can be switched off. Every faster
engine is checked against it, so where speed and plainness were in conflict, plainness won.

    s, t  states     a move  an action with its parameters, and where it leads
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import msgspec

from raftspec.extensions import EXTENSIONS, having
from raftspec.mutants import MUTANTS, Mutant
from raftspec.properties import BY_POLICY
from raftspec.spec import Spec
from raftspec.types import Record, Type
from raftspec.values import some
from raftworthy.generated import Generated, Variables, World, generate
from raftworthy.kept import sources
from raftworthy.structs import snake_case, structs_of

PROGRESS_EVERY = 0.2  # seconds
SOURCE = sources(__file__)  # by which what is traced within bounds is kept
# States are compared under all orders of their servers, and 7 have 5,040; parameters are tried one by one.
MOST = {"servers": 7, "max_log": 100, "entries": 100}


class UnusableError(ValueError):
    """What was asked for can't be explored; the text says why, and what can."""


# --- bounds ------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """How far to explore. A step that would go beyond is not taken."""

    servers: int = 3
    max_term: int = 2
    max_log: int = 1
    max_messages: int | None = None  # different messages ever sent
    crashes: int = 0  # restarts of servers
    commands: int | None = None  # clients' commands; None: as many as max_log
    entries: int = 1  # in one AppendEntries
    applies: bool = False  # whether servers apply what is committed
    extensions: tuple[str, ...] = ()  # what Raft has beside Figure 2
    changes: int = 1  # configurations that are proposed, where membership can change
    requests: int = 1  # with sessions: different requests of each client
    max_time: int = 1  # with sessions: what a leader's clock can say
    reads: int = 1  # with that extension: rounds in which leaders ask whether they still lead
    snapshots: int = 1  # that servers take of themselves, if they do
    clients: int = 1  # with sessions: whom the first entries register, if they do

    def __post_init__(self) -> None:
        object.__setattr__(self, "extensions", tuple(self.extensions))  # a checkpoint has a list
        if unknown := sorted(set(self.extensions) - EXTENSIONS.keys()):
            raise UnusableError(f"no extension is called {unknown[0]}; there are {', '.join(EXTENSIONS)}")
        for name in ("servers", "max_term", "requests", "max_time", "clients"):
            if getattr(self, name) < 1:
                raise UnusableError(f"{name} is {getattr(self, name)}; the least is 1")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise UnusableError(
                    f"{name} is {getattr(self, name)}; the most that can be explored is {most}"
                )
        counted = (
            "max_log",
            "crashes",
            "entries",
            "max_messages",
            "commands",
            "changes",
            "reads",
            "snapshots",
        )
        for name in counted:
            if (getattr(self, name) or 0) < 0:
                raise UnusableError(f"{name} is {getattr(self, name)}; the least is 0")

    @property
    def max_commands(self) -> int:
        return self.max_log if self.commands is None else self.commands

    @property
    def entries_applied(self) -> bool:
        return self.applies or not {"reads", "sessions", "snapshots"}.isdisjoint(self.extensions)

    @property
    def most_counted(self) -> int:
        """How far history counts anything."""
        more = [
            n for name, n in (("reads", self.reads), ("snapshots", self.snapshots)) if name in self.extensions
        ]
        return max(self.max_commands, self.crashes, *more)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"n{k}" for k in range(1, self.servers + 1))

    def as_data(self) -> dict[str, Any]:
        """The bounds for a machine."""
        return {**asdict(self), "extensions": list(self.extensions)}

    def options(self) -> list[str]:
        """The options of `raftworthy explore` that ask for these bounds."""
        words: list[str] = []
        for name, usual in asdict(Bounds()).items():
            value, option = getattr(self, name), "--" + name.replace("_", "-")
            if name == "extensions":
                words += [word for extension in value for word in ("--with", extension)]
            elif value != usual:
                words += [option] if value is True else [option, str(value)]
        return words

    def guards(self) -> dict[str, Callable[..., bool]]:
        """One more guard for each action that could go on without end."""

        def room(s: Any, i: Any) -> Any:
            return (s[i].log.length < self.max_log) & (s.past.commands < self.max_commands)

        return {
            "timeout": lambda s, i: s[i].current_term < self.max_term,
            "start_pre_vote": lambda s, i: s[i].current_term < self.max_term,
            "client_request": lambda s, i, v: room(s, i),
            "register_client": lambda s, i, v, registered: room(s, i) & (registered <= self.max_time),
            "session_request": lambda s, i, v, client, sequence, lowest, time: (
                room(s, i)
                & some(self._is_of_client(k, client, sequence, lowest) for k in range(1, self.clients + 1))
                & ((time > 0) & (time <= self.max_time))
            ),
            "expire_sessions": lambda s, i, v, expired: room(s, i) & (expired <= self.max_time),
            "append_entries": lambda s, i, j, prev, size, commit: size <= self.entries,
            "apply_entries": lambda s, i, n: self.entries_applied,
            "begin_read": lambda s, i: s.past.rounds < self.reads,
            "take_snapshot": lambda s, i, n: s.past.snapshots < self.snapshots,
            "restart": lambda s, i: s.past.restarts < self.crashes,
            "change_voters": self._may_change,
            "enter_joint": self._may_change,
        }

    def _is_of_client(self, k: int, client: Any, sequence: Any, lowest: Any) -> Any:
        """Whether a request is one of client k's own numbers, which no other client uses."""
        before = (k - 1) * self.requests
        return (client == k) & ((sequence <= before + self.requests) & (lowest > before))

    def _may_change(self, s: Any, i: Any, v: Any, voters: Any) -> bool:
        room = (s[i].log.length < self.max_log) & (s.past.commands < self.max_commands)
        return room & (s.past.changes < self.changes)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """What was bounded, in words; no result is printed without it."""
        parts = [
            _plural(self.servers, "server"),
            f"terms up to {self.max_term}",
            f"logs up to {self.max_log}",
            _plural(self.max_commands, "command"),
            _plural(self.crashes, "restart"),
            f"{_plural(self.entries, 'entry')} a message",
        ]
        if self.max_messages is not None:
            parts.append(f"{_plural(self.max_messages, 'message')}")
        if "sessions" in self.extensions:
            whose = f" of each of {self.clients} clients" if self.clients > 1 else ""
            parts += [_plural(self.requests, "request") + whose, f"times up to {self.max_time}"]
        parts.append("entries applied" if self.entries_applied else "nothing applied")
        if "membership" in self.extensions:
            parts.append(_plural(self.changes, "change"))
        if "reads" in self.extensions:
            parts.append(f"{_plural(self.reads, 'round')} of readers")
        if "snapshots" in self.extensions:
            parts.append(_plural(self.snapshots, "snapshot"))
        return ", ".join([*parts, *(f"with {name}" for name in self.extensions)])


def _plural(n: int, word: str) -> str:
    many = word[:-1] + "ies" if word.endswith("y") else word + "s"
    return f"{n} {word if n == 1 else many}"


# --- what an exploration finds -----------------------------------------------


class Move(NamedTuple):
    """A step that was taken: the action, its parameters, the messages sent, the state after it."""

    action: str
    params: tuple[Any, ...]
    sent: tuple[Any, ...]
    world: World

    @property
    def server(self) -> str:
        """Who took the step: a message's receiver, or the first parameter."""
        first = self.params[0]
        return str(first if isinstance(first, str) else first.target)

    @property
    def message(self) -> Any | None:
        """The message received, if the step handles one."""
        return None if isinstance(self.params[0], str) else self.params[0]

    def __str__(self) -> str:
        shown = (x if isinstance(x, str | int) else _described(x) for x in self.params)
        return f"{self.action}({', '.join(map(str, shown))})"


@dataclass(frozen=True)
class Path:
    """Steps from a state, each with the state that it leads to."""

    start: World
    moves: tuple[Move, ...] = ()

    @property
    def world(self) -> World:
        """Where the path ends."""
        return self.moves[-1].world if self.moves else self.start

    def __len__(self) -> int:
        return len(self.moves)

    def then(self, *moves: Move) -> Path:
        """The path with more moves at its end."""
        return Path(self.start, (*self.moves, *moves))

    def worlds(self) -> list[World]:
        """Every state on the path, the first included."""
        return [self.start, *(m.world for m in self.moves)]


class Violation(NamedTuple):
    """A property that does not hold, its words, and a shortest way to where it fails."""

    property: str
    doc: str
    path: Path


class Progress(NamedTuple):
    """How far an exploration has come."""

    states: int
    distinct: int
    depth: int
    frontier: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """What an exploration found, and within which bounds.

    `states` counts the successors computed, `distinct` the different states among them and the first.
    """

    bounds: Bounds
    without: frozenset[str]
    mutant: str | None
    symmetry: bool
    states: int
    distinct: int
    depth: int
    seconds: float
    stopped: str
    violation: Violation | None = None
    witness: Path | None = None
    collision: float = 0.0  # how likely it is that two states were taken for one

    @property
    def rate(self) -> float:
        """Distinct states a second."""
        return self.distinct / self.seconds if self.seconds else 0.0

    @property
    def exhausted(self) -> bool:
        """Whether everything within the bounds was seen."""
        return self.stopped == EXHAUSTED


def _described(param: Any) -> str:
    return "{" + ", ".join(sorted(param)) + "}" if isinstance(param, frozenset) else describe(param)


EXHAUSTED = "everything within the bounds was explored"
VIOLATED = "a property was violated"
WITNESSED = "what was looked for was found"


# --- a specification within bounds -------------------------------------------


_CLASSES: dict[tuple[Any, ...], dict[type[Record], type[msgspec.Struct]]] = {}


def message_classes(spec: Spec) -> dict[type[Record], type[msgspec.Struct]]:
    """The same classes for all variants of a specification, so that each can go on from states of another."""
    key = (spec.server, *spec.messages)
    if key not in _CLASSES:
        _CLASSES[key] = structs_of(spec)
    return _CLASSES[key]


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
        asked = f"{bounds!r} {mutant.name if mutant else None} {SOURCE}" if declared else None
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


# --- telling states apart ----------------------------------------------------


Parts = tuple[tuple[int, ...], ...]


class Keys:
    """A key for each state: equal for equal states and, with symmetry, for those that differ in names only.

    Servers' variables, history and messages get a number when they are first seen, so equal numbers
    are equal values. A state under each renaming of the servers is then a tuple of numbers, and the
    least of these tuples stands for all of them.
    """

    def __init__(self, spec: Spec, servers: tuple[str, ...], symmetry: bool) -> None:
        self.servers = servers
        self.renamings = [
            dict(zip(servers, names, strict=True))
            for names in (itertools.permutations(servers) if symmetry else [servers])
        ]
        # Under each renaming: whose variables are the first server's, the second's, …
        self._order = [
            [servers.index(old) for new in servers for old in servers if names[old] == new]
            for names in self.renamings
        ]
        self._types = {
            "server": tuple(spec.server.types().values()),
            "history": tuple(spec.history.types().values()),
        }
        self._message_types = {snake_case(cls.__name__): tuple(cls.types().items()) for cls in spec.messages}
        self._numbers: dict[str, dict[Any, int]] = {"server": {}, "history": {}, "message": {}}
        self._renamed: dict[str, dict[Any, tuple[int, ...]]] = {"server": {}, "history": {}, "message": {}}
        self._sets: dict[frozenset[Any], tuple[int, ...]] = {}

    def parts(self, t: World, s: World | None = None, known: Parts = ()) -> Parts:
        """The numbers of each server's variables, of history and of the messages, under each renaming.

        Whatever t shares with a state s, whose parts are `known`, is not looked at again.
        """
        if s is None:
            columns = [self._variables("server", v) for v in t.variables.values()]
            return (*columns, self._variables("history", t.past), self._messages(t.messages))
        return (
            *(
                column if v is old else self._variables("server", v)
                for v, old, column in zip(t.variables.values(), s.variables.values(), known, strict=False)
            ),
            known[-2] if t.past is s.past else self._variables("history", t.past),
            known[-1] if t.messages is s.messages else self._messages(t.messages),
        )

    def key(self, parts: Parts) -> tuple[int, ...]:
        """The key of a state, from its parts."""
        *columns, past, messages = parts
        return min(
            [(*[columns[k][r] for k in order], past[r], messages[r]) for r, order in enumerate(self._order)]
        )

    def _variables(self, group: str, v: Variables) -> tuple[int, ...]:
        """The numbers of a server's variables, or of history, under each renaming."""
        values = v.key()
        found = self._renamed[group].get(values)
        if found is None:
            types = self._types[group]
            found = self._renamed[group][values] = tuple(
                self._number(group, tuple(rename(x, t, names) for x, t in zip(values, types, strict=True)))
                for names in self.renamings
            )
        return found

    def _messages(self, messages: frozenset[Any]) -> tuple[int, ...]:
        """A set of messages under each renaming: the bits of its messages' numbers."""
        found = self._sets.get(messages)
        if found is None:
            bits = [self._bits(m) for m in messages]
            found = self._sets[messages] = (
                tuple(map(sum, zip(*bits, strict=True))) if bits else (0,) * len(self.renamings)
            )
        return found

    def _bits(self, m: Any) -> tuple[int, ...]:
        found = self._renamed["message"].get(m)
        if found is None:
            types = self._message_types[m.__struct_config__.tag]
            found = self._renamed["message"][m] = tuple(
                1
                << self._number(
                    "message",
                    msgspec.structs.replace(m, **{f: rename(getattr(m, f), t, names) for f, t in types}),
                )
                for names in self.renamings
            )
        return found

    def _number(self, group: str, value: Any) -> int:
        numbers = self._numbers[group]
        return numbers.setdefault(value, len(numbers))


def rename(value: Any, t: Type, names: Mapping[str, str]) -> Any:
    """A value with its servers renamed, by its type. Maps are tuples of pairs, in the order of their keys."""
    match t.kind:
        case "server":
            return names[value]
        case "maybe":
            return None if value is None else names[value]
        case "set":
            return frozenset(names[i] for i in value)
        case "map":
            assert t.key is not None
            assert t.of is not None
            return tuple(sorted((rename(k, t.key, names), rename(x, t.of, names)) for k, x in value))
        case "seq":
            assert t.of is not None
            return tuple(rename(x, t.of, names) for x in value)
        case "record":
            assert t.cls is not None
            fields = {f: rename(getattr(value, f), ft, names) for f, ft in t.cls.types().items()}
            return msgspec.structs.replace(value, **fields)
    return value


# --- the exploration ---------------------------------------------------------


class Watch(NamedTuple):
    """What is looked for: properties of states and of steps that must hold, and a state to be found."""

    states: Mapping[str, Callable[[World], bool]]
    steps: Mapping[str, Callable[[World, World], bool]]
    find: Callable[[World], bool] | None = None


@dataclass
class _Search:
    """A search as it stands. State number k was reached from `parents[k]` by `how[k]`."""

    known: set[tuple[int, ...]]
    parents: list[int] = field(default_factory=lambda: [0])
    how: list[tuple[str, tuple[Any, ...]]] = field(default_factory=lambda: [("", ())])

    def steps_to(self, k: int) -> list[tuple[str, tuple[Any, ...]]]:
        steps = []
        while k:
            steps.append(self.how[k])
            k = self.parents[k]
        return steps[::-1]


def explore(
    spec: Spec,
    bounds: Bounds,
    *,
    without: Iterable[str] = (),
    mutant: Mutant | None = None,
    any_policy: bool = False,
    properties: Iterable[str] | None = None,
    find: Callable[[World], bool] | None = None,
    symmetry: bool = True,
    progress: Callable[[Progress], None] | None = None,
    limit_states: int | None = None,
    start: Path | World | None = None,
) -> Result:
    """Explore every behaviour within bounds, until a property is violated or `find` is true.

    `without` names rules to take away, `any_policy` takes away all those of policy. `start` is where to
    begin, if not in the initial state. Of a step to a known state the step properties are checked too.

    Raises:
        UnusableError: a rule or a property is not known.
    """
    model = Model(spec, bounds, without, mutant, any_policy)
    return explore_model(
        model, properties=properties, find=find, symmetry=symmetry, progress=progress,
        limit_states=limit_states, start=start,
    )  # fmt: skip


def explore_model(
    model: Model,
    *,
    properties: Iterable[str] | None = None,
    find: Callable[[World], bool] | None = None,
    symmetry: bool = True,
    progress: Callable[[Progress], None] | None = None,
    limit_states: int | None = None,
    start: Path | World | None = None,
    visit: Callable[[World], None] | None = None,
) -> Result:
    """As `explore`, of a specification that is already compiled. `visit` sees each state that is expanded."""
    bounds, mutant, spec = model.bounds, model.mutant, model.spec
    watch = _watch(model, properties, find)
    prefix = start if isinstance(start, Path) else Path(start or model.generated.initial())
    keys = Keys(model.spec, model.servers, symmetry)
    began = time.perf_counter()
    states = depth = 0
    shown = began

    def result(stopped: str, **found: Any) -> Result:
        return Result(
            bounds, model.without, mutant.name if mutant else None, symmetry, states, len(search.known),
            depth, time.perf_counter() - began, stopped, **found,
        )  # fmt: skip

    def path(k: int, *last: Move) -> Path:
        """The path to state k, taken again from the beginning: what is reported is what happens."""
        again = model.repeat(prefix.world, [*search.steps_to(k), *((m.action, m.params) for m in last)])
        return prefix.then(*again.moves)

    def broken(name: str, where: Path) -> Result:
        return result(VIOLATED, violation=Violation(name, spec.properties[name].doc, where))

    first = prefix.world
    parts = keys.parts(first)
    search = _Search({keys.key(parts)})
    for name, claim in watch.states.items():
        if not claim(first):
            return broken(name, path(0))
    if watch.find and watch.find(first):
        return result(WITNESSED, witness=path(0))

    level = [(0, first, parts)]
    while level:
        frontier: list[tuple[int, World, Parts]] = []
        for k, s, parts in level:
            stayed = False
            if visit:
                visit(s)
            for move in model.moves(s):
                t = move.world
                states += 1
                new_parts = keys.parts(t, s, parts)
                if new_parts == parts:
                    # One step from s to s says what any other says.
                    if stayed:
                        continue
                    stayed = True
                for name, step_claim in watch.steps.items():
                    if not step_claim(s, t):
                        depth += 1
                        return broken(name, path(k, move))
                key = keys.key(new_parts)
                if key in search.known:
                    continue
                search.known.add(key)
                search.parents.append(k)
                search.how.append((move.action, move.params))
                new = len(search.parents) - 1
                frontier.append((new, t, new_parts))
                for name, claim in watch.states.items():
                    if not claim(t):
                        depth += 1
                        return broken(name, path(new))
                if watch.find and watch.find(t):
                    depth += 1
                    return result(WITNESSED, witness=path(new))
            if limit_states is not None and len(search.known) >= limit_states:
                return result(f"stopped at the limit of {limit_states} states")
            if progress and time.perf_counter() - shown > PROGRESS_EVERY:
                shown = time.perf_counter()
                progress(Progress(states, len(search.known), depth, len(level), shown - began))
        level = frontier
        depth += bool(frontier)
    return result(EXHAUSTED)


def _watch(model: Model, names: Iterable[str] | None, find: Callable[[World], bool] | None) -> Watch:
    declared = model.spec.properties
    wanted = model.properties(names)
    return Watch(
        {name: model.claim(name) for name in wanted if declared[name].states == 1},
        {name: model.claim(name) for name in wanted if declared[name].states == 2},
        find,
    )


def describe(m: Any) -> str:
    """A message in one line."""
    tag = m.__struct_config__.tag
    fields = {f: getattr(m, f) for f in m.__struct_fields__ if f not in ("source", "target")}
    shown = ", ".join(f"{f}={_short(x)}" for f, x in fields.items())
    return f"{tag} {m.source}→{m.target} {shown}"


def _short(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + " ".join(f"{e.term}:{e.value}" for e in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
