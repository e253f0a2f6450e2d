"""Reading histories: lines of invokes and returns, put together to operations.

The format is docs/linearize.md: events of clients as they can stand in a trace, too, beside those of servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from raftworthy.files import BYTE_ORDER_MARKS, VERSION, Place, Unusable, open_trace, unreadable
from raftworthy.linearize.history import Asked, Builder, History, Value

Format = Literal["native", "porcupine-kv", "jepsen-etcd"]


class Header(msgspec.Struct):
    """The first line of a history, and of a trace that holds one."""

    raftworthy: int
    initial: Value = None


class Line(msgspec.Struct, gc=False):
    """A client's event; or a server's, which has no client."""

    event: str
    client: str | None = None
    seq: int = 0
    operation: Literal["get", "put", "append", "cas", "delete", "deposit", "interest"] | UnsetType = UNSET
    key: str | UnsetType = UNSET
    value: Value | UnsetType = UNSET
    expected: Value | UnsetType = UNSET
    outcome: Literal["done", "unknown", "not_executed"] = "done"
    swapped: bool | UnsetType = UNSET
    # For who has the servers' traces, too: what its entry is called, the index at which it took effect.
    digest: str | UnsetType = UNSET
    session: int | UnsetType = UNSET
    sequence: int | UnsetType = UNSET
    index: int | UnsetType = UNSET
    time: float | None = None
    server: Any = UNSET


LINE = msgspec.json.Decoder(Line)
OF_A_BANK = ("deposit", "interest")  # what they leave follows from what they find


def client_event() -> type[msgspec.Struct]:
    """A client's event as the schema of traces has it."""
    of_clients = {"event": Literal["invoke", "return"], "client": str}
    fields = [f for f in msgspec.structs.fields(Line) if f.name != "server"]
    required = [(f.name, of_clients[f.name]) for f in fields if f.name in of_clients]
    optional = [(f.name, f.type, f.default) for f in fields if f.name not in of_clients]
    return msgspec.defstruct("ClientEvent", [*required, *optional])


def read_history(files: Sequence[Path], form: Format | None = None) -> History:
    """The operations in some files.

    Raises:
        Unusable: a file can't be read, or doesn't make sense; the message says where and why.
    """
    from raftworthy.linearize.importing import read_jepsen_etcd, read_porcupine_kv

    texts = {path: _lines(path) for path in files}
    forms = {form or recognise(path, lines) for path, lines in texts.items()}
    if forms == {"native"}:
        return _read_native(texts)
    if len(texts) > 1:
        raise Unusable(str(files[1]), "one file at a time, please: only native histories can be put together")
    (path, lines), read = (
        texts.popitem(),
        {"porcupine-kv": read_porcupine_kv, "jepsen-etcd": read_jepsen_etcd},
    )
    return read[forms.pop()](path, lines)


def recognise(path: Path, lines: Sequence[bytes]) -> Format:
    """The format of a file, from its first line."""
    first = lines[0].lstrip() if lines else b""
    if first.startswith(b"{:"):
        return "porcupine-kv"
    if first.startswith(b"INFO") and b"jepsen" in first:
        return "jepsen-etcd"
    if first.startswith(b"{"):
        return "native"
    raise Unusable(Place(str(path), 1), "no format that is known; name one with --format")


