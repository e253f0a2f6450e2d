"""The reference explorer: what holds, what goes wrong without each rule, and that it looks everywhere."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from raftspec.raft import raft
from raftspec.rules import POLICY, RULES
from raftspec.spec import State, run
from raftspec.types import Record
from raftworthy.explore.bounds import MOST, Bounds, UnusableError
from raftworthy.explore.cases import BEGINNINGS, MUTANT_CASES, RULE_CASES, Case, Walk
from raftworthy.explore.find import predicate
from raftworthy.explore.keys import Keys, rename
from raftworthy.explore.model import Model, message_classes
from raftworthy.explore.needless import NEEDLESS, WAITS
from raftworthy.explore.paths import EXHAUSTED, Path, Progress
from raftworthy.explore.reference import explore
from raftworthy.explore.running import run_explore
from raftworthy.generated import World, generate, to_spec

# --- Raft holds --------------------------------------------------------------

HOLDS = {
    # bounds: steps and distinct states with symmetry, distinct states without it, depth
    Bounds(servers=1, max_log=2, crashes=1): (75, 65, 65, 9),
    Bounds(servers=2): (33836, 3236, 6465, 24),
    Bounds(servers=2, max_term=1, crashes=2): (2580, 339, 667, 17),
    Bounds(servers=2, max_term=1, max_log=2): (14589, 1354, 2705, 23),
    Bounds(servers=2, max_term=1, applies=True): (1023, 130, 257, 17),
    Bounds(servers=3, max_term=1, max_log=0): (1177, 129, 713, 12),
    Bounds(servers=3, max_term=1, max_messages=6): (719, 121, 686, 11),
    Bounds(servers=3, max_log=0, max_messages=7): (1491, 265, 1544, 10),
    Bounds(servers=4, max_term=1, max_log=0, max_messages=6): (84, 16, 167, 7),
}


@pytest.mark.parametrize("bounds", HOLDS, ids=str)
def test_raft_holds_within_bounds(bounds: Bounds) -> None:
    """The counts are pinned: a change of the specification or of the explorer shows here."""
    states, distinct, _, depth = HOLDS[bounds]
    result = explore(raft, bounds)
    assert result.violation is None
    assert result.stopped == EXHAUSTED
    assert (result.states, result.distinct, result.depth) == (states, distinct, depth)


@pytest.mark.parametrize("bounds", HOLDS, ids=str)
def test_states_up_to_renaming_are_the_orbits_of_all_states(bounds: Bounds) -> None:
    """Every state's renamings are states, and symmetry keeps one of each such group."""
    if bounds.servers == 1:
        assert HOLDS[bounds][1] == HOLDS[bounds][2]
        return
    _, distinct, everything, depth = HOLDS[bounds]
    worlds: list[World] = []
    result = explore(raft, bounds, symmetry=False, find=lambda w: bool(worlds.append(w)))  # type: ignore[func-returns-value]
    assert (result.distinct, result.depth, len(worlds)) == (everything, depth, everything)
    keys = Keys(raft, bounds.names, symmetry=True)
    orbits = [keys.key(keys.parts(w)) for w in worlds]
    assert len(set(orbits)) == distinct
    group, sizes = len(keys.renamings), set(Counter(orbits).values())
    assert all(group % size == 0 for size in sizes), "an orbit's size divides the number of renamings"


def test_raft_holds_whatever_the_policy() -> None:
    """Figure 2's policies can be chosen otherwise: nothing but the properties that say so depends on them."""
    for bounds in (Bounds(servers=2, max_term=1), Bounds(servers=2, max_messages=7)):
        result = explore(raft, bounds, any_policy=True)
        assert result.exhausted
        assert result.violation is None
        assert result.without == POLICY


# --- each rule is needed -----------------------------------------------------

