"""Reading clients' events one after the other, from histories and from traces, without keeping them.

A line is a client's if it has `invoke` or `return` in it and no server. A history is a file of clients'
events alone: its header names no servers.

    number  of a line in its file
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import UNSET, UnsetType

from raftworthy.files import CHUNK, Place, Unusable, open_trace, read_header_line, unreadable
from raftworthy.linearize.history import Value
from raftworthy.linearize.reading import LINE, Line
from raftworthy.replay.reading import is_clients

Event = tuple[str, int, Line]  # with its file and number


class _Header(msgspec.Struct):
    initial: Value | UnsetType = UNSET
    servers: Any = UNSET


def initial_value(paths: Iterable[Path]) -> Value:
    """What a key holds that nobody has written, as the headers say.

    Raises:
        Unusable: they don't agree.
    """
    told: dict[Value, Path] = {}
    for path in paths:
        with open_trace(path) as file:
            header = _header(path, file)
        if header.initial is not UNSET:
            told.setdefault(header.initial, path)
    if len(told) > 1:
        (one, path), (other, their) = list(told.items())[:2]
        raise Unusable(str(their), f"initial is {other!r}, and in {path} {one!r}; let the files agree")
    return next(iter(told), None)


def _header(path: Path, file: IO[bytes]) -> _Header:
    try:
        return msgspec.json.decode(read_header_line(path, file), type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(Place(str(path), 1), f"the first line is not a header ({error})") from error


def client_events(paths: Sequence[Path]) -> Iterator[Event]:
    """The events of clients in some files, in the order in which they happened.

    That is the order of their times, if they have any, an invoke before a return; else that of the lines.

    Raises:
        Unusable: a line is no event, or nothing tells the order.
    """
    if len(paths) == 1:
        yield from _by_time(_lines(paths[0]), needed=False)
        return
    streams = [_by_time(_lines(path), needed=True) for path in paths]
    yield from heapq.merge(*streams, key=_moment)


def _moment(event: Event) -> Any:
    return event[2].time, event[2].event != "invoke"


def _by_time(events: Iterator[Event], *, needed: bool) -> Iterator[Event]:
    """Events of one file, those of the same time with invokes before returns.

    Raises:
        Unusable: times go back, or some have none.
    """
    timed: bool | None = True if needed else None
    latest = float("-inf")
    for time, same in groupby(events, key=lambda event: event[2].time):
        if time is None:
            for event in same:
                if timed:
                    what = "several files can be put in order only by times of one clock"
                    what = what if needed else "other events have one; give all or none"
                    raise Unusable(Place(*event[:2]), f"no time: {what}")
                yield event
            timed = False
            continue
        together = list(same)
        if timed is False or time < latest:
            what = (
                "time goes back: sort the lines"
                if timed
                else "a time, and other events have none; give all or none"
            )
            raise Unusable(Place(*together[0][:2]), what)
        timed, latest = True, time
        yield from sorted(together, key=_moment) if len(together) > 1 else together


def _lines(path: Path) -> Iterator[Event]:
    """The clients' events of one file, as they stand."""
    name, number = str(path), 2
    with open_trace(path) as file:
        alone = _header(path, file).servers is UNSET
        while True:
            try:
                lines = file.readlines(CHUNK)
            except unreadable() as error:
                raise Unusable(Place(name, number), f"the packed file breaks off: {error}") from error
            if not lines:
                return
            numbers = [n for n, text in enumerate(lines, number) if alone or is_clients(text)]
            texts = [lines[n - number] for n in numbers]
            if texts and not texts[-1].endswith(b"\n") and _is_cut_off(texts[-1]):
                # By a kill. An invoke is written before its request is sent, and a return that
                # isn't there leaves its outcome unknown, so nothing wrong comes of leaving it out.
                texts.pop()
            for n, line in zip(numbers, _decoded(name, numbers, texts), strict=False):
                if line.client is None:
                    raise Unusable(Place(name, n), "an event of nobody: it has neither client nor server")
                yield name, n, line
            number += len(lines)


def _is_cut_off(text: bytes) -> bool:
    try:
        LINE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    return False


def _decoded(name: str, numbers: Sequence[int], texts: Sequence[bytes]) -> list[Line]:
    try:
        return LINE.decode_lines(b"".join(texts))
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    for number, text in zip(numbers, texts, strict=False):
        try:
            LINE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unusable(Place(name, number), f"not an event: {error}") from error
    raise AssertionError("lines that can be read one by one only")
