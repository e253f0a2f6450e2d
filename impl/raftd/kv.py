"""The replicated state machine: a map from keys to values.

Deterministic: the same commands in the same order give the same map and the same results on every
server. Even a command that can't be read has one fixed result, or replicas would part over it.
"""

from __future__ import annotations

import msgspec


class Put(msgspec.Struct, frozen=True, array_like=True, tag="p", gc=False):
    """Set `key` to `value`. Result: nothing."""

    key: str
    value: bytes


class Get(msgspec.Struct, frozen=True, array_like=True, tag="g", gc=False):
    """Read `key`. In the log like any command, which is what makes it linearizable."""

    key: str


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="d", gc=False):
    """Remove `key`. Result: the value it had."""

    key: str


Command = Put | Get | Delete

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)

_state_encoder = msgspec.msgpack.Encoder(order="sorted")
_state_decoder: msgspec.msgpack.Decoder[dict[str, bytes]] = msgspec.msgpack.Decoder(dict[str, bytes])


def encode_command(command: Command) -> bytes:
    """The command as log entries carry it; never empty, for that is a leader's no-op."""
    return _encoder.encode(command)


class KeyValue:
    """The state: what has been applied so far."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def save(self) -> bytes:
        """The state as a snapshot holds it: the same bytes for the same state."""
        return _state_encoder.encode(self.values)

    def load(self, state: bytes) -> None:
        """Become what `save` saw, whatever was there before."""
        self.values = _state_decoder.decode(state)

    def read(self, key: str) -> bytes | None:
        """The value of `key` as it is now, None if it has none."""
        return self.values.get(key)

    def apply(self, encoded: bytes) -> bytes | None:
        """Execute one command; the value got or deleted."""
        try:
            command = _decoder.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        match command:
            case Put(key, value):
                self.values[key] = value
                return None
            case Get(key):
                return self.read(key)
            case Delete(key):
                return self.values.pop(key, None)
