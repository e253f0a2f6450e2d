"""Histories of clients: what has an order, what has none, and what is said about it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftworthy.linearize import search
from raftworthy.linearize.checking import check, replay
from raftworthy.linearize.explain import explain
from raftworthy.linearize.history import IMPOSSIBLE, Effect, History, Impossible, Operation, Value, after
from raftworthy.linearize.reading import read_history
from raftworthy.linearize.reference import find_order
from raftworthy.linearize.search import Search
from raftworthy.linearize.simulate import KINDS, simulate


def operation(effect: Effect, invoked: int, returned: int | None) -> Operation:
    text = f"{effect.kind} {effect.seen} {effect.new}"
    return Operation(f"c{invoked}", text, "x", effect, invoked, returned, "h", invoked, returned)


def every_order_fails(operations: Sequence[Operation], initial: Value) -> bool:
    """By all permutations of all that may have happened."""
    known = [op for op in operations if op.returned is not None]
    lost = [op for op in operations if op.returned is None]
    for size in range(len(lost) + 1):
        for some in itertools.combinations(lost, size):
            for order in itertools.permutations([*known, *some]):
                if keeps_time(order) and explains(order, initial):
                    return False
    return True


def keeps_time(order: Sequence[Operation]) -> bool:
    return not any(
        late.returned is not None and late.returned < early.invoked
        for early, late in itertools.combinations(order, 2)
    )


def explains(order: Sequence[Operation], initial: Value) -> bool:
    state: Value | Impossible = initial
    for op in order:
        assert not isinstance(state, Impossible)
        state = after(op.effect, state)
        if state is IMPOSSIBLE:
            return False
    return True


EFFECTS = {
    "registers": st.one_of(
        st.builds(Effect, st.just("read"), st.sampled_from([None, "a", "b", "c"])),
        st.builds(Effect, st.just("write"), st.none(), st.sampled_from(["a", "b", "c", None])),
    ),
    "all": st.one_of(
        st.builds(Effect, st.sampled_from(["read", "differs"]), st.sampled_from([None, "a", "b", "ab"])),
        st.builds(Effect, st.just("write"), st.none(), st.sampled_from(["a", "b", None])),
        st.builds(Effect, st.just("swap"), st.sampled_from([None, "a"]), st.sampled_from(["a", "b"])),
        st.builds(Effect, st.just("append"), st.none(), st.sampled_from(["a", "b"])),
    ),
}


@st.composite
def histories(draw: st.DrawFn, most: int, effects: st.SearchStrategy[Effect]) -> list[Operation]:
    """Any operations whatever, by their invokes."""
    size = draw(st.integers(1, most))
    ends = draw(st.permutations(range(2 * size)))
    made = []
    for i in range(size):
        invoked, returned = sorted(ends[2 * i : 2 * i + 2])
        lost = draw(st.integers(0, 4)) == 0
        made.append(operation(draw(effects), invoked, None if lost else returned))
    return sorted(made, key=lambda op: op.invoked)


def has_order(operations: Sequence[Operation], initial: Value = None) -> bool:
    """The search's answer; an order that it finds is replayed."""
    found = Search(operations, initial)
    answer = found.run(1_000_000)
    assert answer is not None
    if answer:
        replay(operations, found.order, initial)
    return answer


# --- the verdict is right ------------------------------------------------------


@pytest.mark.parametrize("kind", EFFECTS)
def test_the_verdict_is_that_of_all_permutations(kind: str) -> None:
    @settings(max_examples=400, deadline=None)
    @given(histories(5, EFFECTS[kind]), st.sampled_from([None, "a"]))
    def compare(operations: list[Operation], initial: Value) -> None:
        assert has_order(operations, initial) is not every_order_fails(operations, initial)

    compare()


@pytest.mark.parametrize("kind", EFFECTS)
def test_the_verdict_is_that_of_the_plain_search(kind: str) -> None:
    @settings(max_examples=400, deadline=None)
    @given(histories(9, EFFECTS[kind]))
    def compare(operations: list[Operation]) -> None:
        assert has_order(operations) is (find_order(operations) is not None)

    compare()


def record(path: Path, events: Sequence[dict[str, Any]], **header: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in [{"raftworthy": 1, **header}, *events]))
    return path


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), many=st.booleans(), values=st.sampled_from([None, 2, 5]))
@example(seed=1, many=True, values=None)
def test_what_a_linearizable_store_did_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, seed: int, many: bool, values: int | None
) -> None:
    random = Random(seed)
    kinds = KINDS if many else ("get", "put")
    events = list(simulate(random, 60, clients=4, keys=2, kinds=kinds, values=values, unknown=0.1))
    history = read_history([record(tmp_path_factory.mktemp("h") / "h.ndjson", events)])
    assert check(history).verdict == "linearizable", f"seed {seed}"


