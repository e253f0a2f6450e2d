"""Configurations: which servers there are, and who of them decides. Dissertation, chapter 4.

A configuration is the command of an entry, so that all servers come to the same ones in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

MARK = b"\x00members"  # which no command of a state machine begins with


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Who votes, and who is only sent entries. In a joint configuration the `outgoing` decide, too."""

    voters: tuple[str, ...]
    outgoing: tuple[str, ...] = ()  # who voted before, as long as old and new decide together
    learners: tuple[str, ...] = ()
    promoted: tuple[str, ...] = ()  # learners that shall vote as soon as they have caught up
    addresses: dict[str, str] = {}  # of servers that joined later, as `host:port`

    @property
    def members(self) -> tuple[str, ...]:
        """Everybody who is sent entries, once."""
        return tuple(dict.fromkeys((*self.voters, *self.outgoing, *self.learners)))

    def has_vote(self, server: str) -> bool:
        """Whether a server is among those who decide."""
        return server in self.voters or server in self.outgoing

    def but(
        self,
        voters: Iterable[str],
        *,
        outgoing: Iterable[str] = (),
        learners: Iterable[str] = (),
        promoted: Iterable[str] = (),
        addresses: dict[str, str] | None = None,
    ) -> Configuration:
        """Another one in its place; whoever is in neither set is forgotten."""
        chosen = tuple(sorted(set(voters)))
        learning = tuple(sorted(set(learners) - set(chosen)))
        made = Configuration(
            voters=chosen,
            outgoing=tuple(sorted(set(outgoing))),
            learners=learning,
            promoted=tuple(sorted(set(promoted) & set(learning))),
        )
        known = self.addresses | (addresses or {})
        return msgspec.structs.replace(made, addresses={i: a for i, a in known.items() if i in made.members})


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Configuration).decode


def encode_configuration(configuration: Configuration) -> bytes:
    """The command that a configuration is."""
    return MARK + _encode(configuration)


def for_state_machine(command: bytes) -> bool:
    """Whether a command is a client's, and neither a new leader's no-op nor a configuration."""
    return bool(command) and not command.startswith(MARK)


def configuration_in(command: bytes) -> Configuration | None:
    """The configuration that a command is, None for any other command."""
    return _decode(command[len(MARK) :]) if command.startswith(MARK) else None