# Without the rule, the first property to break and the length of the shortest path to it, beginning included.
EXPECTED = {
    "term.step_down": ("leader_voted_for_itself", 6),
    "election.new_term": ("vote_is_kept", 3),
    "election.vote_for_self": ("leader_voted_for_itself", 4),
    "election.majority": ("one_leader_per_term", 4),
    "vote.up_to_date": ("leader_completeness", 14),
    "vote.once_per_term": ("vote_is_kept", 3),
    "vote.recorded": ("one_leader_per_term", 8),
    "vote.count_current_term": ("one_leader_per_term", 9),
    "vote.count_granted": ("one_leader_per_term", 8),
    "leader.reset_match_index": ("match_index_is_true", 37),
    "append.leader_only": ("log_matching", 2),
    "append.own_term": ("log_matching", 11),
    "replicate.leader_only": ("committed_on_quorum", 18),
    "replicate.commit_index": ("state_machine_safety", 7),
    "append.current_term": ("match_index_is_true", 16),
    "append.previous_entry": ("match_index_is_true", 14),
    "append.truncate_only_conflict": ("match_index_is_true", 10),
    "append.truncate_conflict": ("match_index_is_true", 14),
    "append.acknowledge_matched": ("match_index_is_true", 13),
    "commit.follower_limit": ("state_machine_safety", 18),
    "commit.never_back": ("commit_never_falls", 12),
    "replicate.ack_current_term": ("match_index_is_true", 38),
    "commit.match_monotone": ("match_index_never_falls", 11),
    "replicate.next_after_match": ("next_index_after_match", 8),
    "commit.leader_only": ("only_leaders_commit", 5),
    "commit.majority": ("committed_on_quorum", 6),
    "commit.current_term": ("leader_completeness", 28),
    "apply.committed_only": ("applied_is_committed", 1),
    "restart.keep_term": ("terms_never_fall", 2),
    "restart.keep_vote": ("vote_is_kept", 2),
    "restart.keep_log": ("match_index_is_true", 9),
}


def test_every_rule_is_accounted_for() -> None:
    """Each rule has a counterexample, or a reason why it has none."""
    assert EXPECTED.keys() == RULE_CASES.keys()
    assert EXPECTED.keys() | NEEDLESS.keys() | WAITS.keys() == RULES.keys() | {"R06", "R12"}
    assert EXPECTED.keys().isdisjoint(NEEDLESS.keys() | WAITS.keys())
    for rule in EXPECTED:
        assert RULES[rule].kind == "safety" or rule == "replicate.next_after_match", rule
    for rule in RULES.keys() & WAITS.keys():
        assert RULES[rule].kind in ("liveness", "policy"), rule
    for rule in NEEDLESS:
        assert RULES[rule].kind in ("implied", "policy"), rule


@pytest.mark.parametrize("rule", EXPECTED)
def test_without_the_rule_something_breaks(rule: str) -> None:
    result = RULE_CASES[rule].explore(raft, without={rule})
    assert result.violation is not None
    assert (result.violation.property, len(result.violation.path)) == EXPECTED[rule]
    check_path(result.violation.path, RULE_CASES[rule], {rule})


@pytest.mark.parametrize("rule", [r for r in EXPECTED if RULE_CASES[r].start == "initial"])
def test_symmetry_does_not_change_what_is_found(rule: str) -> None:
    """Not the property, not the length; which of several shortest paths is another matter."""
    if RULE_CASES[rule].bounds == Bounds(max_log=0) and EXPECTED[rule][1] > 6:
        return  # six times as many states
    result = RULE_CASES[rule].explore(raft, without={rule}, symmetry=False)
    assert result.violation is not None
    assert len(result.violation.path) == EXPECTED[rule][1]


@pytest.mark.parametrize("case", dict.fromkeys((*RULE_CASES.values(), *MUTANT_CASES.values())), ids=str)
def test_with_all_rules_nothing_breaks_there(case: Case) -> None:
    """Each disaster is the missing rule's fault, or the bug's."""
    result = case.explore(raft, limit_states=500)
    assert result.violation is None


def check_path(path: Path, case: Case, without: set[str], mutant: Any = None) -> None:
    """The path can be walked from the initial state, and ends where it says."""
    figure_2 = Model(raft, case.bounds, without, mutant)
    beginning = len(BEGINNINGS[case.start](Walk(figure_2)).path)
    again = figure_2.repeat(path.start, [(m.action, m.params) for m in path.moves[:beginning]])
    model = Model(raft, case.bounds, without, mutant, any_policy=True) if case.any_policy else figure_2
    rest = model.repeat(again.world, [(m.action, m.params) for m in path.moves[beginning:]])
    assert path.start == model.generated.initial()
    assert rest.world == path.world
    assert [m.sent for m in (*again.moves, *rest.moves)] == [m.sent for m in path.moves]


# --- beginnings --------------------------------------------------------------


@pytest.mark.parametrize("name", BEGINNINGS)
def test_beginnings_are_behaviours_of_raft(name: str) -> None:
    path = BEGINNINGS[name](Walk(Model(raft, Bounds(max_term=4, commands=2)))).path
    at_the_end = explore(raft, Bounds(max_term=4, commands=2), start=path, limit_states=1)
    assert at_the_end.violation is None


