"""How far to explore: the sizes beyond which no step is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from raftspec.extensions import EXTENSIONS
from raftspec.values import some

# States are compared under all orders of their servers, and 7 have 5,040; parameters are tried one by one.
MOST = {"servers": 7, "max_log": 100, "entries": 100}


class UnusableError(ValueError):
    """What was asked for can't be explored; the text says why, and what can."""


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
