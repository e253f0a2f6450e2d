"""The proof's formulas over a reachable state: its assumptions hold in it, and its steps are Python's."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.raftworthy.finite import Finite

from raftspec.anynumber import EACH
from raftspec.extensions import having
from raftspec.graph import free_variables
from raftspec.invariant import conjuncts, with_witnesses
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move
from raftworthy.generated import World
from raftworthy.prove.inductive import message_of
from raftworthy.prove.unbounded import terms
from raftworthy.prove.unbounded.induction import Step, Unbounded, none_is_before_itself, quorums_intersect
from raftworthy.prove.unbounded.values import Entries

BOUNDS = Bounds(servers=3, max_term=2, max_log=2, commands=2, entries=2, crashes=1, applies=True)


class Endless(Bounds):
    """Without bounds that a step could meet: there are none in the proof."""

    def guards(self) -> dict[str, Callable[..., bool]]:
        return {}


SESSIONS = Bounds(
    servers=2, max_term=1, max_log=3, commands=3, entries=3, crashes=1, applies=True, extensions=("sessions",)
)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(with_witnesses(), BOUNDS)


@pytest.fixture(scope="module")
def with_sessions() -> Model:
    return Model(with_witnesses(having("sessions")), SESSIONS)


RARE = ("restart", "timeout")


def walk(
    model: Model, rng: random.Random, length: int = 40, rare: tuple[str, ...] = RARE
) -> Iterator[tuple[World, list[Move]]]:
    """The states of a random walk, with their moves."""
    s = model.generated.initial()
    for _ in range(length):
        moves = list(model.moves(s))
        if not moves:
            return
        yield s, moves
        s = rng.choices(moves, [0.05 if m.action in rare else 1 for m in moves])[0].world


class Interpreted:
    """The proof's state and steps, where the state is a world of the Python back end."""

    def __init__(self, model: Model) -> None:
        b = model.bounds
        self.model, self.induction = model, Unbounded(extensions=b.extensions)
        self.roomy = Model(model.spec, Endless(b.servers, max_term=9, max_log=9, extensions=b.extensions))
        self.finite = Finite(model.servers, range(-2, 6))
        self.induction.named = self.finite.named
        self.steps: dict[str, Step] = {}
        self.conjuncts = {
            n: self.induction._universal(n, p) for n, p in conjuncts(model.spec).items() if not message_of(p)
        }
        self.axioms = {
            "types": self.induction._typed(self.induction.s),
            "majorities": quorums_intersect(),
            "order": none_is_before_itself(),
        }

    def step(self, action: str) -> Step:
        """A step whose named conditions are those that the interpretation looks up."""
        if action not in self.steps:
            made = self.induction.step(action)
            self.steps[action] = made
            self.finite.also.append(made.named)
        return self.steps[action]

    def put(self, world: World) -> None:
        """Let the state be this world."""
        spec, given = self.induction.spec, self.finite.given
        for f, t in spec.server.types().items():
            given(t, f, lambda i, *a, f=f: getattr(world.variables[i], f))
        for f, t in spec.history.types().items():
            given(t, self.induction.of_history(f), lambda *a, f=f: getattr(world.past, f))

    def wrong(self, world: World) -> list[str]:
        """The assumptions that don't hold."""
        self.put(world)
        return [n for n, c in {**self.axioms, **self.conjuncts}.items() if not self.finite.holds(c)]

    def wrong_of_message(self, action: str) -> list[str]:
        """What is assumed of the message that an action receives, and doesn't hold of the one last put."""
        return [n for n, c in self.step(action).about.items() if not self.finite.holds(c)]

    def difference(self, world: World, action: str, params: tuple[Any, ...]) -> str | None:
        """Where the step isn't Python's."""
        self.put(world)
        step, finite, spec = self.step(action), self.finite, self.induction.spec
        for (p, t), x in zip(self.induction.transitions[action].action.params.items(), params, strict=True):
            if t.cls is None:
                finite.given(t, f"p.{p}", lambda *a, x=x: x)
                continue
            for f, ft in t.cls.types().items():
                finite.given(ft, f"p.{p}.{f}", lambda *a, x=x, f=f: getattr(x, f))
        move = self.roomy.take(world, action, params)
        if finite.holds(step.assumed) != (move is not None):
            return f"{action}{params}: Python says {move is not None}"
        if move is None:
            return None
        for f, t in spec.server.types().items():
            for i, x, env in finite.at_each(step.after.servers[f]):
                if not finite.same(t, x, getattr(move.world.variables[i], f), env):
                    return f"{action}{params}: {f} of {i} is another"
        for f, t in spec.history.types().items():
            if not finite.same(t, step.after.past[f], getattr(move.world.past, f)):
                return f"{action}{params}: {f} is another"
        return self._messages(step, move)

    def _messages(self, step: Step, move: Move) -> str | None:
        expected = list(move.sent)
        found = 0
        for send, traced in zip(step.sends, self.induction.transitions[move.action].sends, strict=True):
            each = any(EACH in free_variables(n) for n in (traced.condition, *traced.fields))
            struct = self.roomy.generated.structs[send.kind]
            types = send.kind.types()
            made = self.finite.at_each(send.made, of=send)
            for _, (condition, fields), env in itertools.islice(made, None if each else 1):
                if not self.finite.holds(condition, env):
                    continue
                found += 1
                if not any(
                    type(m) is struct
                    and all(
                        self.finite.same(t, value, getattr(m, f), env)
                        for (f, t), value in zip(types.items(), fields, strict=True)
                    )
                    for m in expected
                ):
                    return f"{move.action}{move.params} sends another {send.kind.__name__}"
        return None if found == len(expected) else f"{move.action}{move.params} sends {found} messages"