def changed(events: list[dict[str, Any]], random: Random) -> list[dict[str, Any]]:
    """The same with one read of something that was written at some other time."""
    events = [dict(event) for event in events]
    reads = [e for e in events if e["event"] == "return" and "value" in e]
    written = [e["value"] for e in events if e["event"] == "invoke" and e["operation"] == "put"]
    if reads and written:
        random.choice(reads)["value"] = random.choice(written)
    return events


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), values=st.sampled_from([None, 3]))
def test_a_history_with_one_changed_answer_is_judged_as_the_plain_search_judges(
    tmp_path_factory: pytest.TempPathFactory, seed: int, values: int | None
) -> None:
    random = Random(seed)
    kinds = ("get", "put", "cas")
    events = changed(list(simulate(random, 14, clients=3, keys=1, kinds=kinds, values=values)), random)
    history = read_history([record(tmp_path_factory.mktemp("h") / "h.ndjson", events)])
    plain = all(find_order(ops) is not None for ops in history.by_key().values())
    assert (check(history).verdict == "linearizable") is plain, f"seed {seed}"


@pytest.mark.parametrize("shortcut", ["alive", "stranded", "twins", "hide"])
def test_a_wrong_shortcut_would_be_noticed(shortcut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the search's shortcuts, taken where it must not be."""
    if shortcut == "alive":
        monkeypatch.setattr(search._Uses, "alive", lambda self, value, k: False)
    elif shortcut == "stranded":
        monkeypatch.setattr(Search, "_stranded", lambda self, k, state, new, by, mask: state != new)
    elif shortcut == "hide":
        monkeypatch.setattr(Search, "_hide", lambda self, k, mask, junk: (1 << 20) - 1)
    else:
        monkeypatch.setattr(search._Call, "__lt__", lambda self, other: self.until > other.until)
    random = Random(1)
    effects = [Effect("write", None, v) for v in "ab"] + [Effect("read", v) for v in "ab"]
    for _ in range(2_000):
        ends = random.sample(range(10), 10)
        pairs = [sorted(ends[i : i + 2]) for i in range(0, 10, 2)]
        operations = [operation(random.choice(effects), a, b) for a, b in sorted(pairs)]
        try:
            if has_order(operations) is not (find_order(operations) is not None):
                return
        except AssertionError:  # an order that isn't one
            return
    pytest.fail("nothing was noticed")


# --- what is said about it -----------------------------------------------------


@pytest.mark.parametrize("kind", EFFECTS)
def test_the_operations_named_have_no_order_and_none_can_be_left_out(kind: str) -> None:
    def free(op: Operation) -> list[Operation]:
        return [] if op.effect.only_looks else [operation(op.effect, -1, None)]

    @settings(max_examples=300, deadline=None)
    @given(histories(7, EFFECTS[kind]))
    def judge(operations: list[Operation]) -> None:
        found = Search(operations)
        if found.run(1_000_000):
            return
        x = explain(operations, found.deepest, None)
        assert x.minimal
        end = x.culprit.returned
        assert end is not None
        others = [f for op in operations if op.invoked < end and op not in x.core for f in free(op)]
        if "in which each" in x.reason or "either order" in x.reason:  # the usual reasons need less
            core = [op for op in operations if any(op.invoked == c.invoked for c in x.core)]
            others = [f for op in operations if op.invoked < end and op not in core for f in free(op)]
            for op in x.core:
                rest = [*others, *free(op), *(other for other in x.core if other is not op)]
                assert find_order(rest) is not None, f"{op} is not needed"
        assert find_order([*others, *x.core]) is None

    judge()


def lines(*events: str) -> list[dict[str, Any]]:
    """Events in short: c1 put 3 / c1 ok / c2 get / c2 3; a client that is asked again gets its next seq."""
    seqs: dict[str, int] = {}
    made = []
    for event in events:
        client, what, *rest = event.split()
        value: dict[str, Any] = {}
        if rest:
            value["value"] = None if rest[0] == "null" else rest[0]
        if what in ("put", "get"):
            seqs[client] = seqs.get(client, 0) + 1
            made.append({"event": "invoke", "operation": what, "key": "x", **value})
        elif what == "?":
            made.append({"event": "return", "outcome": "unknown"})
        else:
            made.append({"event": "return", **value})
        made[-1] |= {"client": client, "seq": seqs[client]}
    return made


STALE = ("a put three", "a ok", "b put four", "b ok", "c get", "c ok three")
LOST = ("a put three", "a ok", "b get", "b ok null")
NEVER = ("a put three", "b get", "b ok five", "a ok")
BACK = ("a put one", "a ok", "b put two", "c get", "c ok two", "d get", "d ok one", "b ?")


PUT, END = "put four of b (lines 4-5) had ended before it began", "and nobody wrote"
REASONS = {
    "stale read": (
        STALE,
        f"get of c (lines 6-7) returned three, but {PUT}, {END} three afterwards",
        [(2, 3), (4, 5), (6, 7)],
    ),
    "lost write": (
        LOST,
        "get of b (lines 4-5) returned nothing, but put three of a (lines 2-3) had ended before it began, "
        "and nobody removed it",
        [(2, 3), (4, 5)],
    ),
    "never written": (NEVER, "get of b (lines 3-4) returned five, which nobody had written", [(3, 4)]),
    "back in time": (
        BACK,
        "get of d (lines 7-8) returned one, but get -> two of c (lines 5-6) had found that gone before it "
        f"began, {END} one afterwards",
        [(2, 3), (5, 6), (7, 8)],
    ),
}


@pytest.mark.parametrize(("events", "said", "core"), REASONS.values(), ids=REASONS)
def test_the_reason_names_the_lines(
    tmp_path: Path, events: Sequence[str], said: str, core: list[tuple[int, int]]
) -> None:
    noise = lines("y put seven", "y ok", "z get", "z ok seven")
    for event in noise:
        if "key" in event:
            event["key"] = "other"
    path = record(tmp_path / "h.ndjson", [*lines(*events), *noise])
    result = check(read_history([path]))
    assert result.verdict == "not linearizable"
    assert result.not_linearizable == ["x"]
    x = result.explanation
    assert x is not None
    assert x.reason == said
    assert [(op.first, op.last) for op in x.core] == core
    told = str(x).splitlines()
    assert told[0] == f"{path}:{core[-1][1]}: error: key x is not linearizable: {said}"
    assert [line.split("lines ")[1] for line in told[1 : 1 + len(core)]] == [f"{a}-{b}" for a, b in core]


@pytest.mark.parametrize(
    "events",
    [
        ("a put three", "b get", "b ok null", "a ok"),
        ("a put three", "b get", "b ok three", "a ok"),
        ("a put three", "a ?", "b get", "b ok null", "b get", "b ok three"),
        ("a put three", "b get", "b ok null", "b get", "b ok three"),
        ("a put three", "a ?", "b put four", "b ok", "b get", "b ok three"),
    ],
    ids=["before", "after", "late", "no return", "over another"],
)
def test_what_is_under_way_or_unknown_may_have_happened_or_not(tmp_path: Path, events: Sequence[str]) -> None:
    assert check(read_history([record(tmp_path / "h.ndjson", lines(*events))])).verdict == "linearizable"


def test_an_unknown_write_happens_once_at_most(tmp_path: Path) -> None:
    events = (
        "a put one",
        "a ?",
        "b get",
        "b ok one",
        "b put two",
        "b ok",
        "b get",
        "b ok two",
        "b get",
        "b ok one",
    )
    result = check(read_history([record(tmp_path / "h.ndjson", lines(*events))]))
    assert result.verdict == "not linearizable"


@pytest.mark.parametrize("kinds", [("get", "put", "cas"), ("get", "append")])
def test_a_long_history_is_explained_by_a_few_of_its_operations(
    tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    events = list(simulate(Random(5), 600, clients=6, keys=1, kinds=kinds, values=4, unknown=0))
    stale = lines("y put fresh", "y ok", "z get", "z ok v1;")
    for event in stale:
        if "key" in event:
            event["key"] = "k0"
    x = check(read_history([record(tmp_path / "h.ndjson", [*events, *stale])])).explanation
    assert x is not None
    assert x.culprit.client == "z"
    assert len(x.core) <= 2


def subset_sum() -> list[Operation]:
    """A key that takes long: appends of even lengths that may have happened, and a read of an odd length."""
    lost = [operation(Effect("append", None, "a" * (2 << i)), i, None) for i in range(13)]
    return [*lost, operation(Effect("read", "a" * ((2 << 13) - 1)), 201, 202)]


def test_when_time_is_up_the_verdict_is_undecided() -> None:
    ticks = itertools.count()
    result = check(History(subset_sum()), seconds=20, clock=lambda: next(ticks))
    assert (result.verdict, result.exit_code, result.undecided) == ("undecided", 2, ["x"])
    assert str(result).splitlines()[-2:] == ["undecided: 1 key, x; give more --seconds", "undecided"]


def test_a_hard_key_does_not_keep_others_from_an_answer() -> None:
    ends = range(302, 402, 2)
    easy = [Operation("c", "get", "y", Effect("read"), end, end + 1, "h", 1, 2) for end in ends]
    easy.append(Operation("c", "get -> odd", "y", Effect("read", "odd"), 500, 501, "h", 1, 2))
    ticks = itertools.count()
    result = check(History([*subset_sum(), *easy]), seconds=30, clock=lambda: next(ticks))
    assert (result.undecided, result.not_linearizable) == (["x"], ["y"])
    assert result.verdict == "not linearizable"
