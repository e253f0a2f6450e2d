"""Why what a client was told can't be: the operation, its place in the log, what the log gives there.

The events are taken once more up to that point, this time with a note of all that happened to the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import UNSET

from raftworthy.files import Place
from raftworthy.linearize.history import Builder, Impossible, Operation, Value, shown
from raftworthy.linearize.reading import OF_A_BANK, asked_by, finish
from raftworthy.replay.provenance import Cause
from raftworthy.replay.reading import TraceFile
from raftworthy.witness.checking import Call, Refuted, Witness
from raftworthy.witness.links import Links
from raftworthy.witness.reading import Event
from raftworthy.witness.store import Store

AROUND = 3  # versions of a key to be shown, on each side
REPETITIONS = 100  # so many are tried, at most, to see whether one explains what was told


@dataclass(frozen=True)
class Version:
    """What a key held after an entry."""

    index: int
    operation: str
    value: str


@dataclass(frozen=True)
class Refutation:
    """Everything there is to say about an operation that has no place in the log."""

    file: str
    line: int
    kind: str
    operation: str
    client: str
    seq: int
    index: int | None  # of its entry
    claim: str
    earliest: int  # it can't have an earlier place
    versions: tuple[Version, ...]  # of its key, around there
    notes: tuple[str, ...]
    causes: tuple[Cause, ...]
    help: str

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.file}:{self.line}: error: {self.claim}"]
        width = max((len(v.operation) for v in self.versions), default=0)
        digits = max((len(str(v.index)) for v in self.versions), default=0)
        lines += [f"  entry {v.index:>{digits}}  {v.operation:{width}}  {v.value}" for v in self.versions]
        lines += [f"because: {c.place}  {c.what}" for c in self.causes]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"help: {self.help}"])


class _Noting(Witness):
    """A witness that notes what was executed on one key."""

    def __init__(self, links: Links, initial: Value, key: str) -> None:
        super().__init__(links, initial)
        self.key = key
        self.on_key: list[Call] = []

    def _execute(self, until: int) -> None:
        asked = (self._waiting.get(index) for index in range(self.executed + 1, until + 1))
        self.on_key += [call for call in asked if call is not None and call.asked.key == self.key]
        super()._execute(until)

    def execute_all(self) -> None:
        """Execute everything that was asked for up to here."""
        self._execute(self.links.length)


def refutation(
    refuted: Refuted, events: Iterator[Event], links: Links, initial: Value, traces: Sequence[Path]
) -> Refutation:
    """Find out what there is to say, by taking the events once more. `links` are new ones."""
    key = refuted.call.asked.key
    assert isinstance(key, str)
    witness = _Noting(links, initial, key)
    try:
        witness.take(events)
    except Refuted as again:
        return _Teller(again, witness, initial, traces).refutation()
    raise AssertionError(f"{refuted}, and then not")


class _Teller:
    def __init__(self, refuted: Refuted, witness: _Noting, initial: Value, traces: Sequence[Path]) -> None:
        self.kind = refuted.kind
        self.call = refuted.call
        self.witness = witness
        self.initial = initial
        self.traces = traces
        self.earliest = max(self.call.place, 0)
        witness.execute_all()
        self.calls = witness.on_key

    def refutation(self) -> Refutation:
        call = self.call
        assert call.asked.client is not None
        return Refutation(
            file=call.file,
            line=call.end or call.line,
            kind=self.kind,
            operation=named(call),
            client=call.asked.client,
            seq=call.asked.seq,
            index=call.index or None,
            claim=self._claim(),
            earliest=self.earliest,
            versions=tuple(self._versions()),
            notes=tuple(self._notes()),
            causes=tuple(self._causes()),
            help=f"raftworthy linearize {call.file} asks whether any other order explains it",
        )

    def _claim(self) -> str:
        call, told, key = self.call, self.call.told, self.call.asked.key
        name = named(call)
        match self.kind:
            case "lost":
                committed = self.witness.links.committed
                return f"{name} was acknowledged, and takes effect by none of {committed:,} committed entries"
            case "order":
                return f"{name} is entry {call.index}, before that of what had returned when it was invoked"
            case "answer":
                return f"{name} is entry {call.index}, where the log gives {self._given()}"
            case "index":
                assert told is not None
                its = f"its entry is {call.index}" if call.index else f"its place is {self.earliest} or later"
                return f"{name} is said to be at index {told.index}, and {its}"
            case "executed":
                return f"{name}, whose client was told that it surely wasn't executed, is entry {call.index}"
            case "look":
                assert told is not None
                place, where = self.earliest, "the earliest place that it can have"
                later = f", and never {shown(told.value)}" if told.value is not UNSET else ""
                if told.index is not UNSET:
                    place, where, later = told.index, "where it is said to be", ""
                held = shown(self.witness.store.key(self.witness.key).at(place))
                return f"{name}: after entry {place}, {where}, {key} holds {held}{later}"

    def _given(self) -> str:
        found = self.call.found
        if isinstance(found, Impossible):
            return "no answer, for text can't be put behind a number"
        return shown(found)

    def _versions(self) -> Iterator[Version]:
        """The key around where the operation can be: what it held at the earliest place, and then."""
        versions = [(0, "before all", self.initial)]
        store = Store(self.initial)
        for call in self.calls:
            store.execute(call.index, call.asked)
            value = store.key(self.witness.key).values[-1]
            versions.append((call.index, named(call), value))
        where = self.call.index or self.earliest
        at = max(n for n, (index, _, _) in enumerate(versions) if index <= where)
        for index, operation, value in versions[max(0, at - AROUND) : at + AROUND + 1]:
            if operation != "before all" or len(versions) <= AROUND:
                yield Version(index, operation, f"{self.witness.key} = {shown(value)}")

    def _notes(self) -> Iterator[str]:
        by = self.call.by
        if by is not None and self.kind in ("look", "order"):
            place = by.index or self.earliest
            entry = f"is entry {by.index}" if by.index else f"saw at least entry {place}"
            yield f"{named(by)} had returned before it was invoked, and {entry}"
        if again := self._second_execution():
            yield again
        if self.kind == "lost":
            for index in self.witness.links.without_effect(self.call.asked):
                why = "its session has ended by then, or its client has the response"
                yield f"entry {index} asks for it, and is not executed: {why}"

    def _second_execution(self) -> str | None:
        """The entry that asks for an operation once more, if executing that, too, gives what was told."""
        links, key, told = self.witness.links, self.witness.key, self.call.told
        if self.kind not in ("look", "answer") or told is None:
            return None
        first = {call.index: call for call in self.calls}
        again = links.repetitions({n: call.asked for n, call in first.items()})
        for index, repeats in islice(again, REPETITIONS):
            store = Store(self.initial)
            found: Any = None
            seen: Any = told.value
            fits = False
            for at, call in sorted([*first.items(), (index, first[repeats])], key=lambda x: x[0]):
                found = store.execute(at, call.asked)
                fits = fits or (call is self.call and at == call.index and found == seen)
            if self.kind == "look":
                fits = store.key(key).first(seen, False, self.earliest) is not None
            if fits:
                return (
                    f"entry {index} asks once more for entry {repeats}, {named(first[repeats])}; "
                    "had it been executed a second time, that would be the answer"
                )
        return None

    def _causes(self) -> Iterator[Cause]:
        """Where the leader appended what this is about."""
        links, asked = self.witness.links, self.call.asked
        if self.kind == "lost":
            if asked.digest is not UNSET and (found := appended(self.traces, asked.digest)):
                place, server, term = found
                what = f"{server} appended its entry in term {term}, and it wasn't committed"
                yield Cause(str(place), what)
            return
        for n in sorted({self.call.index, self.call.by.index if self.call.by else 0} - {0}):
            entry = links.entries[n - 1]
            if found := appended(self.traces, entry.value, entry.term):
                place, server, term = found
                yield Cause(str(place), f"{server} appended entry {n} in term {term}")


def appended(traces: Sequence[Path], digest: str, term: int | None = None) -> tuple[Place, str, int] | None:
    """The first event in which a leader appended such an entry, in this term or any: where, who, and when."""
    for path in traces:
        for lines, events in TraceFile.open(path).events(lenient=True):
            for line, e in zip(lines, events, strict=True):
                if e.entries and e.event != "restart":
                    for entry in e.entries:
                        if entry.value == digest and entry.term == (term or entry.term):
                            return Place(str(path), line), e.server, entry.term
    return None


def named(call: Call) -> str:
    """An operation for people: put blue of c2 (lines 4-7)."""
    if call.asked.operation in OF_A_BANK:
        seen: Any = UNSET if call.told is None else call.told.value
        answer = "" if seen is UNSET else f" -> {shown(seen)}"
        lines = f"lines {call.line}-{call.end}" if call.end else f"line {call.line}, no answer"
        return f"{call.asked.operation} {call.asked.value}{answer} of {call.asked.client} ({lines})"
    builder = Builder()
    place = Place(call.file, call.line)
    asked = asked_by(place, call.asked, call.line)
    if call.told is not None and call.told.outcome == "done":
        finish(builder, asked, Place(call.file, call.end), call.told, call.end)
        return str(builder.operations[0])
    if call.asked.operation == "get":
        return f"get of {asked.client} (line {call.line})"
    builder.unknown(asked)
    op: Operation = builder.operations[0]
    return f"{op.text} of {op.client} (line {call.line})" if call.told else str(op)
