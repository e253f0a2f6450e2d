"""Telling states apart, by all of their values: no hashes. With symmetry no server counts by its name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from raftspec.spec import Spec
from raftspec.types import Type
from raftworthy.generated import Variables, World
from raftworthy.structs import snake_case

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
