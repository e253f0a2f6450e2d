"""The record of what may be left out says what Z3 says, of the very questions that it is about."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
pytest.importorskip("z3")

from raftspec.mutants import Mutant
from raftspec.properties import raft
from raftworthy.cli import app
from raftworthy.explore import choosing, natively
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import Case
from raftworthy.explore.identity import key
from raftworthy.explore.means import Means
from raftworthy.explore.model import Model
from raftworthy.explore.recording import asked, changed, questions
from raftworthy.reduce import recorded as record
from raftworthy.reduce.permits import Permits
from raftworthy.reduce.recorded import Row, read, recorded

FIGURE_8 = Bounds(max_term=4, commands=2)
SEED = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(random.randrange(1 << 32)))  # the same for all workers
ROWS = read().rows
SOME = ROWS if "RAFTWORTHY_ALL_PERMITS" in os.environ else random.Random(SEED).sample(ROWS, 1)


def differs(row: Row, permits: Permits, found: Permits) -> str:
    """What is wrong with an entry, if Z3 permits what was found now."""
    model = changed(row.change, row.within())
    if key(model, model.properties()) != row.key:
        return "it is of another specification: raftworthy bench explore --record-permits"
    said, says = (replace(p, seconds=0.0, questions=0, recorded=False) for p in (permits, found))
    return "" if said == says else f"recorded: {said}; Z3 now: {says}"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    record._known.cache_clear()
    yield
    record._known.cache_clear()


@pytest.mark.parametrize("row", SOME, ids=lambda row: f"{row.change} {row.bounds}")
def test_what_is_recorded_is_what_z3_permits(row: Row) -> None:
    """A different entry each time, or with RAFTWORTHY_ALL_PERMITS=1 all of them. A wrong one is noticed."""
    right, found = read().answers[row.answer], asked(row.change, row.within())
    again = f"RAFTWORTHY_ALL_PERMITS=1 pytest tests/raftworthy/test_recorded.py -k '{row.change} and what_z3'"
    assert not differs(row, right, found), again
    more = replace(right, eager=True, clock=("current_term", "term"), forgotten=(*right.forgotten, "log"))
    assert differs(row, more, found)
    assert differs(replace_key(row), right, found)


def replace_key(row: Row) -> Row:
    return Row(row.change, row.bounds, row.key[::-1], row.answer)


def test_the_record_is_of_the_conditions_that_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it counts for nothing, and Z3 is asked."""
    assert read().conditions == record.conditions(), "try: raftworthy bench explore --record-permits"
    assert {(row.change, row.within()) for row in ROWS} <= set(questions())
    model = changed("commit.current_term", FIGURE_8)
    assert recorded(model, model.properties()) is not None
    record._known.cache_clear()
    monkeypatch.setattr(record, "conditions", lambda: "others")
    assert recorded(model, model.properties()) is None


def test_what_is_recorded_of_one_specification_permits_nothing_of_another() -> None:
    """Whatever differs: a rule, a bound, a property, or an action that has the same name."""
    right = changed("commit.current_term", FIGURE_8)
    names = right.properties()
    assert recorded(right, names) is not None
    assert recorded(right, names[1:]) is None
    assert recorded(Model(raft, replace(FIGURE_8, max_log=2), ["commit.current_term"]), names) is None
    assert recorded(Model(raft, FIGURE_8, ["commit.current_term", "vote.refuse"]), names) is None
    other = Mutant("made up", "", "", actions={"restart": raft.actions["timeout"].function})
    assert recorded(Model(raft, FIGURE_8, ["commit.current_term"], other), names) is None


def test_what_is_recorded_is_neither_asked_nor_tried_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natively, "permits_for", None)
    monkeypatch.setattr(natively, "at_sight", None)
    found = choosing.explore_with(
        Case(FIGURE_8), "native", text=None, find=None, limit_states=None, counts=None, unwanted=(), usual=8,
        means=Means(threads=1), without=["commit.current_term"], mutant=None, symmetry=True,
    )[0]  # fmt: skip
    assert found.violation is not None
    permits = getattr(found, "permits")  # noqa: B009
    assert permits.recorded
    assert "order" in permits.names()


def test_the_command_says_what_it_took_from_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for machines; and not where nothing was."""
    of_record = "--without commit.current_term --max-term 4 --commands 2"
    by_looking = "--without restart.keep_vote --crashes 1"
    for question, taken in ((of_record, True), (by_looking, False)):
        told = []
        for more in ("", "--json"):
            with pytest.raises(SystemExit) as ended:
                app(f"explore --threads 1 {question} {more}")
            assert ended.value.code == 1
            told.append(capsys.readouterr().out)
        text, data = told[0], json.loads(told[1])
        assert ("reduced, as Z3 has proved (recorded) that" in text) is taken
        assert data["reductions"]["recorded"] is taken
        assert ("order" in data["reductions"]["on"]) is taken