def test_figure_8_is_as_in_the_paper() -> None:
    """Section 5.4.2, Figure 8 (c), with as few servers as show it: an old entry is on a majority."""
    w = BEGINNINGS["figure_8"](Walk(Model(raft, Bounds(max_term=4, commands=2))))
    servers = w.path.world.variables
    assert {i: [e.term for e in v.log] for i, v in servers.items()} == {"n1": [1], "n2": [1], "n3": [2]}
    assert (servers["n1"].role, servers["n1"].current_term) == ("leader", 3)
    assert w.path.world.past.committed == []


def test_a_walk_says_which_step_is_not_possible() -> None:
    w = Walk(Model(raft, Bounds()))
    with pytest.raises(ValueError, match=r"become_leader\(n1\) is not possible after 1 steps"):
        w.do("timeout", "n1").do("become_leader", "n1")
    with pytest.raises(ValueError, match="n2 sent no request_vote to n1"):
        w.receive("request_vote", "n2", "n1")


# --- the explorer ------------------------------------------------------------


def walk(model: Model, length: int, seed: int) -> list[World]:
    """A random path's states."""
    rng = random.Random(seed)
    worlds = [model.generated.initial()]
    while len(worlds) < length and (moves := list(model.moves(worlds[-1]))):
        worlds.append(rng.choice([m for m in moves if m.world != worlds[-1]] or moves).world)
    return worlds


TAKEN_AWAY = [
    (),
    ("commit.current_term",),
    ("append.truncate_conflict", "vote.recorded"),
    tuple(sorted(POLICY)),
    (*RULES,),
]


@pytest.mark.parametrize("without", TAKEN_AWAY, ids=lambda rules: f"{len(rules)} rules off")
def test_generated_python_takes_the_steps_of_the_specification(without: tuple[str, ...]) -> None:
    """Every action with every parameter, in the states of random walks."""
    bounds = Bounds(max_log=2, crashes=1, applies=True, entries=2)
    model = Model(raft, bounds, without)
    made = generate(
        raft, bounds.names, message_classes(raft), frozenset(without), pure=True, properties=False
    )
    answers = {rule: answer for rule, answer in made.tracer.rules.items() if rule in without}
    compared = 0
    for seed in range(2):
        for world in walk(model, 20, seed):
            s = spec_state(world, answers)
            for name, action in raft.actions.items():
                for params in parameters(model, world, name):
                    result = made.actions[name](world, *params)
                    given = [to_spec(x, t) for x, t in zip(params, action.params.values(), strict=True)]
                    failed, t = run(action, s, *given)
                    assert (result is None) == (failed is not None), (name, params, failed)
                    if result is not None:
                        new, sent = result
                        new.messages = world.messages.union(sent)
                        assert alike(spec_state(new, answers), t), (name, params)
                        compared += 1
    assert compared > 200


def parameters(model: Model, s: World, action: str) -> list[tuple[Any, ...]]:
    kind = raft.actions[action].message
    if kind:
        return [(m,) for m in s.messages if type(m) is model.generated.structs[kind]]
    values = [model._values(t) or ("c9",) for t in raft.actions[action].params.values()]
    every = list(itertools.product(*values))
    return every if len(every) < 60 else random.Random(str(s.key())).sample(every, 60)


def spec_state(world: World, rules: dict[str, bool]) -> State[Any, Any]:
    def record(cls: type[Record], v: Any) -> Record:
        return cls(*(to_spec(getattr(v, f), t) for f, t in cls.types().items()))

    kinds = {message_classes(raft)[cls]: cls for cls in raft.messages}
    return State(
        {i: record(raft.server, v) for i, v in world.variables.items()},
        record(raft.history, world.past),
        frozenset(record(kinds[type(m)], m) for m in world.messages),
        rules,
    )


def alike(s: State[Any, Any], t: State[Any, Any]) -> bool:
    return (dict(s.variables), s.past, s.messages) == (dict(t.variables), t.past, t.messages)


def test_renaming_renames_servers_wherever_they_are() -> None:
    """Symmetry is sound only if a renamed state's successors are the successors, renamed."""
    bounds = Bounds(max_term=3, max_log=2, crashes=1)
    model = Model(raft, bounds)
    names = {"n1": "n2", "n2": "n3", "n3": "n1"}
    keys = Keys(raft, bounds.names, symmetry=True)
    for world in walk(model, 40, seed=5):
        turned = renamed(world, names, model)
        assert keys.key(keys.parts(turned)) == keys.key(keys.parts(world))
        assert {m.world.key() for m in model.moves(turned)} == {
            renamed(m.world, names, model).key() for m in model.moves(world)
        }


