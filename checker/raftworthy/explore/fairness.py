"""A specification with a client, under assumptions about time: which steps are fair, and where they lead.

Every step but a crash is weakly fair: if from some point on it is possible all the time, it is taken. It
is possible if it would change anything that can ever matter. What counts as one step is an action with the
servers that it names, whatever it says of indices, or the receipt of one message. A server that isn't leader
times out sooner or later; `Timing` says what is assumed besides. The client has one command, and gives it to
each leader that has no entry of its own term: without one it commits nothing older (section 5.4.2).

    s, t  states     n  a state's normal form
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from raftspec.mutants import Mutant
from raftspec.properties import raft
from raftspec.spec import Spec
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.fates import Fates
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move
from raftworthy.explore.renaming import Renaming, counted, kept_history
from raftworthy.generated import World

TIMEOUT, CLIENT = "timeout", "client_request"
UNFAIR = frozenset({"restart"})  # nobody has to crash
SOME = "some"  # server, whichever it has to be

# An action with the servers that it names, or with the message that it receives.
Instance: TypeAlias = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Surroundings(Bounds):
    """Bounds in which only what the client does, and how much a message holds, is a guard.

    The others limit what is looked at, not what can happen: see `System.within`.
    """

    under_way: int | None = None  # messages at a time that aren't of a term older than their receiver's

    def guards(self) -> dict[str, Callable[..., bool]]:
        free = super().guards()
        del free[TIMEOUT]
        return free | {CLIENT: lambda s, i, v: s[i].log.last.term != s[i].current_term}


@dataclass(frozen=True)
class Timing:
    """What is assumed of timeouts. Nothing else: they fire at any time.

    `alone`: in the end only this server's fire; `patient`: and only where no other step is left to be taken.
    `stopped` servers do nothing: they have crashed, or are cut off.
    """

    alone: str | None = None
    patient: bool = False
    stopped: frozenset[str] = frozenset()

    def __str__(self) -> str:
        out = "timeouts fire at any time"
        if self.alone is not None:
            who = "one server" if self.alone == SOME else self.alone
            out = f"in the end only {who}'s timeouts fire"
            out += ", each when nothing else is left to happen" if self.patient else ", at any time"
        return out + (f"; {', '.join(sorted(self.stopped))} stopped" if self.stopped else "")


class Step(NamedTuple):
    """A move from a normal state that changes something: what it counts as, and the normal state after it."""

    instance: Instance
    move: Move
    normal: World
    decided: bool


class System:
    """What can happen, one step at a time."""

    def __init__(
        self,
        bounds: Surroundings,
        goal: str,
        timing: Timing,
        fates: Fates,
        without: Iterable[str] = (),
        mutant: Mutant | None = None,
    ) -> None:
        self.bounds = bounds
        self.timing = timing
        spec = Spec(raft.server, raft.history, raft.rules, raft.actions, {goal: raft.goals[goal]})
        self.model = Model(spec, bounds, without, mutant)
        self.goal = self.model.claim(goal)
        generated = self.model.generated
        kept = kept_history(generated.transitions, generated.claims[goal])
        counting = counted(generated.transitions, kept)
        names = set(bounds.names)
        unknown = (timing.stopped | ({timing.alone} if timing.alone else set())) - names
        if unknown:
            raise UnusableError(f"no server is called {', '.join(sorted(unknown))}; there are {bounds.names}")
        running = names - timing.stopped
        times_out = running if timing.alone is None else {timing.alone}
        may_count = times_out if counting <= {TIMEOUT} else running
        frozen = (names - may_count) if fates.moving <= counting else set()
        self.renaming = Renaming(self.model, fates, kept, sorted(may_count), frozen, timing.stopped)
        self._handlers = {
            generated.structs[a.message]: name for name, a in self.model.spec.actions.items() if a.message
        }
        self._servers = {
            name: [k for k, t in enumerate(a.params.values()) if t.kind == "server"]
            for name, a in self.model.spec.actions.items()
        }
        self._past = generated.initial().past
        self._order: dict[Any, str] = {}

    def initial(self) -> World:
        """The state in which every server starts for the first time."""
        return self.model.generated.initial()

    def instance(self, action: str, params: tuple[Any, ...]) -> Instance:
        """What a step counts as, where it is asked whether it was taken."""
        if not isinstance(params[0], str):
            return action, params
        return action, tuple(params[k] for k in self._servers[action])

    def moves(self, s: World) -> Iterator[Move]:
        """Every move from a state, with the client's one command."""
        nothing_sent = World(s.variables, self._past, frozenset())
        for action, params in self.model.choices(nothing_sent):
            if (move := self.model.take(s, action, params)) is not None:
                yield move
        for m in sorted(s.messages, key=self._name):
            if (move := self.model.take(s, self._handlers[type(m)], (m,))) is not None:
                yield move

    def _name(self, m: Any) -> str:
        if m not in self._order:
            self._order[m] = repr(m)
        return self._order[m]

    def steps(self, s: World) -> list[Step]:
        """Every step from a state that the assumptions allow and that changes something."""
        normal = self.renaming.normal(s)
        steps: list[Step] = []
        timeouts: list[Step] = []
        for move in self.moves(s):
            if move.server in self.timing.stopped:
                continue
            is_timeout = move.action == TIMEOUT
            if is_timeout and self.timing.alone not in (None, move.server):
                continue
            t, stays = move.world, self._stays(s, move.world)
            if stays and t.messages == s.messages:
                continue
            after = self.renaming.normal(t)
            if stays and key(after) == key(normal):
                continue
            step = Step(self.instance(move.action, move.params), move, after, self.goal(move.world))
            (timeouts if is_timeout else steps).append(step)
        if self.timing.patient and any(step.instance[0] not in UNFAIR for step in steps):
            return steps
        return steps + timeouts

    def _stays(self, s: World, t: World) -> bool:
        """Whether a step changed nobody's variables."""
        pairs = zip(s.variables.values(), t.variables.values(), strict=True)
        return all(v is w or self.renaming.key(v) == w.key() for v, w in pairs)

    def within(self, n: World) -> bool:
        """Whether a normal state is one to be looked at. What lies beyond is still possible, so it has to be
        done if it stays so: no bound makes a livelock.
        """
        b = self.bounds
        if max(self.renaming.terms(n)) > b.max_term:
            return False
        if any(len(v.log) > b.max_log for v in n.variables.values()):
            return False
        clock = self.renaming.clock
        news = sum(m.term >= getattr(n.variables[m.target], clock) for m in n.messages)
        return b.under_way is None or news <= b.under_way


def key(n: World) -> Any:
    """A normal state's key: equal variables are one object in normal states."""
    return *map(id, n.variables.values()), n.past.key(), n.messages


def is_fair(instance: Instance) -> bool:
    """Whether a step has to be taken if it stays possible."""
    return instance[0] not in UNFAIR
