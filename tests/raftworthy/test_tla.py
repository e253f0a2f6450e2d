"""The TLA+ export: what the text says, and, where there is TLC, that it counts and finds what we do.

To run all of it: TLA2TOOLS_JAR=tla2tools.jar pytest tests/raftworthy/test_tla.py
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.expressions import (
    SERVERS,
    Form,
    Tree,
    applications,
    build,
    evaluate,
    names,
    random_state,
    spec_of,
)

from raftspec.extensions import EXTENSIONS, having
from raftspec.graph import OPERATIONS, Node
from raftspec.mutants import MUTANTS
from raftspec.properties import raft
from raftspec.rules import POLICY, RULES
from raftspec.spec import State
from raftspec.tracing import SymbolicState, Tracer
from raftspec.types import SERVER, Record
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.cases import MUTANT_CASES, RULE_CASES, Case
from raftworthy.explore.model import Model
from raftworthy.explore.reference import explore_model
from raftworthy.tla import comparing, expressions
from raftworthy.tla.expressions import CLOSED, COMPARED, JOINED, OPEN, Rule, Text, Writer, hang, record
from raftworthy.tla.module import RESERVED, definitions, export
from raftworthy.tla.tlc import Checked, run_tlc

JAR = os.environ.get("TLA2TOOLS_JAR", "")
needs_tlc = pytest.mark.skipif(not JAR, reason="TLA2TOOLS_JAR names no tla2tools.jar")
SMALL = Bounds(servers=2, max_term=1)


KEYWORDS = frozenset({
    "ELSE", "EXCEPT", "EXTENDS", "FALSE", "FiniteSets", "IF", "IN", "Integers", "LET", "MODULE", "Raft",
    "Sequences", "THEN", "TRUE", "UNCHANGED", "VARIABLES",
})  # fmt: skip


@cache
def module_of(bounds: Bounds = SMALL, without: frozenset[str] = frozenset()) -> str:
    return export(Model(raft, bounds, without)).module


def definition(name: str, module: str) -> str:
    """A definition's text."""
    found = re.search(rf"^{name}(\(.*\))? ==(.*\n)+?(?=\n)", module, re.MULTILINE)
    assert found is not None, f"{name} is not defined"
    return found[0]


# --- the text ----------------------------------------------------------------


@pytest.mark.parametrize("bounds", [SMALL, Bounds(crashes=1, max_messages=7), Bounds(servers=5)], ids=str)
def test_a_module_defines_all_that_it_mentions(bounds: Bounds) -> None:
    """Names, brackets, and each action and property of the specification."""
    module, config = export(Model(raft, bounds))
    assert module.endswith("=" * 80 + "\n")
    for name in (*raft.actions, *raft.properties):
        assert definition(name, module)
    assert set(config.split()) >= raft.properties.keys()
    bare = re.sub(r"\\\*.*|\"[^\"]*\"", "", module)  # without comments and strings
    assert all(bare.count(a) == bare.count(b) for a, b in ("()", "[]", "{}", ("<<", ">>")))
    assert not re.search(r"[ \t]$", module, re.MULTILINE)
    defined = set(re.findall(r"(\w+)(?:\([\w, ]*\))? (?:==|\|->)", bare))
    for some in re.findall(r"([\w, <>]+) \\in|^\w+\(([\w, ]+)\) ==", bare, re.MULTILINE):
        defined |= set(re.findall(r"\w+", " ".join(some)))
    mentioned = set(re.findall(r"(?<![.!\w\\])[A-Za-z]\w*", bare))
    unknown = mentioned - defined - RESERVED - KEYWORDS
    assert not unknown, f"not defined: {', '.join(sorted(unknown))}"


def test_the_same_model_gives_the_same_text() -> None:
    assert export(Model(raft, SMALL)) == export(Model(raft, SMALL))


