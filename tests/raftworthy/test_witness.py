"""Clients' operations against the committed log: no false alarm, nothing overlooked, faults by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from raftworthy.linearize.checking import check
from raftworthy.linearize.reading import LINE, Line, assemble
from raftworthy.replay.reading import Place
from raftworthy.witness.checking import Refuted, Witness
from raftworthy.witness.links import Links


class Entry(NamedTuple):
    term: int
    value: str


def events(lines: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int, Line]]:
    for number, line in enumerate(lines, 2):
        yield "history", number, LINE.decode(msgspec.json.encode(line))


def refuted(lines: Sequence[dict[str, Any]], log: Sequence[str]) -> str | None:
    """What the witness finds wrong."""
    witness = Witness(Links([Entry(1, digest) for digest in log]))
    try:
        witness.take(events(lines))
    except Refuted as wrong:
        return wrong.kind
    witness.finish()
    return None


# --- against plain search ------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to five operations on two keys, in any order of their invokes and returns, with any answers."""
    count = draw(st.integers(1, 5))
    ends = draw(st.permutations([n for n in range(count) for _ in range(2)]))
    asked, lines = {}, []
    values = st.sampled_from([None, "v0", "v1", "v2"])
    for n in ends:
        who = {"client": f"c{n}", "seq": 1}
        if n not in asked:
            kind = draw(st.sampled_from(["get", "put"] * 3 + ["append", "cas", "delete"]))
            invoke = {"operation": kind, "key": draw(st.sampled_from("xxxy")), "digest": f"d{n}"}
            if kind in ("put", "cas"):
                invoke["value"] = f"v{n % 3}"
            if kind == "append":
                invoke["value"] = f"v{n % 3}"
            if kind == "cas":
                invoke["expected"] = draw(values)
            asked[n] = kind
            lines.append({**who, "event": "invoke", **invoke})
            continue
        told: dict[str, Any] = {}
        if asked[n] in ("get", "delete"):
            told["value"] = draw(values)
        if asked[n] == "cas":
            told["swapped"] = draw(st.booleans())
        outcome = draw(st.sampled_from(["done"] * 5 + ["unknown", "not_executed", None]))
        if outcome is not None:
            lines.append({**who, "event": "return", **told, "outcome": outcome})
    return lines


def linearizable(lines: Sequence[dict[str, Any]]) -> bool:
    """What the search says that knows of no log."""
    history = assemble([(Place(file, number), line) for file, number, line in events(lines)], None)
    return check(history).verdict == "linearizable"


class Asked(NamedTuple):
    """An operation of a history."""

    invoke: dict[str, Any]
    told: dict[str, Any]
    invoked: int
    returned: float

    @property
    def outcome(self) -> str:
        return str(self.told.get("outcome", "unknown"))

    @property
    def digest(self) -> str:
        return str(self.invoke["digest"])


def asked(lines: Sequence[dict[str, Any]]) -> list[Asked]:
    ends = {line["client"]: (n, line) for n, line in enumerate(lines) if line["event"] == "return"}
    return [
        Asked(line, *((told, n, end) if told.get("outcome") != "unknown" else ({}, n, float("inf"))))
        for n, line in enumerate(lines)
        if line["event"] == "invoke"
        for end, told in [ends.get(line["client"], (float("inf"), {}))]
    ]


def changes(lines: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The operations that may have entries, and those that must."""
    may, must = [], []
    for op in asked(lines):
        refused = op.told.get("swapped") is False
        if op.invoke["operation"] == "get" or op.outcome == "not_executed":
            continue
        (may if refused or op.outcome == "unknown" else must).append(op.digest)
    return may, must


def possible_logs(lines: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Every order of entries that the operations may have."""
    may, must = changes(lines)
    for count in range(len(may) + 1):
        for chosen in combinations(may, count):
            yield from permutations([*must, *chosen])


def executed(op: Asked, store: dict[str, Any]) -> bool:
    """Let an operation take effect in a map; whether that is what it was told."""
    key, found = op.invoke["key"], store.get(op.invoke["key"])
    match op.invoke["operation"]:
        case "put":
            store[key] = op.invoke["value"]
        case "append":
            store[key] = (found or "") + op.invoke["value"]
        case "delete":
            store[key] = None
        case "cas" if found == op.invoke["expected"]:
            store[key] = op.invoke["value"]
    known = op.outcome == "done"
    if known and "swapped" in op.told:
        return bool(op.told["swapped"] is (found == op.invoke["expected"]))
    return not known or "value" not in op.told or bool(op.told["value"] == found)


def explained(lines: Sequence[dict[str, Any]], log: Sequence[str]) -> bool:
    """Whether any order at all has the log's operations in the log's order, and gives what was told."""
    first = list(dict.fromkeys(log))
    ops = asked(lines)
    for op in ops:
        changes = op.invoke["operation"] != "get" and op.told.get("swapped") is not False
        if (op.outcome == "not_executed" and op.digest in first) or (
            op.outcome == "done" and changes and op.digest not in first
        ):
            return False
    placed = [op for op in ops if op.outcome == "done" or op.digest in first]
    for order in permutations(placed):
        store: dict[str, Any] = {}
        if (
            [op.digest for op in order if op.digest in first] == first
            and all(a.invoked < b.returned for n, b in enumerate(order) for a in order[:n])
            and all(executed(op, store) for op in order)
        ):
            return True
    return False


@given(histories())
@settings(deadline=None, max_examples=250)
def test_some_log_explains_a_history_exactly_if_it_is_linearizable(lines: list[dict[str, Any]]) -> None:
    """The search needs no log; the witness needs no search."""
    assert linearizable(lines) is any(refuted(lines, log) is None for log in possible_logs(lines))


@given(histories(), st.data())
@settings(deadline=None, max_examples=400)
def test_a_log_is_held_against_a_history_as_if_all_orders_were_tried(
    lines: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Herlihy and Wing (1990), with the order of what is in the log given. Entries may come twice."""
    may, must = changes(lines)
    chosen = data.draw(st.lists(st.sampled_from(may), unique=True)) if may else []
    log = data.draw(st.permutations([*must, *chosen]))
    if log and data.draw(st.booleans()):  # an entry is missing, or there again
        log[data.draw(st.integers(0, len(log) - 1))] = data.draw(st.sampled_from(log))
    assert (refuted(lines, log) is None) is explained(lines, log)
