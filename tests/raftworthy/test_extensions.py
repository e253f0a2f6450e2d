"""Raft with extensions: what is left out costs nothing, and all readers of the specification agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftspec.extensions import EXTENSIONS, having
from raftspec.properties import raft
from raftspec.rules import RULES
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.export import write_trace
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore_model
from raftworthy.generated import World
from raftworthy.native import available
from raftworthy.replay.verdict import check

SMALL = Bounds(servers=2, max_term=1, extensions=("check_quorum",))


def test_without_extensions_it_is_figure_2() -> None:
    assert having() is raft
    assert raft.rules == RULES
    assert not any(x.actions.keys() & raft.actions.keys() for x in EXTENSIONS.values())


def test_equal_names_give_one_specification() -> None:
    assert having(*EXTENSIONS) is having(*reversed(EXTENSIONS))


def test_an_unknown_extension_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnusableError, match=r"no extension is called quorum; there are .*check_quorum"):
        Bounds(extensions=("quorum",))


@pytest.mark.parametrize("name", EXTENSIONS)
def test_rules_of_an_extension_carry_its_name_and_have_a_reason(name: str) -> None:
    for rule in EXTENSIONS[name].rules.values():
        assert rule.section
        assert rule.why.endswith(".")
        assert rule.name not in RULES


@pytest.mark.skipif(not available(), reason="needs llvmlite")
def test_both_engines_count_the_same_states_with_check_quorum() -> None:
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.permits import nothing

    model = Model(having("check_quorum"), SMALL)
    by_python = explore_model(model)
    native = explore_native(model, permits=nothing("counted"))
    assert by_python.violation is None
    assert (by_python.distinct, by_python.depth) == (native.distinct, native.depth)
    assert by_python.distinct > explore_model(Model(raft, Bounds(servers=2, max_term=1))).distinct


def test_a_trace_is_replayed_against_the_specification_that_its_header_names(tmp_path: Path) -> None:
    model = Model(having("check_quorum"), Bounds(max_log=0, extensions=("check_quorum",)))

    def stopped(w: World) -> bool:
        return bool(w.past.leaders) and all(v.role == "follower" for v in w.variables.values())

    found = explore_model(model, find=stopped)
    assert found.witness is not None
    assert [m.action for m in found.witness.moves][-1] == "lose_quorum"
    file = tmp_path / "lost.ndjson"
    write_trace(found.witness, file)
    assert check([file]).verdict == "conforms"
    lines = file.read_text().splitlines()
    last = lines[-1].replace('"follower"', '"leader"')
    file.write_text("\n".join([*lines[:-1], last, ""]))
    assert check([file]).verdict == "violates"
    file.write_text("\n".join([lines[0].replace("check_quorum", "quorums"), *lines[1:], ""]))
    assert "no extension of Raft is called quorums" in str(check([file]).error)
    file.write_text("\n".join([lines[0].replace(',"extensions":["check_quorum"]', ""), *lines[1:], ""]))
    assert check([file]).verdict == "unusable"
