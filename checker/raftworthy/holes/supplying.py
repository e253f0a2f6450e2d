"""How a server without lines takes a step, and what it has heard and sent.

s  the server without lines     j  another     m  a message
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from raftworthy.holes.offers import Offer
from raftworthy.replay.ledger import Violation

if TYPE_CHECKING:
    from raftworthy.holes.options import Options

NOTHING: Mapping[str, Any] = {}


class NoWayError(Exception):
    """A server can't be brought to send what is asked for."""


class Supplying:
    """Steps of servers without lines."""

    def __init__(self, search: Options) -> None:
        self.search = search

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """Steps of which none is taken if one of them is not possible."""
        saved = self.search.save()
        try:
            yield
        except NoWayError:
            self.search.restore(saved)

    def _me(self, s: str) -> Any:
        return self.search.world.variables[s]

    def _act(self, s: str, event: str, m: Any = UNSET, entries: Any = UNSET, sends: Any = None,
             said: Mapping[str, Any] = NOTHING, **state: int) -> None:  # fmt: skip
        """Take a step, after which variables have these values.

        Raises:
            NoWayError: it isn't possible.
        """
        t = self.search
        told = t.state_type(**state) if state else UNSET
        sent = () if sends is None else tuple(sends)
        e = t.event_of(s, event, m, state=told, sends=sent, entries=entries, **said)
        if isinstance(t.attempt(e, None, sends), Violation):
            raise NoWayError

    def _heard(self, kind: type, j: str, s: str) -> Iterator[tuple[Offer, Any]]:
        """What j has sent to s, or may have: of what is open, each of the few messages that it may be."""
        t = self.search
        for o in t.offered(kind, j, s):
            for m in o.may_be:
                if m.target == s and (o.m is None or hash(m) in t.sent.recent):
                    yield o, m

    def _receive(self, s: str, m: Any) -> None:
        self.search.sent.receive(hash(m), s)

    def _sent(self, kind: type, s: str, j: str, pattern: Mapping[str, Any], fresh: bool = False) -> Any:
        """A message that s has sent already, one that nobody has received yet if need be."""
        for o, m in self._heard(kind, s, j):
            if self.search.fits(m, pattern) and not (fresh and o.received):
                self._settle(o, m)
                return m
        return None

    def _last_sent(self, j: str, pattern: Mapping[str, Any]) -> Any:
        """What the last step sent to j, if it is what is asked for."""
        t = self.search
        last = t.taken[-1]
        for m in last.sends:
            if m is not None and m.target == j and t.fits(m, pattern):
                return m
        for (_, s, target), offers in t.offers.items() if None in last.sends else ():
            o = offers[-1] if (s, target) == (last.e.server, j) and offers else None
            if o is not None and o.leading.event == len(t.taken) - 1:
                for m in o.options:
                    if m.target == j and t.fits(m, pattern):
                        self._settle(o, m)
                        return m
        return None

    def _need(self, m: Any) -> Any:
        if m is None:
            raise NoWayError
        return m

    def _settle(self, o: Offer, m: Any) -> None:
        if o.m is None:
            self.search.settle_offer(o, m)

    def _opened(self, leading: Any, m: Any) -> None:
        self.search.offer_from(leading, m)
