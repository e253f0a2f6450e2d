"""Tracing for any number of servers: what it says of so many is what ordinary tracing says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftspec.anynumber import AnyNumber, disagreement
from raftspec.invariant import with_witnesses
from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftspec.raft import RequestVote
from raftspec.spec import Spec, State, Step, when
from raftspec.tracing import Tracer
from raftspec.types import Server
from raftspec.values import count

NAMES = ("s1", "s2", "s3", "s4", "s5")


@pytest.mark.parametrize("number", range(1, 6))
def test_so_many_servers_of_any_number_are_the_ordinary_ones(number: int) -> None:
    """Node by node: every action, conjunct and property."""
    spec = with_witnesses()
    assert disagreement(AnyNumber(spec), Tracer(spec, NAMES[:number])) is None


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if not mutant.extensions])
def test_so_many_servers_of_a_mutant_are_the_ordinary_ones(name: str) -> None:
    mutant = MUTANTS[name]
    spec = with_witnesses(mutant.apply(raft))
    assert disagreement(AnyNumber(spec, mutant.without), Tracer(spec, NAMES[:3], mutant.without)) is None


def changed(function: Callable[..., Step]) -> Spec:
    function.__annotations__["i"] = Server
    return raft.but({"become_leader": function})


def leading(condition: Callable[[Any, Any], Any]) -> Spec:
    """Raft with another condition for becoming leader."""
    return changed(lambda s, i: Step(i, when("it may", condition(s, i)), then=s[i]))


# What asks for servers by place or name, or takes out of a loop what belongs to one of them.
REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "the first server": (lambda s, i: s.servers[0] == i, "no server has a place"),
    "len": (lambda s, i: s[i].current_term > len(s.servers), "s.n"),
    "an if in a loop": (lambda s, i: count(True for j in s.servers if j != i) > 1, "no truth value"),
    "what is left of a loop": (lambda s, i: [s[j].role for j in s.servers][0] == s[i].role, "every"),  # noqa: RUF015
    "two loops in one count": (
        lambda s, i: count(s[j].voted_for == k for j in s.servers for k in s.servers) > 1,
        "one loop",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_servers_one_by_one_is_refused(name: str) -> None:
    condition, told = REFUSED[name]
    spec = leading(condition)
    with pytest.raises(TypeError, match=told):
        AnyNumber(spec).transition(spec.actions["become_leader"])


def test_a_loop_that_changes_a_variable_is_refused() -> None:
    def becomes(s: State[Any, Any], i: str) -> Step:
        match_index = s[i].match_index
        for j in s.servers:
            match_index = match_index.set(j, 1)
        return Step(i, then=s[i].but(match_index=match_index))

    spec = changed(becomes)
    with pytest.raises(TypeError, match="set_each"):
        AnyNumber(spec).transition(spec.actions["become_leader"])


def test_a_message_of_a_loop_goes_to_the_loop_s_server() -> None:
    """The proof takes the receiver for the server of the loop."""

    def becomes(s: State[Any, Any], i: str) -> Step:
        return Step(i, send=[RequestVote(j, i, s[i].current_term, 0, 0) for j in s.servers], then=s[i])

    spec = changed(becomes)
    with pytest.raises(TypeError, match="but not to it"):
        AnyNumber(spec).transition(spec.actions["become_leader"])


@pytest.mark.parametrize(
    "misread",
    [
        lambda s, i: s[i].votes.size >= len(list(s.servers)),
        lambda s, i: s[i].votes.size >= sum(1 for j in s.servers),
    ],
)
def test_a_loop_that_is_misread_is_found(misread: Callable[[Any, Any], Any]) -> None:
    """Python can count what a loop gives; for any number that is one, for three servers three."""
    spec = leading(misread)
    found = disagreement(AnyNumber(spec), Tracer(spec, NAMES[:3]))
    assert found is not None
    assert found.startswith("become_leader")
