"""Random walks: what they find, that they are repeated, and that what they tell happens."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raftspec.raft import raft
from raftspec.spec import Spec
from raftworthy.cli import app
from raftworthy.explore import paths, running_walks
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.cases import Case
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore_model
from raftworthy.explore.running_walks import Question, run_walks, walk
from raftworthy.explore.walking import estimate, follow, shorten, walk_python
from raftworthy.native import NoPlaceError, available

PLACES = Bounds(servers=3, max_term=4, commands=2)  # of Figure 8
TINY = Bounds(servers=2, max_term=1, max_log=1)
native = pytest.mark.skipif(not available(), reason="llvmlite and numpy are not installed")
ENGINES = ["python", pytest.param("native", marks=native)]


def tell(question: Question, **options: Any) -> tuple[int, dict[str, Any]]:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    code = run_walks(question, as_json=True, console=console, **options)
    return code, json.loads(console.export_text())


# --- what is found -----------------------------------------------------------


@native
def test_figure_8_is_found_by_walking() -> None:
    """Section 5.4.2: 27 steps from the initial state, without any help but luck."""
    found, engine = walk(Question(PLACES, frozenset({"commit.current_term"}), depth=60, walks=20_000))
    assert (found.broken, engine) == ("leader_completeness", "native")
    assert found.path is not None
    assert found.shortest is not None
    assert 25 <= len(found.shortest) <= 30 < len(found.path)


@native
def test_the_whole_specification_is_not_violated() -> None:
    found, _ = walk(Question(PLACES, depth=60, walks=20_000))
    assert (found.broken, found.walks) == (None, 20_000)
    assert found.steps > 500_000


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", ["vote.recorded", "commit.majority", "append.truncate_only_conflict"])
def test_a_rule_less_is_noticed(engine: str, rule: str) -> None:
    question = Question(Bounds(), frozenset({rule}), walks=20_000, depth=40, engine=engine)
    found, used = walk(question)
    assert used == engine
    assert found.broken is not None


@native
def test_the_beginning_and_the_properties_are_those_asked_for() -> None:
    question = Question(
        PLACES, frozenset({"commit.current_term"}), start="figure_8", walks=20_000, depth=20,
        properties=("state_machine_safety",),
    )  # fmt: skip
    found, _ = walk(question)
    assert found.broken == "state_machine_safety"
    assert found.shortest is not None
    assert [m.action for m in found.shortest.moves[:4]] == [
        "timeout", "handle_request_vote", "handle_request_vote_reply", "become_leader",
    ]  # fmt: skip


def test_a_beginning_that_violates_needs_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec(raft.server, raft.history, raft.rules, dict(raft.actions), dict(raft.properties))

    @spec.invariant
    def somebody_voted(s: Any) -> bool:
        """Somebody voted."""
        return s["n1"].current_term > 0  # type: ignore[no-any-return]

    monkeypatch.setattr(Case, "spec", spec)
    found, _ = walk(Question(TINY, properties=("somebody_voted",)))
    assert (found.broken, found.walks, found.steps) == ("somebody_voted", 0, 0)


@native
def test_walks_reach_what_exploring_does_and_nothing_else() -> None:
    """All of a small space, in the estimate: it is off by a few percent."""
    model = Model(raft, TINY)
    everything = explore_model(model, symmetry=False).distinct
    found, _ = walk(Question(TINY, walks=100_000, depth=100))
    assert 0.9 * everything < found.distinct < 1.1 * everything


# --- repeating ---------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_one_seed_gives_the_same_walks(engine: str) -> None:
    def outline(seed: int) -> tuple[int, ...]:
        found, _ = walk(Question(Bounds(), seed=seed, walks=20, depth=30, engine=engine))
        return (found.steps, found.deepest, found.distinct)

    assert outline(1) == outline(1)
    assert len({outline(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_that_is_printed_repeats_the_walks(
    engine: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also if time, not a number of walks, ended them."""
    bounds = Bounds(crashes=1, applies=True, max_messages=12)
    question = Question(bounds, frozenset({"vote.recorded"}), seed=3, seconds=60, depth=40, engine=engine)
    code, first = tell(question, save=tmp_path / "first.ndjson")
    words = shlex.split(first["again"])
    assert words[0] == "raftworthy"
    with pytest.raises(SystemExit) as ended:
        app([*words[1:], "--json", "--save", str(tmp_path / "again.ndjson")])
    again = json.loads(capsys.readouterr().out)
    assert (code, ended.value.code) == (1, 1)
    for name in ("steps", "walks", "property", "path", "trace", "again"):
        assert first[name] == again[name]
    assert (tmp_path / "first.ndjson").read_bytes() == (tmp_path / "again.ndjson").read_bytes()