def compare(interpreted: Interpreted, seed: int, steps: int) -> str | None:
    """The first difference on a random walk."""
    rng = random.Random(seed)
    model = interpreted.model
    tried: dict[str, int] = {}
    done = 0
    everything = interpreted.induction.transitions.keys()
    while done < steps or (tried.keys() != everything and done < 20 * steps):
        for s, moves in walk(model, rng):
            choices = list(model.choices(s))
            chosen = [(m.action, m.params) for m in rng.sample(moves, min(2, len(moves)))]
            rarest = min(moves, key=lambda m: tried.get(m.action, 0))
            for action, params in (*chosen, (rarest.action, rarest.params), rng.choice(choices)):
                tried[action] = tried.get(action, 0) + 1
                done += 1
                if found := interpreted.difference(s, action, params):
                    return f"{found} (seed {seed})"
    missing = everything - tried.keys()
    return f"never tried: {missing}" if missing else None


def test_a_step_of_the_proof_is_python_s(model: Model) -> None:
    assert compare(Interpreted(model), 1, 80) is None


SLIPS: dict[str, Callable[..., Any]] = {
    "concat": lambda w, n, q, r: q,
    "set_each": lambda w, n, m: m,
    "set_add": lambda w, n, s, i: s,
    "append": lambda w, n, q, x: Entries(q.length + 1, q.at),
}


@pytest.mark.parametrize("op", SLIPS)
def test_a_wrong_rule_is_noticed_by_the_steps(op: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "RULES", {**terms.RULES, op: SLIPS[op]})
    assert compare(Interpreted(model), 1, 80) is not None


def test_what_the_proof_assumes_holds_in_reachable_states(model: Model) -> None:
    """So they are not contradictory; nor are they with an action's guards, as each is taken in one."""
    interpreted, rng, taken = Interpreted(model), random.Random(3), set[str]()
    for k in range(40):
        for s, moves in walk(model, rng):
            new = [m for m in moves if m.action not in taken]
            if new or rng.random() < 0.02:
                assert interpreted.wrong(s) == []
            for m in new:
                assert interpreted.difference(s, m.action, m.params) is None
                assert interpreted.wrong_of_message(m.action) == []
                taken.add(m.action)
        if k > 1 and taken == interpreted.induction.transitions.keys():
            return
    raise AssertionError(f"never taken: {interpreted.induction.transitions.keys() - taken}")


def test_with_sessions_steps_and_assumptions_are_those_of_reachable_states(with_sessions: Model) -> None:
    """Where requests were tried again: there are maps in maps, which other specifications have not."""
    interpreted, rng, again = Interpreted(with_sessions), random.Random(0), 0
    assert compare(interpreted, 1, 40) is None
    for _ in range(2):
        s = list(walk(with_sessions, rng, 60, ("restart", "client_request", "expire_sessions")))[-1][0]
        assert interpreted.wrong(s) == []
        again += any(n != k > 0 for n, k in s.past.answers.items())
    assert again
    s = with_sessions.generated.initial()
    s.past.responded[0] = {1: 1}
    assert [n.split("_")[0] for n in interpreted.wrong(s)] == ["h13", "h18"]


def test_an_assumption_that_is_wrong_is_noticed(model: Model) -> None:
    interpreted = Interpreted(model)
    s = model.generated.initial()
    assert interpreted.wrong(s) == []
    interpreted.finite.functions["quorum"] = lambda q: True
    assert interpreted.wrong(s) == ["majorities"]
    next(iter(s.variables.values())).commit_index = 1
    assert any(n.startswith("d") for n in interpreted.wrong(s))