def _lines(path: Path) -> list[bytes]:
    try:
        with open_trace(path) as file:
            lines = file.read().split(b"\n")
    except unreadable() as error:
        raise Unusable(str(path), f"can't be read: {error}") from error
    if lines[0].startswith(BYTE_ORDER_MARKS):
        raise Unusable(Place(str(path), 1), "begins with a byte order mark; write plain UTF-8 without one")
    if not lines[-1]:
        lines.pop()
    elif len(lines) > 1 and lines[-1].startswith(b"{"):
        # Cut off by a kill, perhaps. An invoke is written before its request is sent, and a
        # return that isn't there leaves its outcome unknown, so nothing wrong comes of it.
        try:
            LINE.decode(lines[-1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            if not lines[-1].startswith(b"{:"):
                lines.pop()
    if not lines:
        raise Unusable(str(path), "the file is empty; nothing can be said about no operations")
    return lines


# --- the native format -----------------------------------------------------------


def _read_native(texts: dict[Path, list[bytes]]) -> History:
    events: list[tuple[Place, Line]] = []
    initials = set()
    skipped = 0
    for path, lines in texts.items():
        initials.add(_header(path, lines[0]).initial)
        for number, line in enumerate(_decode(path, lines[1:]), 2):
            if line.client is not None:
                events.append((Place(str(path), number), line))
            elif line.server is not UNSET:
                skipped += 1
            else:
                raise Unusable(
                    Place(str(path), number), "an event of nobody: it has neither client nor server"
                )
    if len(initials) > 1:
        raise Unusable(str(next(iter(texts))), f"the files don't agree on the initial value: {initials}")
    history = assemble(_in_order(events, len(texts)), initials.pop())
    history.skipped = skipped
    if not history.operations and not history.left_out:
        raise Unusable(str(next(iter(texts))), "no operation of a client is in it")
    return history


def _header(path: Path, line: bytes) -> Header:
    place = Place(str(path), 1)
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(
            place, f'the first line is not a header ({error}); it should read {{"raftworthy":{VERSION}}}'
        ) from error
    if header.raftworthy != VERSION:
        raise Unusable(place, f"version {header.raftworthy} is not known; this reads version {VERSION}")
    return header


def _decode(path: Path, lines: list[bytes]) -> list[Line]:
    try:
        events = LINE.decode_lines(b"\n".join(lines))
        if len(events) == len(lines):
            return events
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    for number, line in enumerate(lines, 2):
        try:
            LINE.decode(line)
        except msgspec.ValidationError as error:
            raise Unusable(Place(str(path), number), f"not an event: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = f"not JSON: {error}" if line.strip() else "a blank line; remove it"
            raise Unusable(Place(str(path), number), what) from error
    raise AssertionError("lines that can be read one by one only")


def _in_order(events: list[tuple[Place, Line]], files: int) -> list[tuple[Place, Line]]:
    """The events by their times, if they have them, an invoke before a return; else as they stand."""
    timed = [line.time is not None for _, line in events]
    if not any(timed):
        if files > 1:
            raise Unusable(
                events[0][0], "no time: several files can be put in order only by times of one clock"
            )
        return events
    if not all(timed):
        raise Unusable(events[timed.index(False)][0], "no time, and other events have one; give all or none")
    return sorted(events, key=lambda e: (e[1].time, e[1].event != "invoke"))


def assemble(events: list[tuple[Place, Line]], initial: Value) -> History:
    """The operations that clients' events in order make.

    Raises:
        Unusable: they don't belong together.
    """
    builder = Builder(initial)
    under_way: dict[tuple[str, int], Asked] = {}
    ended: set[tuple[str, int]] = set()
    for position, (place, line) in enumerate(events):
        assert line.client is not None
        who = (line.client, line.seq)
        if line.event == "invoke":
            if who in under_way or who in ended:
                raise Unusable(
                    place, f"{line.client} has invoked seq {line.seq} before; number its operations"
                )
            under_way[who] = asked_by(place, line, position)
        elif line.event == "return":
            asked = under_way.pop(who, None)
            if asked is None:
                why = "has returned before" if who in ended else "was not invoked before"
                raise Unusable(place, f"seq {line.seq} of {line.client} {why}")
            if asked.file != place.file:
                raise Unusable(place, f"was invoked in {asked.file}; a client's events belong in one file")
            ended.add(who)
            finish(builder, asked, place, line, position)
        else:
            raise Unusable(place, f'a client\'s event is "invoke" or "return", not "{line.event}"')
    return builder.history(under_way.values())


def wrong_invoke(line: Line) -> str | None:
    """What an invoke lacks."""
    operation = line.operation
    if operation is UNSET or line.key is UNSET:
        return "an invoke needs operation and key"
    if operation in ("put", "append", "cas", *OF_A_BANK) and line.value is UNSET:
        return f"the invoke of a {operation} needs a value"
    if operation == "append" and not isinstance(line.value, str):
        return f"text is appended, not {line.value!r}"
    if operation in OF_A_BANK and not isinstance(line.value, int):
        return f"a number is added to a balance, not {line.value!r}"
    if operation == "cas" and line.expected is UNSET:
        return "the invoke of a cas needs expected, the value that it replaces"
    return None


def wrong_return(operation: str, line: Line) -> str | None:
    """What the return of an operation that was done lacks."""
    if operation == "get" and line.value is UNSET:
        return "the return of a get needs the value found; null if there was none"
    if operation == "cas" and line.swapped is UNSET:
        return "the return of a cas needs swapped, true or false"
    return None


def asked_by(place: Place, line: Line, position: int) -> Asked:
    """What an invoke asks for.

    Raises:
        Unusable: it lacks something.
    """
    if wrong := wrong_invoke(line):
        raise Unusable(place, wrong)
    assert line.client is not None
    assert line.operation is not UNSET
    if line.operation == "deposit" or line.operation == "interest":
        what = "no order is searched for; beside servers' traces raftworthy replay takes it"
        raise Unusable(place, f"of a {line.operation} {what}")
    assert line.key is not UNSET
    value = None if line.value is UNSET else line.value
    expected = None if line.expected is UNSET else line.expected
    return Asked(line.client, line.operation, line.key, value, expected, position, place.file, place.line)


def finish(builder: Builder, asked: Asked, place: Place, line: Line, position: int) -> None:
    """Put an operation into a history whose return, or the word that nobody knows, is at a position.

    Raises:
        Unusable: the return lacks something.
    """
    if line.outcome == "unknown":
        builder.unknown(asked)
    elif line.outcome == "not_executed":
        builder.not_executed()
    elif wrong := wrong_return(asked.kind, line):
        raise Unusable(place, wrong)
    else:
        told = line.value is not UNSET if asked.kind != "cas" else line.swapped is True
        value = None if line.value is UNSET else line.value
        builder.returned(asked, position, place.line, value=value, told=told)
