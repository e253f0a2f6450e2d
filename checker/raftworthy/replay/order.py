"""The order of a replay: each server's own, and a receive after its send. Nothing else, and no clocks.

A server whose next event lacks what must come before it is parked with its events, while the others go on.

    e  an event     i  the server whose event it is
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raftworthy.files import Place, Unusable
from raftworthy.generated import World
from raftworthy.replay.blame import to_blame
from raftworthy.replay.fused import fused
from raftworthy.replay.ledger import PORTION, Stopped, Violation
from raftworthy.replay.steps import ANYTHING, OLDER, OTHERS_END, Steps

Observer = Callable[[Any, Place, World], None]


class Replay(Steps):
    """A replay of events. `feed` takes them in any order that keeps each server's own.

    `observer` is called after every event with the event, its place and the state. `stop_at` is the
    number of events after which to stop. `fast` is the fast path; empty for few events.
    """

    def __init__(
        self,
        servers: tuple[str, ...],
        observer: Observer | None = None,
        extensions: frozenset[str] = frozenset(),
        voters: tuple[str, ...] = (),
    ) -> None:
        """`voters` are those of the first configuration, where membership can change; none: all servers."""
        super().__init__(servers, extensions)
        self.begin_with(voters)
        self.observer = observer
        self.stop_at: int | None = None
        self.fast: Mapping[str, Callable[[Any], bool]] = {}
        self._count_fast: Callable[[], None] = lambda: None
        self.with_clients: list[Path] = []  # files in which clients' events stand among the servers'
        self.hungry: set[str] = set()  # those of the parked who wait for anything at all

    def hurry(self) -> None:
        """Get ready for many events."""
        self.fast, self._count_fast = fused(self)

    def feed(
        self,
        events: Sequence[Any],
        file: str,
        lines: Sequence[int],
        start: int = 0,
        pause_at: str | None = None,
    ) -> int:
        """Replay events from `start` on, or keep those that must wait until what they need has happened.

        `lines` are the numbers of theirs. Returns where it stopped: at the end, or before an event of the
        server `pause_at` while that one waits.

        Raises:
            Violation, Unusable, Stopped
        """
        if len(self.sent.recent) > PORTION:
            self.sent.put_away(key for server in self.state.values() for key in server.news)
        at = start
        try:
            while at < len(events):
                if not (self.parked or self.owed or self.observer or self.stop_at) and self.fast:
                    # Ordinary events change nothing of this, so it isn't asked again.
                    before, fast = at, self.fast
                    try:
                        for e in events[at:]:
                            if not fast[e.event](e):
                                break
                            at += 1
                    finally:
                        self.number += at - before
                    if at == len(events):
                        break
                e = events[at]
                if e.server == pause_at and e.server in self.parked:
                    return at
                self._feed(e, Place(file, lines[at]))
                at += 1
        except Violation as v:
            if v.place is None:
                v.place, v.number = Place(file, lines[at]), self.number
            raise
        except Unusable as u:
            raise (u if u.place else Unusable(Place(file, lines[at]), u.what)) from None
        finally:
            self._count_fast()
        return at

    def _feed(self, e: Any, place: Place) -> None:
        """Replay an event, and what had waited for it; or keep it, if it must wait itself."""
        if e.server in self.parked:
            self.parked[e.server].append((e, place))
            return
        step = self.fast.get(e.event)
        if step is None or not step(e):
            key = self.take(e)
            if key is not None:
                self._park(e.server, key, e, place)
                return
        self.number += 1
        for v in self.owed.values():
            if v.event is e:
                v.place = place
        if self.observer is not None:
            self.observer(e, place, self.world)
        if self.number == self.stop_at:
            raise Stopped
        if self.hungry or self.ready:
            self._drain()

    def _park(self, i: str, key: int, e: Any, place: Place) -> None:
        self.parked[i] = deque([(e, place)])
        if key == ANYTHING:
            self.hungry.add(i)
        elif key != OTHERS_END:
            self.waiting[key] = i

    def _drain(self) -> None:
        """Go on with servers whose wait may be over, until none can move."""
        moved = True
        while self.ready or (self.hungry and moved):
            before = self.number
            ready = [*self.ready, *sorted(self.hungry)]
            self.ready.clear()
            for i in ready:
                self.go_on(i)
            moved = self.number > before

    def go_on(self, i: str) -> None:
        """Replay what a parked server has waiting, as far as it goes."""
        self.hungry.discard(i)
        queue = self.parked.pop(i, None)
        while queue and i not in self.parked:
            e, place = queue.popleft()
            self.feed([e], place.file, [place.line])
        if queue:
            self.parked[i].extend(queue)

    # --- the end ---------------------------------------------------------------------

    def retry(self) -> bool:
        """Try restarts again that nothing had explained yet; whether any server went on."""
        before = self.number
        for i in sorted(self.parked):
            if i in self.parked and self.parked[i][0][0].event == "restart":
                self.go_on(i)
        return self.number > before

    def finish(self) -> None:
        """No more events will come: whoever still waits, waits for what never happened.

        Raises:
            Violation: the first event that can't have happened.
            Unusable: a line is missing, so that nothing can be said.
        """
        while self.parked and (self.retry() or self._assume_forgotten()):
            pass
        if self.parked:
            self._check_parked_sequences()
            e, place = self.parked[to_blame(self)][0]
            v = self.never(e)
            v.place, v.number = place, self.number
            raise v
        for v in self.owed.values():
            raise v

    def _assume_forgotten(self) -> bool:
        """A receive may wait for a message that was sent before the window; whether one does."""
        if not self.sent.forgot or not self.waiting:
            return False
        key, i = min(self.waiting.items(), key=lambda item: self.parked[item[1]][0][1])
        self.unchecked[OLDER] += 1
        del self.waiting[key]
        self.sent.recent[key] = ""
        self.go_on(i)
        return True

    def _check_parked_sequences(self) -> None:
        """A line that is missing explains a wait better than any server's fault."""
        for i, queue in self.parked.items():
            seq = self.state[i].seq
            for e, place in queue:
                try:
                    seq = self.check_sequence(e, seq)
                except Unusable as u:
                    raise Unusable(place, u.what) from None