def test_what_is_said_of_every_server_is_said_once() -> None:
    """Actions and properties read the same for any number of servers; only a quorum's size differs."""
    three, four = (module_of(Bounds(servers=n)).split("\nInit ==")[1] for n in (3, 4))
    differ = [(a, b) for a, b in zip(three.splitlines(), four.splitlines(), strict=True) if a != b]
    assert differ
    for a, b in differ:
        assert a.replace("3 <", "4 <") == b or ('"n1", "n2"' in a and '"n3", "n4"' in b), (a, b)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_defined_unless_it_is_taken_away(rule: str) -> None:
    name = rule.replace(".", "_")
    said = rf"^ +{name}(_\d)? ==|^    LET {name} ==|\\\* Follows .*{re.escape(rule)}"
    comment = r"\\\* (Follows [\w., ]*\n\\\* )"  # a comment may go on in the next line
    complete = re.sub(comment, r"\\* Follows ", module_of())
    assert re.search(said, complete, re.MULTILINE), f"{rule} is not in the module"
    assert not re.search(said, module_of(without=frozenset({rule})), re.MULTILINE)


def test_a_rule_stands_with_its_section_and_reason_once() -> None:
    module = " ".join(module_of().replace("\\*", "").split())
    for rule, what in RULES.items():
        if re.search(rf"^ .*\b{rule.replace('.', '_')} ==", module_of(), re.MULTILINE):
            assert module.count(f"{what.section}: {what.why}") == 1, rule


BECOME_LEADER = """\
become_leader(i) ==
    LET me == server[i]
        \\* 5.2: Who gave up an election, for a newer term or another leader, must not win it afterwards.
        election_candidate_only == me.role = "candidate"
        \\* 5.2: Two majorities share a voter, and that one votes once: so a term has one leader at most.
        election_majority == 2 < Cardinality(me.votes) + Cardinality(me.votes)
    IN
    /\\ election_candidate_only  \\* i is candidate
    /\\ election_majority  \\* a quorum voted for i
    /\\ server' = [server EXCEPT ![i] = [me EXCEPT
           !.role = "leader",
           !.votes = {},
           !.next_index = [j \\in Servers |-> Len(me.log) + 1]]]
    /\\ past' = [past EXCEPT !.leaders = [past.leaders EXCEPT ![me.current_term] = i]]
    /\\ UNCHANGED <<messages>>
"""


def test_an_action_reads_like_the_specification() -> None:
    assert definition("become_leader", module_of()) == BECOME_LEADER


def test_bounds_are_guards() -> None:
    """So that TLC counts nothing beyond them; a constraint would let it count the first state beyond."""
    module, config = export(Model(raft, Bounds(max_messages=7, crashes=2)))
    assert "CONSTRAINT" not in config
    assert "/\\ me.current_term < 2  \\* within bounds" in definition("timeout", module)
    assert "/\\ past.restarts < 2  \\* within bounds" in definition("restart", module)
    sending = [name for name in raft.actions if "messages' = messages" in definition(name, module)]
    for name in sending:
        assert "/\\ Cardinality(messages') <= 7  \\* within bounds" in definition(name, module)
    assert set(sending) == {"timeout", "handle_request_vote", "append_entries", "handle_append_entries"}


def test_a_module_begins_where_it_is_told() -> None:
    model, begun = Case(Bounds(commands=2), "rivals").begun(raft)
    first = definition("Init", export(model, begun.world).module)
    assert first.count("|-> [kind") == 0
    assert first.count("[kind |->") == len(begun.world.messages)
    assert 'i = "n3" -> [role |-> "leader"' in first
    assert "log |-> <<[term |-> 1, value |-> 1]>>" in first


def test_the_head_says_what_it_is_of() -> None:
    mutant = MUTANTS["R08"]
    head = export(Model(raft, SMALL, mutant=mutant), command="raftworthy export tla").module.split("EXTENDS")[
        0
    ]
    head = " ".join(head.replace("\\*", "").split())
    assert str(SMALL) in head
    assert mutant.story in head
    assert "replicate.ack_success" in head
    assert "raftworthy export tla" in head


def test_properties_can_be_chosen() -> None:
    module, config = export(Model(raft, SMALL), properties=["vote_is_kept"])
    assert "vote_is_kept" in config
    assert "election_safety" not in config + module
    with pytest.raises(UnusableError, match="no property is called nonsense"):
        export(Model(raft, SMALL), properties=["nonsense"])


def test_whoever_chooses_otherwise_is_not_held_to_figure_2() -> None:
    assert "next_index_after_match" not in export(Model(raft, SMALL, any_policy=True)).config
    assert "next_index_after_match" in export(Model(raft, SMALL, POLICY - {"vote.refuse"})).config


# --- TLC ---------------------------------------------------------------------


