"""Histories of a store that is linearizable, made from a seed: for measuring, and for tests.

Each operation takes effect at one moment between its invoke and its return. Some never return, and take
effect at any time later, or never. One seed gives one history.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from random import Random
from typing import Any

from raftworthy.linearize.history import IMPOSSIBLE, Effect, Value, after

KINDS = ("get", "put", "append", "cas", "delete")


def simulate(
    random: Random,
    operations: int,
    clients: int = 5,
    keys: int = 2,
    *,
    kinds: tuple[str, ...] = ("get", "put"),
    values: int | None = None,
    unknown: float = 0.02,
) -> Iterator[dict[str, Any]]:
    """The events of a history, in order, without its header.

    Args:
        random: decides everything.
        operations: how many are invoked.
        clients: how many are at work at a time.
        keys: how many keys there are.
        kinds: of get, put, append, cas, delete.
        values: so many different values are written, again and again; without it each is new.
        unknown: what part of the operations have no answer. Their clients go on under new names.
    """
    store: dict[str, Value] = {}
    # What is to come: time, number for ties, what, and who.
    agenda: list[tuple[float, int, str, dict[str, Any]]] = []
    numbers = iter(range(1 << 62))

    def plan(time: float, what: str, call: dict[str, Any]) -> None:
        heapq.heappush(agenda, (time, next(numbers), what, call))

    names = iter(range(1, 1 << 62))
    for _ in range(clients):
        plan(random.random(), "invoke", {"client": f"c{next(names)}", "seq": 1})
    asked = 0
    while agenda:
        now, _, what, call = heapq.heappop(agenda)
        who = {"client": call["client"], "seq": call["seq"]}
        if what == "invoke":
            if asked == operations:
                continue
            asked += 1
            call["asked"] = _question(random, asked, kinds, f"k{random.randrange(keys)}", values)
            yield {**who, "event": "invoke", **call["asked"]}
            lost = random.random() < unknown
            effect, back = sorted((now + random.expovariate(1), now + random.expovariate(1)))
            if not lost:
                plan(effect, "effect", call)
                plan(back, "return", call)
                plan(back + random.expovariate(1), "invoke", {**who, "seq": call["seq"] + 1})
            else:
                if random.random() < 0.5:
                    plan(effect + random.expovariate(0.1), "effect", call)
                plan(back, "unknown", call)
                plan(back, "invoke", {"client": f"c{next(names)}", "seq": 1})
        elif what == "effect":
            call["told"] = _answer(store, call["asked"])
        elif what == "return":
            yield {**who, "event": "return", **call["told"]}
        elif random.random() < 0.5:  # the others say nothing at all
            yield {**who, "event": "return", "outcome": "unknown"}


def _question(
    random: Random, number: int, kinds: tuple[str, ...], key: str, values: int | None
) -> dict[str, Any]:
    def value() -> str:
        return f"v{number}" if values is None else f"v{random.randrange(values)}"

    kind = random.choice(kinds)
    asked: dict[str, Any] = {"operation": kind, "key": key}
    if kind == "cas":
        asked["expected"] = f"v{random.randrange(values or number)}"
    if kind in ("put", "cas"):
        asked["value"] = value()
    if kind == "append":
        asked["value"] = f"{value()};"
    return asked


def _answer(store: dict[str, Value], asked: dict[str, Any]) -> dict[str, Any]:
    """Let an operation take effect, and say what its client will be told."""
    key, value = asked["key"], asked.get("value")
    state = store.get(key)
    match asked["operation"]:
        case "get":
            return {"value": state}
        case "put":
            store[key] = value
        case "append":
            text = after(Effect("append", None, value), state)
            assert text is not IMPOSSIBLE
            store[key] = text
        case "cas":
            if state != asked["expected"]:
                return {"swapped": False}
            store[key] = value
            return {"swapped": True}
        case "delete":
            store[key] = None
            return {"value": state}
    return {}