@native
def test_walks_end_after_a_time() -> None:
    found, _ = walk(Question(PLACES, seconds=0.05))
    assert found.broken is None
    assert found.steps > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_walks_that_go_nowhere_end_after_a_time(engine: str) -> None:
    """Nobody may send a message, so nobody does anything."""
    found, _ = walk(Question(Bounds(max_messages=0), seconds=0.05, engine=engine))
    assert (found.broken, found.steps) == (None, 0)


# --- shorter ways ------------------------------------------------------------


def test_a_shortened_path_happens_and_ends_where_the_property_fails() -> None:
    model = Model(raft, Bounds(max_log=0), ["vote.recorded"])
    start = model.generated.initial()
    found = walk_python(model, start, model.properties(), seed=1, depth=60, walks=1000)
    assert found.path is not None
    assert found.broken is not None
    short = shorten(model, found.path, found.broken)
    again = model.repeat(start, [(m.action, m.params) for m in short.moves])
    assert again.world == short.world
    claim, states = model.generated.properties[found.broken], raft.properties[found.broken].states
    assert not claim(*again.worlds()[-states:])
    for k in range(len(short)):  # nothing can be left out
        rest = [(m.action, m.params) for m in (*short.moves[:k], *short.moves[k + 1 :])]
        assert (other := follow(model, paths.Path(start), rest, found.broken)) is None or len(other) == len(
            short
        )


def test_a_step_that_is_not_possible_is_left_out_when_following() -> None:
    """A message that nobody sent isn't received, and a command gets the number that it has there."""
    model = Model(raft, TINY)
    path = walk_python(model, model.generated.initial(), (), seed=2, depth=30, walks=1)
    assert path.broken is None
    steps: list[tuple[str, tuple[object, ...]]] = [("timeout", ("n1",)), ("timeout", ("n1",))]
    assert follow(model, paths.Path(model.generated.initial()), steps, "terms_never_fall") is None


@pytest.mark.parametrize("size", [0, 1, 50, 3000, 200_000])
def test_the_estimate_of_different_things_is_near(size: int) -> None:
    rng, counters = random.Random(size), [0] * 4096
    for _ in range(size):
        bits = rng.getrandbits(64)
        place, rest = bits >> 52, bits & (1 << 52) - 1
        counters[place] = max(counters[place], 53 - rest.bit_length())
    assert abs(estimate(counters) - size) <= 0.05 * size


# --- what can't be asked -----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"walks": 0}, "walks is 0; the least is 1"),
        ({"depth": 0}, "depth is 0"),
        ({"depth": 10**9}, "the most is"),
        ({"seconds": 0.0}, "0.0 seconds"),
        ({"mutant": "X"}, "no mutant is called X"),
        ({"start": "nowhere"}, "no beginning is called nowhere"),
        ({"properties": ("nothing",)}, "no property is called nothing"),
        ({"engine": "fast"}, "no engine is called fast"),
        ({"start": "figure_8"}, "doesn't fit the bounds"),
    ],
)
def test_what_cannot_be_walked_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnusableError, match=words):
        walk(Question(TINY, **change))


@pytest.mark.parametrize("options", [["--random", "--find", "leaders()"], ["--walks", "3"]])
def test_options_that_do_not_go_together_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["explore", *options])
    assert ended.value.code == 2
    assert "random" in capsys.readouterr().err


def test_without_native_packages_python_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_walks, "available", lambda: False)
    assert tell(Question(TINY, walks=5))[1]["engine"] == "python"
    with pytest.raises(UnusableError, match="pip install"):
        Question(TINY, engine="native")


@native
def test_a_value_beyond_the_bounds_is_noticed() -> None:
    from raftworthy.native.walks import walk_native

    class Loose(Bounds):
        def guards(self) -> dict[str, Callable[..., bool]]:
            return {name: g for name, g in super().guards().items() if name != "timeout"}

    model = Model(raft, Loose(servers=1, max_log=0))
    with pytest.raises(NoPlaceError, match="timeout makes a value beyond the bounds"):
        walk_native(model, model.generated.initial(), (), seed=1, depth=50, walks=100)