def check(model: Model, folder: Path, **more: Any) -> Checked:
    return run_tlc(Path(JAR), export(model, **more).write(folder))


COUNTED = [
    Case(Bounds(servers=1, max_log=2, crashes=1)),
    Case(Bounds(servers=2)),
    Case(Bounds(servers=2, max_term=1, applies=True)),
    Case(Bounds(servers=2, max_log=2, commands=2, entries=2, max_messages=6, crashes=1)),
    Case(Bounds(max_term=1, max_messages=7, crashes=1)),
    Case(Bounds(max_log=0, max_messages=7)),
    Case(Bounds(servers=2, max_term=1), any_policy=True),
    Case(Bounds(commands=2, max_messages=9), "rivals"),
]


@needs_tlc
@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_tlc_counts_the_same_states(case: Case, tmp_path: Path) -> None:
    """To the digit: successors (TLC counts the first state as one) and distinct states."""
    model, begun = case.begun(raft)
    ours = explore_model(model, symmetry=False, start=begun)
    theirs = check(model, tmp_path, start=begun.world)
    assert ours.exhausted
    assert theirs.violated is None
    assert (theirs.states, theirs.distinct) == (ours.states + 1, ours.distinct)


# A bound for each extension at which all of its actions are possible, and few states.
EXTENDED = {
    name: Bounds(servers=2, max_term=1, max_messages=5, extensions=(name,)) for name in EXTENSIONS
} | {
    "membership": Bounds(2, 1, 2, 5, commands=2, changes=2, extensions=("membership",)),
    "sessions": Bounds(1, 1, 2, 2, extensions=("sessions",)),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_a_module_is_written_with_each_extension(name: str) -> None:
    spec = having(name)
    module, config = export(Model(spec, EXTENDED[name]))
    for action in spec.actions:
        assert definition(action, module)
    assert set(config.split()) >= spec.properties.keys()


@needs_tlc
@pytest.mark.parametrize("name", EXTENDED)
def test_tlc_counts_the_same_states_with_each_extension(name: str, tmp_path: Path) -> None:
    model = Model(having(name), EXTENDED[name])
    ours = explore_model(model, symmetry=False)
    theirs = check(model, tmp_path, start=model.generated.initial())
    assert ours.exhausted
    assert (theirs.violated, theirs.distinct) == (None, ours.distinct)
    assert theirs.states == ours.states + 1


BROKEN: dict[str, tuple[Case, set[str]]] = {
    rule: (RULE_CASES[rule], {rule})
    for rule in (
        "term.step_down",
        "vote.once_per_term",
        "commit.never_back",
        "restart.keep_log",
        "commit.majority",
    )
} | {name: (MUTANT_CASES[name], set()) for name in ("E02", "E10", "E16", "R01", "R04", "R05", "R11", "R16")}


@needs_tlc
@pytest.mark.parametrize("name", BROKEN)
def test_tlc_finds_the_same_disaster(name: str, tmp_path: Path) -> None:
    """The same property, and a counterexample as short as ours."""
    case, without = BROKEN[name]
    model, begun = case.begun(raft, without, MUTANTS.get(name))
    ours = explore_model(model, symmetry=False, start=begun)
    theirs = check(model, tmp_path, start=begun.world)
    assert ours.violation is not None
    assert theirs.violated == ours.violation.property
    assert len(theirs.actions) == len(ours.violation.path) - len(begun)
    assert set(theirs.actions) <= raft.actions.keys()


# A slip for each operation, as somebody could make it.
WRONG_RULES = {
    "eq": Rule("{} # {}", COMPARED, OPEN),
    "lt": Rule("({} <= {})", COMPARED, JOINED),
    "le": Rule("({} < {})", COMPARED, JOINED),
    "add": Rule("(({}) - ({}))", OPEN, OPEN),
    "sub": Rule("(({}) + ({}))", OPEN, OPEN),
    "set_has": Rule("({1} \\notin {0})", COMPARED, JOINED),
    "set_size": Rule("(Cardinality({}) + 1)", OPEN, OPEN),
    "map_get": Rule("{0}[CHOOSE k \\in DOMAIN {0} : k # {1}]", CLOSED, CLOSED),
    "len": Rule("(Len({}) + 1)", OPEN, OPEN),
    "prefix": Rule("Slice({}, 0, {} + 1)", OPEN, OPEN),
    "slice": Rule("Slice({}, {} + 1, {})", OPEN, OPEN),
    "append": Rule("(<<{1}>> \\o {0})", OPEN, OPEN),
    "concat": Rule("({1} \\o {0})", OPEN, OPEN),
    "agrees": Rule("Agrees({}, {}, {} - 1)", OPEN, OPEN),
}


def _swapped(w: Writer, n: Node) -> Text:
    c, x, y = (w.expr(a).text for a in n.args)
    return Text(f"IF {c} THEN {y} ELSE {x}", OPEN)


def _negated(right: Callable[[Writer, Node], Text]) -> Callable[[Writer, Node], Text]:
    return lambda w, n: Text(hang("~(", right(w, n).text) + ")")


WRONG_METHODS: dict[str, Callable[[Writer, Node], Text]] = {
    "not": lambda w, n: w.expr(n.args[0]),
    "and": lambda w, n: Writer._junction(w, n, "\\/", "\\E", "/\\"),
    "or": lambda w, n: Writer._junction(w, n, "/\\", "\\A", "=>"),
    "ite": _swapped,
    "count": lambda w, n: Text(f"(IF {w.expr(n.args[0]).text} THEN 1 ELSE 0) + 0"),
    "rule": _negated(Writer.op_rule),
    "set_add": lambda w, n: w.expr(n.args[0]),
    "map_set": lambda w, n: w.expr(n.args[0]),
    "at": lambda w, n: Text(f"ItemAt({w.expr(n.args[0]).text}, {w.expr(n.args[1]).text} + 1)"),
    "record": lambda w, n: Text(
        record({name: w.expr(n.args[0 if k < 2 else k]).text for k, name in enumerate(n.attr.cls.types())})
    ),
    "field": lambda w, n: Text(f"{w.expr(n.args[0]).within(9)}.{'term' if n.attr == 'value' else n.attr}"),
    "forall": lambda w, n: Writer._quantified(w, n, "\\E"),
    "exists": lambda w, n: Writer._quantified(w, n, "\\A"),
    "latest": lambda w, n: Text(
        Writer.op_latest(w, n).text.replace("1..", "0..", 1).replace("Latest", "1 + Latest", 1)
    ),
}
QUICK = settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def claims(op: str) -> list[str]:
    """For random uses of an operation, on random states: its text equals what the operation means."""
    out: list[str] = []
    rng = Random(op)

    @QUICK
    @given(applications(op))
    def collect(use: tuple[Form, Tree]) -> None:
        form, tree = use
        spec = spec_of()
        tracer = Tracer(spec, SERVERS)
        symbolic = SymbolicState(tracer, 0)
        servers = [tracer.wrap(tracer.graph.const(k, SERVER)) for k in ("n1", "n2")]
        node = tracer.lift(build(tree, symbolic, names(symbolic, *servers)), form.result)
        s = random_state(rng)
        w = Writer(SERVERS, RESERVED)
        expected = w.literal(evaluate(node, s, {}), form.result)
        text = hang("(", w.expr(node).text) + f") = {expected}"
        out.append(hang(f"LET {_state(w, s)} IN ", text))

    collect()
    return out


def _state(w: Writer, s: State[Any, Any]) -> str:
    def values(r: Record) -> str:
        types = type(r).types()
        return record({name: w.literal(getattr(r, name), t) for name, t in types.items()})

    cases = " [] ".join(hang(f'who = "{i}" -> ', values(s[i])) for i in SERVERS)
    return f"server == [who \\in Servers |-> CASE {cases}] past == {values(s.past)}".replace("\n", " ")


def failed(found: dict[str, list[str]], folder: Path) -> set[str]:
    """The operations of which TLC finds a claim false."""
    lines = ["---- MODULE Raft ----", "EXTENDS Integers, Sequences, FiniteSets, TLC"]
    lines += [definitions(spec_of(), SERVERS, 20, 20).replace("0..20", "(-20)..20")]
    lines += [
        hang(f'ASSUME PrintT(<<"{op}", {k}, ', claim) + ">>)"
        for op, texts in found.items()
        for k, claim in enumerate(texts)
    ]
    (folder / "Raft.tla").write_text(
        "\n".join([*lines, "VARIABLE x", "Spec == x = 0 /\\ [][x' = x]_x", "===="])
    )
    (folder / "Raft.cfg").write_text("SPECIFICATION Spec\n")
    out = run_tlc(Path(JAR), folder / "Raft.tla").output
    said = re.findall(r'<<"(\w+)", (\d+), (TRUE|FALSE)>>', out)
    assert len(said) == sum(map(len, found.values())), out
    return {op for op, _, holds in said if holds == "FALSE"}


@needs_tlc
def test_each_operation_means_in_tla_what_it_means(tmp_path: Path) -> None:
    assert failed({op: claims(op) for op in OPERATIONS}, tmp_path) == set()


def test_there_is_a_slip_for_each_operation() -> None:
    assert WRONG_RULES.keys() | WRONG_METHODS.keys() == OPERATIONS.keys()


@needs_tlc
def test_a_slip_in_any_operation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for op in OPERATIONS:
        with monkeypatch.context() as slip:
            if op in WRONG_RULES:
                slip.setitem(expressions.RULES, op, WRONG_RULES[op])
            else:
                slip.setattr(Writer, f"op_{op}", WRONG_METHODS[op])
            found[op] = claims(op)
    assert failed(found, tmp_path) == OPERATIONS.keys()


# --- running TLC -------------------------------------------------------------

HOLDS = """\
Model checking completed. No error has been found.
75 states generated, 65 distinct states found, 0 states left on queue.
"""
VIOLATED = """\
Error: Action property vote_is_kept is violated.
State 1: <Initial predicate>
State 2: <timeout line 54, col 5 to line 69, col 25 of module Raft>
State 3: <restart line 343, col 5 to line 353, col 29 of module Raft>
8 states generated, 7 distinct states found, 4 states left on queue.
"""


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A `java` that only prints; returns a module for it to check."""

    def prints(text: str) -> Path:
        (tmp_path / "java").write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        (tmp_path / "java").chmod(stat.S_IRWXU)
        (tmp_path / "tla2tools.jar").touch()
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        return export(Model(raft, SMALL)).write(tmp_path)

    return prints


def test_what_tlc_says_is_read(java: Callable[[str], Path], tmp_path: Path) -> None:
    jar = tmp_path / "tla2tools.jar"
    holds = run_tlc(jar, java(HOLDS))
    assert (holds.states, holds.distinct, holds.violated, holds.actions) == (75, 65, None, ())
    violated = run_tlc(jar, java(VIOLATED))
    assert (violated.violated, violated.actions) == ("vote_is_kept", ("timeout", "restart"))


@pytest.mark.parametrize(
    "text", ["Error: Parsing or semantic analysis failed.\n", HOLDS.splitlines()[1] + "\n"]
)
def test_what_tlc_could_not_check_is_no_success(
    text: str, java: Callable[[str], Path], tmp_path: Path
) -> None:
    """Half a run counts states, too."""
    with pytest.raises(UnusableError, match="TLC could not check"):
        run_tlc(tmp_path / "tla2tools.jar", java(text))


def test_without_tlc_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    with pytest.raises(UnusableError, match=r"there is no file .*none\.jar"):
        run_tlc(tmp_path / "none.jar", tmp_path / "Raft.tla")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnusableError, match="TLC needs Java"):
        run_tlc(tmp_path / "none.jar", tmp_path / "Raft.tla")


def test_different_counts_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio of two different models means nothing."""
    pytest.importorskip("llvmlite")
    bounds = Bounds(servers=2, max_term=1, max_messages=4)
    result = explore_model(Model(raft, bounds), symmetry=False)
    right = Checked(result.states + 1, result.distinct, None, (), 2.0, "")
    monkeypatch.setattr(comparing, "run_tlc", lambda *_: right)
    (row,) = comparing.compare(Path(), [bounds], 1, lambda done, total: None)
    assert (row.distinct, row.successors, row.tlc) == (result.distinct, result.states, 2.0)
    assert f"| 4 | {row.distinct} |" in comparing.table([row])
    monkeypatch.setattr(comparing, "run_tlc", lambda *_: right._replace(distinct=right.distinct + 1))
    with pytest.raises(UnusableError, match="one of the back ends is wrong"):
        comparing.compare(Path(), [bounds], 1, lambda done, total: None)
