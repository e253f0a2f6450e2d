"""What a specification was traced to is kept on disk, and is the same for whoever asks for it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftspec.extensions import EXTENSIONS, having
from raftspec.mutants import MUTANTS
from raftspec.raft import raft
from raftworthy import kept as on_disk
from raftworthy import traced
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore_model
from raftworthy.native.identity import text_of

SMALL = Bounds(servers=2, max_term=1, max_log=0)
ALL = tuple(EXTENSIONS)
QUESTIONS: dict[str, Callable[[], Model]] = {
    "Figure 2": lambda: Model(raft, SMALL),
    "a missing rule": lambda: Model(raft, SMALL, ["vote.once_per_term"]),
    "a bug": lambda: Model(raft, SMALL, mutant=MUTANTS["E10"]),
    "other bounds": lambda: Model(raft, Bounds(servers=2, max_term=2, max_log=0)),
    "no properties": lambda: Model(raft, SMALL, properties=False),
    "all extensions": lambda: Model(having(*ALL), Bounds(servers=2, max_term=1, extensions=ALL)),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(on_disk.FOLDER, str(tmp_path))
    return tmp_path


def described(model: Model) -> Iterator[Any]:
    """All that is known of a model's expressions, and of what is written from them."""
    made = model.generated
    yield made.source, made.tracer.rules, made.tracer.followed, made.exercised
    without_rules = made.tracer.graph.without_rules
    for t in made.transitions.values():
        assert t.action is model.spec.actions[t.name]
        yield [(g.text, list(text_of([g.condition]))) for g in t.guards], list(text_of(t.roots()))
        yield list(t.updates), list(t.history), [s.message for s in t.sends], t.paths
        yield list(text_of(t.but(without_rules).roots()))
    for name, n in made.claims.items():
        yield name, list(text_of([n])), list(text_of([without_rules(n)]))


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_comes_from_the_disk_is_what_was_traced(
    question: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = QUESTIONS[question]()
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr("raftworthy.generated._trace", None)  # nothing is traced any more
    assert list(described(QUESTIONS[question]())) == list(described(first))


def test_every_question_has_a_trace_of_its_own(folder: Path) -> None:
    for number, ask in enumerate(QUESTIONS.values(), 1):
        ask()
        assert len(list(folder.iterdir())) == number


def test_a_node_that_was_there_is_not_made_again() -> None:
    """Equal nodes are one object, also those that a kept graph goes on with."""
    for _ in range(2):
        model = Model(raft, SMALL)
        graph = model.generated.tracer.graph
        nodes, _ = graph.contents()
        for n in nodes:
            assert graph._intern(n.op, n.args, n.attr, n.type) is n
        assert len(graph) == len(nodes)


def test_functions_from_the_disk_do_the_same() -> None:
    first, second = (explore_model(Model(raft, SMALL)) for _ in range(2))
    assert (first.states, first.distinct, first.depth) == (second.states, second.distinct, second.depth)


def test_a_specification_that_somebody_made_is_not_kept(folder: Path) -> None:
    """It would be found again by a name that says nothing of it."""
    action = next(iter(raft.actions))
    Model(raft.but({action: raft.actions[action].function}), SMALL)
    bug = MUTANTS["E10"]
    Model(raft, SMALL, mutant=type(bug)(bug.name, bug.source, bug.story, actions=bug.actions))
    assert not list(folder.iterdir())


def test_other_sources_have_other_traces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Model(raft, SMALL)
    monkeypatch.setattr(traced, "SOURCES", on_disk.hash_of(["changed"]))
    Model(raft, SMALL)
    assert len(list(folder.iterdir())) == 2


def test_nothing_is_kept_if_that_is_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(on_disk.FOLDER, "off")
    Model(raft, SMALL)
    assert not list(folder.iterdir())