def renamed(world: World, names: dict[str, str], model: Model) -> World:
    """The same state with other names, made field by field and not as the explorer's keys are."""
    new = model.generated.initial()
    for i, v in world.variables.items():
        me = new.variables[names[i]]
        me.role, me.current_term, me.log = v.role, v.current_term, list(v.log)
        me.voted_for = names.get(v.voted_for)
        me.commit_index, me.last_applied = v.commit_index, v.last_applied
        me.votes = frozenset(names[j] for j in v.votes)
        me.next_index = {names[j]: n for j, n in v.next_index.items()}
        me.match_index = {names[j]: n for j, n in v.match_index.items()}
    past = new.past = world.past.copy()
    past.leaders = {term: names[i] for term, i in past.leaders.items()}
    new.messages = frozenset(
        type(m)(**{f: getattr(m, f) for f in m.__struct_fields__}
                | {"source": names[m.source], "target": names[m.target]})
        for m in world.messages
    )  # fmt: skip
    return new


def test_rename_knows_every_kind_of_type() -> None:
    types = raft.server.types()
    names = {"n1": "n2", "n2": "n1"}
    assert rename("n1", types["voted_for"], names) == "n2"
    assert rename(None, types["voted_for"], names) is None
    assert rename(frozenset({"n1"}), types["votes"], names) == {"n2"}
    assert rename((("n1", 1), ("n2", 2)), types["next_index"], names) == (("n1", 2), ("n2", 1))
    assert rename(((1, "n1"),), raft.history.types()["leaders"], names) == ((1, "n2"),)
    assert rename(3, types["current_term"], names) == 3


def test_breadth_first_finds_the_shortest_path() -> None:
    """No state on the way is reached sooner."""
    find, _ = predicate("s.n1.commit_index == 1", ("n1", "n2"))
    result = explore(raft, Bounds(servers=2), find=find, symmetry=False)
    assert result.witness is not None
    assert [m.action for m in result.witness.moves] == [
        "timeout", "handle_request_vote", "handle_request_vote_reply", "become_leader", "client_request",
        "append_entries", "handle_append_entries", "handle_append_entries_reply", "advance_commit_index",
    ]  # fmt: skip


def test_two_explorations_are_the_same_one() -> None:
    first, second = (RULE_CASES["vote.recorded"].explore(raft, without={"vote.recorded"}) for _ in range(2))
    assert first.violation is not None
    assert second.violation is not None
    assert (first.states, first.distinct) == (second.states, second.distinct)
    assert list(map(str, first.violation.path.moves)) == list(map(str, second.violation.path.moves))


def test_an_exploration_goes_on_from_another_ones_end() -> None:
    bounds = Bounds(servers=2)
    find, _ = predicate("len(leaders()) == 1", bounds.names)
    led = explore(raft, bounds, find=find).witness
    assert led is not None
    find, _ = predicate("len(s.past.committed) > 0", bounds.names)
    both = explore(raft, bounds, find=find, start=led).witness
    only = explore(raft, bounds, find=find, start=led.world).witness
    assert both is not None
    assert only is not None
    assert (len(led), len(only), len(both)) == (4, 5, 9)


def test_a_property_of_the_first_state_is_checked_too() -> None:
    """Exploring from a state that is already broken says so at once."""
    case = RULE_CASES["commit.majority"]
    broken = case.explore(raft, without={"commit.majority"}).violation
    assert broken is not None
    again = explore(raft, case.bounds, start=broken.path)
    assert again.violation is not None
    assert (again.violation.property, len(again.violation.path)) == (broken.property, len(broken.path))


def test_a_limit_is_not_taken_for_the_end() -> None:
    seen: list[Progress] = []
    result = explore(raft, Bounds(), limit_states=3000, progress=seen.append)
    assert not result.exhausted
    assert result.stopped == "stopped at the limit of 3000 states"
    assert result.distinct >= 3000
    assert [p.depth for p in seen] == sorted(p.depth for p in seen)


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(UnusableError, match=r"no rule is called vote\.twice"):
        explore(raft, Bounds(), without={"vote.twice"})
    with pytest.raises(UnusableError, match="no property is called safety; there are election_safety"):
        explore(raft, Bounds(), properties=["safety"])
    with pytest.raises(UnusableError, match="servers is 0; the least is 1"):
        Bounds(servers=0)
    with pytest.raises(UnusableError, match="no beginning is called figure_9; there are initial, led"):
        Case(Bounds(), "figure_9").explore(raft)


