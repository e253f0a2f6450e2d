"""What an exploration made use of, counted again with the specification's own functions."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from raftspec.raft import raft
from raftspec.spec import OnlyIf, State, Step
from raftspec.types import Type
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.coverage import Coverage
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore_model
from raftworthy.explore.running import run_explore
from raftworthy.generated import World, to_spec

TINY = Bounds(servers=2, max_term=1, max_messages=4, crashes=1)


def state(s: World, rules: dict[str, bool]) -> State[Any, Any]:
    """A state as the specification's functions handle it."""
    server, history = Type("record", cls=raft.server), Type("record", cls=raft.history)
    variables = {i: to_spec(v, server) for i, v in s.variables.items()}
    return State(variables, to_spec(s.past, history), rules=rules)


class Plain:
    """Counts by running the actions with concrete values, once for each rule that is forced."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.off = {r: model.generated.tracer.rules[r] for r in model.without}
        self.held, self.failed, self.decided = Counter[str](), Counter[str](), Counter[str]()

    def run(self, s: World, action: str, params: Any, rules: dict[str, bool]) -> tuple[State[Any, Any], Step]:
        here = state(s, rules)
        return here, self.model.spec.actions[action].function(here, *params)

    def outcome(self, s: World, action: str, params: Any, rules: dict[str, bool]) -> Any:
        here, step = self.run(s, action, params, rules)
        bound = self.model.bounds.guards().get(action)
        if not all(g.condition for g in step.guards) or (bound and not bound(here, *params)):
            return None
        sends = [
            m.message if isinstance(m, OnlyIf) else m for m in step.sends if getattr(m, "condition", True)
        ]
        then = step.then or here[step.server]
        return step.server, then.values(), (step.history or here.past).values(), frozenset(sends)

    def note(self, s: World) -> None:
        for action, given in self.model.choices(s):
            params: Any = given
            if not isinstance(given[0], str):
                params = (to_spec(given[0], Type("record", cls=self.model.spec.actions[action].message)),)
            here, step = self.run(s, action, params, self.off)
            conditions = [(g.text, g.condition) for g in step.guards]
            if bound := self.model.bounds.guards().get(action):
                conditions.append(("within bounds", bound(here, *params)))
            for text, holds in conditions:
                (self.held if holds else self.failed)[f"{action}: {text}"] += 1
                if not holds:
                    break
            expected = self.outcome(s, action, params, self.off)
            for rule in {asked.rule for asked in here.asked} - self.off.keys():
                without = self.model.generated.tracer.rules[rule]
                other = self.outcome(s, action, params, {**self.off, rule: without})
                self.decided[rule] += other != expected


@pytest.mark.parametrize("without", [(), ("vote.once_per_term",), ("append.refuse", "commit.majority")])
def test_the_counts_are_those_of_the_specification_itself(without: tuple[str, ...]) -> None:
    """Guards, and rules by taking each away, on every state within small bounds or up to a violation."""
    model = Model(raft, TINY, without)
    counted, plain = Coverage(model), Plain(model)

    def both(s: World) -> None:
        counted.note(s)
        plain.note(s)

    result = explore_model(model, visit=both, properties=())
    assert result.exhausted
    assert sum(counted.fired.values()) == result.states
    data = counted.as_data()
    for row in data["guards"]:
        name = f"{row['action']}: {row['guard']}"
        assert (row["held"], row["failed"]) == (plain.held[name], plain.failed[name]), name
    assert +Counter(data["rules"]) == +plain.decided
    assert set(counted.idle) == {r for r, n in data["rules"].items() if not n}


def ask(**question: Any) -> tuple[int, str]:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    code = run_explore(**question, console=console)
    return code, console.export_text()


def test_a_rule_that_decides_nothing_within_the_bounds_is_pointed_out() -> None:
    """Without restarts, nothing depends on what survives one."""
    _, text = ask(bounds=Bounds(servers=2, max_term=1, max_log=0), coverage=True, as_json=True)
    data = json.loads(text)
    never = set(data["coverage"]["never_decided"])
    assert {"restart.keep_vote", "commit.current_term"} <= never
    assert "election.majority" not in never
    assert data["engine"] == "python"
    _, text = ask(bounds=Bounds(servers=2, max_term=1, max_log=0, crashes=1), coverage=True)
    assert "never decided anything within these bounds: " in text
    assert "restart.keep_vote" not in text.split("never decided")[1]


def test_the_native_engine_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = ask(bounds=TINY, coverage=True, engine="native")
    assert code == 2
    assert "--engine python" in capsys.readouterr().err
