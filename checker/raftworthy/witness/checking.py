"""Is what clients saw what the committed log gives? With the log as the witness, no order is searched for.

An operation that has an entry in the committed log takes effect there: its place is the entry's index. Every
other one only looks, and its place is behind some entry: it sees what the entries up to there have left. The
operations are linearizable in this order if

 - what each was told is what the state machine gives at its place;
 - one that was invoked after another had returned has no earlier place, and a later one if it has an entry;
 - of several entries that ask for one operation the first takes effect, and no other.

The last is how the log is executed here: what a second execution does shows in what is told afterwards.

The place of a look isn't known. It is chosen as the look returns: the first at which it is right, from the
latest place on of those that had returned when it was invoked. That loses nothing. Whatever is asked of a
look's place p has one of three forms: p is at least the place of what had returned before; p is where the key
held what was seen; p is before the entry, and not behind the place, of what was invoked after the look had
returned. If two choices of all looks' places meet the first two, so does the earlier of both, look by look.
So there is a least choice, and taking the first place in the order of the returns gives it, as whatever had
returned before a look was invoked has its place by then. The third only asks for less: if any choice meets
it, the least does.

So one pass is enough. When a place is taken, the entries up to it are executed. What hasn't been invoked by
then comes too late: its entry is not behind that place, and that is found when it is invoked. A look goes
through the versions of its key while it was under way, so its cost is bounded by what overlaps it.

    index  of an entry in the log, from 1     place  so many entries come before
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET

from raftworthy.files import Place, Unusable
from raftworthy.linearize.history import IMPOSSIBLE, Impossible, Value
from raftworthy.linearize.reading import Line, wrong_invoke, wrong_return
from raftworthy.witness.links import Links
from raftworthy.witness.store import Store

Kind = Literal["lost", "order", "answer", "look", "index", "executed"]


class Call:
    """An operation that was invoked: what was asked, its place if that is known, and what was told."""

    __slots__ = ("asked", "by", "end", "file", "found", "index", "line", "place", "told")

    def __init__(self, asked: Line, file: str, line: int, index: int, place: int, by: Call | None) -> None:
        self.asked = asked
        self.file = file
        self.line = line
        self.index = index  # of its entry; 0 if it has none
        self.place = place  # the latest of those that had returned before it was invoked
        self.by = by  # whose place that is
        self.found: Value | Impossible = None  # what its key held before its entry
        self.told: Line | None = None
        self.end = 0  # the line of its return


class Refuted(Exception):  # noqa: N818  (a verdict, not a failure)
    """What a client was told can't be, given the log.

    `kind` is lost (what was done has no entry), order (the entry comes before what had returned when it was
    invoked), answer (the state machine gives another), look (the key held no such thing wherever the place
    may be), index (another is told), executed (there is an entry for what surely wasn't to be executed).
    """

    def __init__(self, kind: Kind, call: Call) -> None:
        super().__init__(f"{call.file}:{call.end or call.line}: {kind}")
        self.kind = kind
        self.call = call


@dataclass
class Counts:
    """What was checked, for the report."""

    operations: int = 0
    clients: int = 0
    entries: int = 0  # committed ones that are some operation's
    looks: int = 0  # operations without an entry for which a place was found
    unknown: int = 0  # operations of unknown outcome
    without_effect: int = 0  # of these, how many have no entry
    not_executed: int = 0
    unnamed: int = 0  # committed entries that no operation asks for
    repeated: int = 0  # committed entries that ask for an operation that an earlier one asks for
    unsure: int = 0  # answered operations of which no line says that their entries were committed


class Witness:
    """Takes the events of clients one by one, in the order in which they were seen."""

    def __init__(self, links: Links, initial: Value = None) -> None:
        self.links = links
        self.store = Store(initial)
        self.counts = Counts()
        self.place = 0  # the latest of the operations that have returned; entries up to here are executed
        self.latest: Call | None = None
        self.executed = 0
        self._under_way: dict[tuple[str, int], Call] = {}
        self._waiting: dict[int, Call] = {}  # operations whose entries are not executed yet, by index
        self._last_seq: dict[str, int] = {}

    def take(self, events: Iterable[tuple[str, int, Line]]) -> None:
        """Check what clients were told.

        Raises:
            Refuted: it can't be.
            NoWitness: nothing says which operation is which entry's.
            Unusable: the events make no sense.
        """
        for file, number, line in events:
            if line.event == "invoke":
                self._invoke(file, number, line)
            elif line.event == "return":
                self._return(file, number, line)
            else:
                what = f'a client\'s event is "invoke" or "return", not "{line.event}"'
                raise Unusable(Place(file, number), what)

    def finish(self) -> Counts:
        """No more events will come: what is under way is of unknown outcome."""
        for call in self._under_way.values():
            self._unknown(call)
        self._under_way.clear()
        counts = self.counts
        counts.clients = len(self._last_seq)
        counts.repeated = self.links.repeated
        counts.unnamed = self.links.committed - counts.entries - counts.repeated
        return counts

    def _invoke(self, file: str, number: int, line: Line) -> None:
        if wrong := wrong_invoke(line):
            raise Unusable(Place(file, number), wrong)
        client, seq = line.client, line.seq
        assert client is not None
        if seq <= self._last_seq.get(client, -1):
            last = self._last_seq[client]
            what = f"{client} has invoked seq {last} before; number its operations upwards"
            raise Unusable(Place(file, number), what)
        self._last_seq[client] = seq
        index = self.links.find(line, file, number)
        call = Call(line, file, number, index, self.place, self.latest)
        self._under_way[client, seq] = call
        self.counts.operations += 1
        if index:
            if index <= self.place:
                raise Refuted("order", call)
            self._waiting[index] = call
            self.counts.entries += index <= self.links.committed

    def _return(self, file: str, number: int, told: Line) -> None:
        assert told.client is not None
        call = self._under_way.pop((told.client, told.seq), None)
        if call is None:
            before = told.seq <= self._last_seq.get(told.client, -1)
            what = "has returned before" if before else "was not invoked before"
            raise Unusable(Place(file, number), f"seq {told.seq} of {told.client} {what}")
        if call.file != file:
            what = f"was invoked in {call.file}; a client's events belong in one file"
            raise Unusable(Place(file, number), what)
        if told.outcome == "unknown":
            self._unknown(call)
            return
        call.told, call.end = told, number
        if told.outcome == "not_executed":
            self.counts.not_executed += 1
            if call.index:
                raise Refuted("executed", call)
        elif wrong := wrong_return(str(call.asked.operation), told):
            raise Unusable(Place(file, number), wrong)
        elif call.index:
            self._answered(call, told)
        else:
            self._looked(call, told)
        call.by = None  # or each would hold on to all before it

    def _unknown(self, call: Call) -> None:
        self.counts.unknown += 1
        self.counts.without_effect += not call.index
        call.by = None

    def _answered(self, call: Call, told: Line) -> None:
        """An operation with an entry was told what the state machine gives there."""
        index = call.index
        if told.index is not UNSET and told.index != index:
            raise Refuted("index", call)
        self._execute(index)
        if not _gives(call, told):
            raise Refuted("answer", call)
        if index > self.place:
            self.place, self.latest = index, call
        self.counts.unsure += index > self.links.committed

    def _looked(self, call: Call, told: Line) -> None:
        """An operation without an entry changed nothing, so it only looked, at some place."""
        asked: Any = call.asked
        differs = asked.operation == "cas" and told.swapped is False
        if asked.operation != "get" and not differs:
            raise Refuted("lost", call)
        seen = asked.expected if differs else told.value
        if told.index is UNSET:
            place = self._first_place(call, seen, differs)
        elif call.place <= told.index <= self.links.length:
            self._execute(told.index)
            place = told.index
            if (self.store.key(asked.key).at(place) == seen) is differs:
                raise Refuted("look", call)
        else:
            raise Refuted("index", call)
        if place > self.place:
            self.place, self.latest = place, call
        self.counts.looks += 1

    def _first_place(self, call: Call, seen: Any, differs: bool) -> int:
        """The first place that a look can have.

        Raises:
            Refuted: there is none.
        """
        asked: Any = call.asked
        key = self.store.key(asked.key)
        place = key.first(seen, differs, call.place)
        while place is None:
            if self.executed == self.links.length:
                raise Refuted("look", call)
            versions = len(key.values)
            self._execute(self.executed + 1)
            if len(key.values) > versions:
                place = key.first(seen, differs, self.executed)
        return place

    def _execute(self, until: int) -> None:
        """Execute the entries up to an index. What nobody has asked for so far has no effect."""
        for index in range(self.executed + 1, until + 1):
            call = self._waiting.pop(index, None)
            if call is not None:
                call.found = self.store.execute(index, call.asked)
        self.executed = max(self.executed, until)


def _gives(call: Call, told: Line) -> bool:
    """Whether an answer is what the state machine gives at the operation's entry."""
    found = call.found
    match call.asked.operation:
        case "get":
            return found == told.value
        case "delete" | "deposit" | "interest":
            return told.value is UNSET or found == told.value
        case "cas":
            return told.swapped is (found == call.asked.expected)
    return found is not IMPOSSIBLE