# --- looking for a state -----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("leaders(", "not an expression"),
        ("s.__class__", ".__class__ can't be used"),
        ("__import__('os')", "__import__ is not known"),
        ("open('x')", "open is not known"),
        ("s.n1.log.clear()", "no methods"),
        ("(lambda: 1)()", "can be called"),
        ("[s for s in servers]", "s already means something"),
        ("f'{s}'", "can't be used"),
        ("2 ** 9 ** 9", "can't be used"),
        ("x == 1", "x is not known"),
    ],
)
def test_an_expression_can_only_look(text: str, word: str) -> None:
    with pytest.raises(UnusableError) as error:
        predicate(text, ("n1", "n2"))
    assert word in str(error.value)


def test_an_expression_that_names_a_server_is_not_symmetric() -> None:
    servers = ("n1", "n2")
    assert predicate("s.n1.log", servers)[1]
    assert predicate("leaders() == ['n1']", servers)[1]
    assert predicate("s[servers[0]].log", servers)[1]
    assert not predicate("any(s[i].commit_index for i in servers)", servers)[1]


def test_a_misspelled_variable_is_named() -> None:
    find, _ = predicate("s.n1.logs", ("n1",))
    with pytest.raises(UnusableError, match=r"can't be evaluated.*logs"):
        find(Model(raft, Bounds(servers=1)).generated.initial())


# --- for somebody at a terminal ----------------------------------------------


def told(**asked: Any) -> tuple[int, str]:
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    code = run_explore(console=console, **asked)
    return code, console.export_text()


def test_holds_is_never_said_without_bounds() -> None:
    code, text = told(bounds=Bounds(servers=2, max_term=1))
    assert code == 0
    assert "holds within bounds" in text
    assert "2 servers, terms up to 1, logs up to 1" in text


def test_a_violation_is_shown_with_its_property_and_its_rule() -> None:
    code, text = told(bounds=Bounds(servers=2, max_term=1), without=["commit.majority"])
    assert code == 1
    assert "violated: committed_on_quorum" in text
    assert "without: commit.majority (section 5.3)" in text
    assert "violated after 6 steps" in text


def test_what_a_limit_cut_off_is_not_success() -> None:
    code, text = told(bounds=Bounds(), limit_states=100)
    assert code == 2
    assert "undecided" in text
    assert "holds" not in text


def test_found_and_not_found() -> None:
    assert told(bounds=Bounds(servers=2, max_term=1), find="len(leaders()) == 1")[0] == 0
    code, text = told(bounds=Bounds(servers=2, max_term=1), find="len(leaders()) == 2")
    assert code == 2
    assert "not found" in text


def test_an_unusable_question_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(bounds=Bounds(), mutant="X99")[0] == 2
    assert capsys.readouterr().err.startswith("error: no mutant is called X99; there are ")
    assert told(bounds=Bounds(max_term=1), start="figure_8")[0] == 2
    assert "doesn't fit the bounds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("1", "comes to 1, not to True or False"),
        ("leaders()", "comes to [], not to True or False"),
        ("s.n1.log[0].term == 1", "list index out of range; in the state: n1 follower, term 0, log []"),
        ("terms('n9') == []", "the state has no n9; it has n1, n2, past, messages"),
        ("max(s.past.committed) > 0", "in the state: n1 follower, term 0, log []; n2 follower"),
        ("not " * 5000 + "True", "not an expression"),
    ],
)
def test_an_expression_that_fails_is_one_line_with_the_state(
    expression: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong in it, it is the question that is unusable, not the checker."""
    assert told(bounds=Bounds(servers=2, max_term=1), find=expression)[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert repr(expression[:100])[:100] in line
    assert why in line


@pytest.mark.parametrize(("name", "most"), MOST.items())
def test_bounds_within_which_a_single_step_takes_forever_are_refused(name: str, most: int) -> None:
    """States are compared under every order of the servers, of which there are n!."""
    bounds: dict[str, Any] = {name: most + 1}
    with pytest.raises(UnusableError, match=f"{name} is {most + 1}; the most that can be explored is {most}"):
        Bounds(**bounds)


def test_as_many_servers_as_are_allowed_can_be_explored() -> None:
    assert explore(raft, Bounds(servers=7), limit_states=1).violation is None


def test_json_is_data() -> None:
    code, text = told(bounds=Bounds(servers=2, max_term=1), without=["commit.majority"], as_json=True)
    data = json.loads(text)
    assert code == 1
    assert (data["verdict"], data["property"]) == ("violated", "committed_on_quorum")
    assert len(data["path"]) == 6
    assert data["trace"][0] == {"raftworthy": 1, "servers": ["n1", "n2"]}
    assert data["bounds"]["max_term"] == 1
