"""How a question is answered with as little as will do, and what is explored with choices left open."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

pytest.importorskip("llvmlite")
pytest.importorskip("numpy")
pytest.importorskip("z3")

from raftspec.mutants import Mutant
from raftspec.properties import raft
from raftspec.raft import S
from raftspec.spec import Step, when
from raftspec.types import Index, Server
from raftworthy.explore import choosing, natively
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import Case
from raftworthy.explore.means import Means
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Progress
from raftworthy.native import engine
from raftworthy.native.checkpoint import read
from raftworthy.native.engine import explore_native
from raftworthy.reduce.choices import NO_CHOICE, Opened, _without, opened

TWO = Bounds(servers=2)
ONE = Means(threads=1)
POLICY = {
    "leader.initial_next_index", "replicate.back_off", "replicate.next_after_match", "replicate.next_index",
}  # fmt: skip


def explored(
    bounds: Bounds,
    *without: str,
    mutant: Mutant | None = None,
    many: int | None = None,
    means: Means = ONE,
    unwanted: Iterable[str] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Any:
    """What a command explores, if a search of more than `many` states is a large one."""
    with pytest.MonkeyPatch.context() as patch:
        if many is not None:
            patch.setattr(natively, "FEW_KEPT", 1)
            patch.setattr(natively, "MANY_KEPT", many)
        return choosing.explore_with(
            Case(bounds), "native", text=None, find=None, limit_states=None, counts=None,
            means=means, unwanted=unwanted, usual=8, without=without, mutant=mutant, symmetry=True,
            progress=progress,
        )[0]  # fmt: skip


def interrupted_at_once(means: Means, *without: str) -> Any:
    """A search that gets a signal while it is only tried how far it goes."""
    sent: list[Progress] = []

    def tell(p: Progress) -> None:
        if not sent:
            sent.append(p)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "PROGRESS_EVERY", 0.0)
        return explored(TWO, *without, many=1000, means=means, progress=tell)


def test_where_few_states_are_left_by_looking_nothing_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natively, "permits_for", None)
    found = explored(TWO)
    assert found.exhausted
    assert list(found.permits.names()) == ["eager"]
    assert explored(TWO, "commit.majority").violation is not None
    with pytest.raises(TypeError):  # what seems to be large is asked about
        explored(TWO, many=10)


def test_what_a_leader_sends_next_is_left_open_in_a_large_search() -> None:
    """It is what Figure 2 chooses, and the property about it is kept by every step."""
    found = explored(TWO, many=10)
    assert found.exhausted
    assert found.permits.opened == "next_index"
    assert "choices" in found.permits.names()
    assert found.without == frozenset()
    model = Model(raft, TWO)
    choices = opened(model, model.properties())
    assert isinstance(choices, Opened)
    assert choices.wide.without == POLICY
    assert choices.kept == ("next_index_after_match",)


def test_a_violation_found_so_is_one_of_the_specification() -> None:
    bug = Mutant("made up", "", "", without=frozenset({"commit.majority"}))
    found = explored(TWO, mutant=bug, many=1)
    assert "choices" in found.permits.names()
    assert (found.mutant, found.without) == ("made up", bug.without)
    path = found.violation.path
    model = Model(raft, TWO, ["commit.majority"])
    again = model.repeat(path.start, ((m.action, m.params) for m in path.moves))
    states = raft.properties[found.violation.property].states
    assert not model.claim(found.violation.property)(*again.worlds()[-states:])


def test_what_is_possible_with_open_choices_only_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Model, *_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(Model, "repeat", never)
    found = explored(TWO, "commit.majority", many=1)
    assert found.violation is not None
    assert found.permits.off["choices"] == "something false was found so"


def test_a_signal_while_a_search_is_only_tried_leaves_a_checkpoint_too(tmp_path: FilePath) -> None:
    """What goes on from it sees what an uninterrupted search sees."""
    means = replace(ONE, disk=tmp_path, asked={"unwanted": []})
    first = interrupted_at_once(means)
    assert first.stopped == f"interrupted; go on with: raftworthy explore --resume {tmp_path}"
    assert first.distinct < 10
    rest = explored(TWO, means=replace(means, resume=True))
    whole = explored(TWO, many=1)
    assert rest.permits.opened == "next_index"
    assert (rest.stopped, rest.distinct, rest.states) == (whole.stopped, whole.distinct, whole.states)
    assert list(tmp_path.iterdir()) == []


def test_what_led_to_something_false_is_done_without_when_a_search_goes_on(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search with open choices is interrupted; then the one that is made without them."""
    means = replace(ONE, disk=tmp_path, asked={"unwanted": []})
    interrupted_at_once(means, "commit.majority")

    def never(self: Model, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(Model, "repeat", never)
        again = explored(TWO, "commit.majority", means=replace(means, resume=True))
    assert again.stopped.startswith("interrupted")
    unwanted = read(tmp_path)["asked"]["unwanted"]
    assert unwanted == ["choices"]
    last = explored(TWO, "commit.majority", means=replace(means, resume=True), unwanted=unwanted)
    assert last.violation is not None
    assert list(last.permits.off) == ["choices"]


def test_a_choice_that_decides_more_than_what_is_sent_stays() -> None:
    """If leaders committed by next_index, to leave it open would find what this specification can't do."""
    mutant = Mutant("made up", "", "", actions={"advance_commit_index": _by_next_index})
    model = Model(raft, Bounds(servers=2, max_term=1, max_messages=5), mutant=mutant)
    names = model.properties()
    assert opened(model, names) == NO_CHOICE
    assert explore_native(model).exhausted
    wrong = _without(model, sorted(POLICY))
    searched = [p for p in names if p != "next_index_after_match"]
    assert explore_native(wrong, properties=searched).violation


def _by_next_index(s: S, i: Server, n: Index) -> Step:
    """A leader takes for stored what it wouldn't send any more."""
    step = raft.actions["advance_commit_index"].function(s, i, n)
    sent = [when(f"{j} was sent n", (i == j) | (s[i].next_index[j] != n)) for j in s.servers]
    kept = [g for g in step.guards if g.text != "a quorum stores n"]
    return Step(i, *kept, *sent, then=step.then, history=step.history)


def test_a_property_about_a_choice_that_a_step_breaks_is_searched_for() -> None:
    model = Model(raft, Bounds(servers=2, max_term=1), ["leader.reset_match_index"])
    assert opened(model, model.properties()) == "become_leader can break next_index_after_match"
