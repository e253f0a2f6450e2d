"""A bank as the replicated state machine: accounts, deposits, and interest on what is there.

The lecture's example: a deposit and an addition of interest that reach replicas in different orders leave
different balances. Amounts are in cents, and interest is rounded down, so that all replicas compute the same.
"""

from __future__ import annotations

import msgspec


class Deposit(msgspec.Struct, frozen=True, array_like=True, tag="deposit", gc=False):
    """Put `cents` into an account. Result: its balance."""

    account: str
    cents: int


class AddInterest(msgspec.Struct, frozen=True, array_like=True, tag="interest", gc=False):
    """Add so many hundredths of the balance to an account. Result: its balance."""

    account: str
    percent: int


class Balance(msgspec.Struct, frozen=True, array_like=True, tag="balance", gc=False):
    """Ask for an account's balance. Result: that."""

    account: str


Command = Deposit | AddInterest | Balance

_encoder = msgspec.msgpack.Encoder(order="sorted")
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_state_decoder: msgspec.msgpack.Decoder[dict[str, int]] = msgspec.msgpack.Decoder(dict[str, int])


def encode_command(command: Command) -> bytes:
    """The command as log entries carry it."""
    return _encoder.encode(command)


class Bank:
    """The state: each account's balance, in cents."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}

    def apply(self, encoded: bytes) -> bytes | None:
        """Execute one command; the account's balance after it, as text."""
        try:
            command = _decoder.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        balance = self.balances.get(command.account, 0)
        match command:
            case Deposit(account, cents):
                balance = self.balances[account] = balance + cents
            case AddInterest(account, percent):
                balance = self.balances[account] = balance + balance * percent // 100
            case Balance():
                pass
        return b"%d" % balance

    def read(self, account: str) -> bytes | None:
        """An account's balance, as text; None if nothing was ever put into it."""
        return b"%d" % self.balances[account] if account in self.balances else None

    def save(self) -> bytes:
        """The state as a snapshot holds it: the same bytes for the same state."""
        return _encoder.encode(self.balances)

    def load(self, state: bytes) -> None:
        """Become what `save` saw, whatever was there before."""
        self.balances = _state_decoder.decode(state)
