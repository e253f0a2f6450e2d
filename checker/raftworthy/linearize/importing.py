"""Histories in other people's formats: what MIT's key-value store and Jepsen's etcd test log.

Both are Jepsen's events, one a line, in the order of one observer. A process has one operation under way.
:ok it was done; :fail it surely wasn't, or a cas found another value; :info nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from raftworthy.files import Place, Unusable
from raftworthy.linearize.history import Asked, Builder, History, Value

_KV = re.compile(
    r'\{:process (\d+), :type :(\w+), :f :(get|put|append), :key "(.*?)", :value (?:nil|"(.*)")\}\s*'
)
_ETCD = re.compile(r"INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(\w+)\s+:(\w+)\s+(\S.*?)\s*")
_PAIR = re.compile(r"\[(-?\d+|nil) (-?\d+|nil)\]")


class _Processes:
    """What each process has under way."""

    def __init__(self, path: Path, initial: Value) -> None:
        self.file = str(path)
        self.builder = Builder(initial)
        self.under_way: dict[str, Asked] = {}

    def invoke(self, asked: Asked) -> None:
        if asked.client in self.under_way:
            raise Unusable(
                Place(self.file, asked.line), f"process {asked.client} has another operation under way"
            )
        self.under_way[asked.client] = asked

    def end(self, process: str, kind: str, line: int) -> Asked:
        asked = self.under_way.pop(process, None)
        if asked is None or asked.kind != kind:
            raise Unusable(Place(self.file, line), f"process {process} has no {kind} under way")
        return asked


def read_porcupine_kv(path: Path, lines: Sequence[bytes]) -> History:
    """A log of get, put and append with keys; a key that isn't set reads as empty text."""
    processes = _Processes(path, "")
    for number, line in enumerate(lines, 1):
        found = _KV.fullmatch(line.decode(errors="surrogateescape"))
        if found is None:
            raise Unusable(Place(processes.file, number), "not an event of a get, put or append")
        process, kind, f, key, value = found.groups()
        match kind, f:
            case "invoke", ("get" | "put" | "append" as name):
                processes.invoke(Asked(process, name, key, value, None, number, processes.file, number))
            case "ok", _:
                asked = processes.end(process, f, number)
                processes.builder.returned(asked, number, number, value=value, told=True)
            case "info", _:
                processes.builder.unknown(processes.end(process, f, number))
            case "fail", _:
                processes.end(process, f, number)
                processes.builder.not_executed()
            case _:
                raise Unusable(Place(processes.file, number), f"no type of event is known as :{kind}")
    return processes.builder.history(processes.under_way.values())


def read_jepsen_etcd(path: Path, lines: Sequence[bytes]) -> History:
    """A log of read, write and cas of whole numbers on one register, among lines of others than clients."""
    processes = _Processes(path, None)
    skipped = 0
    names = {"read": "get", "write": "put", "cas": "cas"}
    for number, line in enumerate(lines, 1):
        found = _ETCD.fullmatch(line.decode(errors="surrogateescape"))
        if found is None:
            skipped += 1
            continue
        process, kind, f, value = found.groups()
        place = Place(processes.file, number)
        if f not in names:
            raise Unusable(place, f":{f} is no read, write or cas")
        match kind:
            case "invoke":
                processes.invoke(_asked(place, process, f, value))
            case "ok":
                asked = processes.end(process, names[f], number)
                seen = _number(place, value) if f == "read" else None
                processes.builder.returned(asked, number, number, value=seen, told=True)
            case "info":
                processes.builder.unknown(processes.end(process, names[f], number))
            case "fail":
                asked = processes.end(process, names[f], number)
                if f == "cas" and value != ":timed-out":
                    processes.builder.returned(asked, number, number, told=False)
                else:
                    processes.builder.not_executed()
            case _:
                raise Unusable(place, f"no type of event is known as :{kind}")
    history = processes.builder.history(processes.under_way.values(), skipped)
    if not history.operations:
        raise Unusable(processes.file, "no operation of a client is in it")
    return history


def _asked(place: Place, process: str, f: str, value: str) -> Asked:
    key, at = "register", (place.line, place.file, place.line)
    if f == "read":
        return Asked(process, "get", key, None, None, *at)
    if f == "write":
        return Asked(process, "put", key, _number(place, value), None, *at)
    pair = _PAIR.fullmatch(value)
    if pair is None:
        raise Unusable(place, f"a cas is of two numbers, [old new], not {value}")
    return Asked(process, "cas", key, _number(place, pair[2]), _number(place, pair[1]), *at)


def _number(place: Place, text: str) -> Value:
    try:
        return None if text == "nil" else int(text)
    except ValueError:
        raise Unusable(place, f"{text} is no whole number") from None
