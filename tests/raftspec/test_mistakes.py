"""What an author of a specification gets wrong is refused, with what to write instead."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.expressions import SERVERS, Color, Item, Past, Variables, spec_of

import raftspec
from raftspec import graph, properties, raft, rules, spec, tracing, types, values
from raftspec.spec import Step, when
from raftspec.tracing import SymbolicState, Tracer
from raftspec.types import INDEX, SERVER, Index, Server
from raftspec.values import Map, Seq, forall, ite, no

TRACER = Tracer(spec_of(), SERVERS)
s = SymbolicState(TRACER, 0)
i = TRACER.wrap(TRACER.graph.leaf("param", "i", SERVER))
n = TRACER.wrap(TRACER.graph.leaf("param", "n", INDEX))
me = s[i]

# What is written, and what the message says to write.
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "if": (lambda: 1 if me.flag else 2, r"ite\(c, a, b\)"),
    "and": (lambda: me.flag and me.other_flag, "`&` for `and`"),
    "or": (lambda: me.flag or me.other_flag, "`|` for `or`"),
    "not": (lambda: not me.flag, r"`no\(c\)` for `not`"),
    "~": (lambda: ~me.flag, r"`no\(c\)` for `not`"),
    "chained comparison": (lambda: 0 < n <= me.log.length, r"\(a < b\) & \(b < c\)"),
    "max": (lambda: max(me.index, n), r"ite\(c, a, b\)"),
    "any": (lambda: any(me.votes.has(j) for j in s.servers), r"`some\(\.\.\.\)` for `any`"),
    "in a tuple": (lambda: me.owner in ("n1", i), "`|` for `or`"),
    "in a set": (lambda: i in me.votes, r"votes\.has\(i\)"),
    "in a concrete set": (lambda: i in {"n1"}, r"votes\.has\(i\)"),
    "a key": (lambda: {n: 1}, "no key"),
    "len of a log": (lambda: len(me.log), r"log\.length"),
    "len of a set": (lambda: len(me.votes), r"votes\.size"),
    "range": (lambda: range(n), r"forall\(n, lambda k"),
    "a list's index": (lambda: [1, 2, 3][n], r"forall\(n, lambda k"),
    "iteration over a log": (lambda: list(me.log), r"forall\(n, lambda k"),
    "iteration over a map": (lambda: list(me.table), "for j in s.servers"),
    "iteration over a set": (lambda: [j for j in me.votes], "for j in s.servers"),  # noqa: C416
    "an index in brackets": (lambda: me.log[n], r"log\.at\(n\)"),
    "logs": (lambda: me.log == me.spare, r"a\.agrees\(b, n\)"),
    "unequal logs": (lambda: me.log != me.spare, r"a\.agrees\(b, n\)"),
    "a log and a literal": (lambda: me.log == Seq(), r"a\.agrees\(b, n\)"),
    "a literal and a log": (lambda: Seq() == me.log, r"a\.agrees\(b, n\)"),
    "maps": (lambda: me.table == Map(default=0), "maps' values"),
    "records": (lambda: me.log.last == me.log.at(1), "records' fields"),
    "a record and a literal": (
        lambda: Item(0, 0, Color.RED, None, False) == me.log.last,
        "records' fields",
    ),
    "unequal records": (lambda: me.log.last != me.log.at(1), "records' fields"),
    "term and index": (lambda: me.term < n, r"num num -> bool, not .* \(term\), .* \(index\)"),
    "term equal to index": (lambda: me.term == n, r"scalar scalar -> bool, not .* \(term\), .* \(index\)"),
    "an enum and a number": (lambda: me.color == 3, r"write one of Color\.RED, Color\.GREEN"),
    "an enum and its text": (lambda: me.color == "red", r"write one of Color\.RED, Color\.GREEN"),
    "precedence of &": (lambda: n > 0 & n, "bool bool -> bool"),
    "an unknown server": (lambda: me.owner == "n9", "server or nobody"),
    "a number for a condition": (lambda: me.flag & 1, "expected bool"),
    "literals on both sides": (lambda: ite(me.flag, 1, 2), r"ite\(c, x == 1, x == 2\)"),
    "an unknown change": (lambda: me.but(idnex=n), r"Variables has no idnex; it has flag, .*index"),
    "a plain bool for a rule": (lambda: s.rule("a rule", True), "`|` for `or`"),
    "not in a rule": (lambda: s.rule("a rule", not me.flag), r"`no\(c\)` for `not`"),
    "a rule without a reason": (lambda: s.rule("no rule", me.flag), "table of rules"),
    "a decision on a quantified variable": (
        lambda: forall(n, lambda k: True if k == 1 else me.flag),
        r"ite\(c, a, b\)",
    ),
    "an unbounded type": (lambda: types.type_of(int), "Term, Index, Count"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_type_error_that_says_what_to_write(mistake: str) -> None:
    write, message = MISTAKES[mistake]
    with pytest.raises(TypeError, match=message):
        write()


def test_an_unknown_variable_is_told_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"Variables has no idnex; it has flag, .*index"):
        _ = me.idnex


# --- mistakes in actions -----------------------------------------------------


def trace(act: Callable[..., Any]) -> None:
    act.__annotations__ |= {"i": Server, "n": Index}
    tracer = Tracer(spec_of(act), SERVERS)
    tracer.transition(tracer.spec.actions["act"])


def refuse(act: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trace(act)


def test_an_if_in_a_loop_is_refused() -> None:
    def act(s: Any, i: Any, n: Any) -> Step:
        votes = 0
        for j in s.servers:
            for k in range(4):
                if s[j].index > k:
                    votes += 1
        return Step(i, when("enough", no(n == votes)))

    refuse(act, r"`if` in a loop over servers.*write count\(...\)")


@pytest.mark.parametrize("condition", ["0 < n <= s[i].index", "n > 0 and s[i].flag", "n > 0 or s[i].flag"])
def test_a_rule_is_asked_with_a_whole_condition(condition: str) -> None:
    def act(s: Any, i: Any, n: Any) -> Step:
        return Step(i, when("allowed", s.rule("a rule", eval(condition, {"n": n, "s": s, "i": i}))))

    refuse(act, r"\(a < b\) & \(b < c\)")


def test_an_action_returns_a_step() -> None:
    def act(s: Any, i: Any, n: Any) -> Any:
        return s[i]

    refuse(act, "an action returns a Step")


def test_an_action_changes_one_server() -> None:
    def act(s: Any, i: Any, n: Any) -> Step:
        return Step(i, then=s[i]) if n > 0 else Step("n1", then=s["n1"])

    refuse(act, "two different servers")


def test_a_rule_is_taken_away_in_one_way() -> None:
    def act(s: Any, i: Any, n: Any) -> Step:
        return Step(
            i,
            when("once", s.rule("a rule", n > 0)),
            when("twice", s.rule("a rule", n > 1, without=False)),
        )

    refuse(act, "two different ways")


def test_a_map_defaults_to_its_types_zero() -> None:
    class Wrong(Variables):
        table: Map[Server, Index] = Map(default=5)

    Wrong.__annotations__["table"] = Map[Server, Index]
    with pytest.raises(TypeError, match=r"table: write Map\(default=0\)"):
        spec.Spec(server=Wrong, history=Past, rules={})


# --- what Python decides itself, read from the text ---------------------------

SPECIFIED = [
    path
    for name in ("raft", "properties", "mutants")
    if (path := Path(raftspec.__file__).with_name(f"{name}.py")).exists()
]


def slips(source: str) -> list[str]:
    """Where a specification's text says what Python decides before tracing can refuse it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.UnaryOp(op=ast.Invert()):
                found.append(f"{node.lineno}: write no(c) for `~`: on a plain bool it is always true")
            case ast.Compare() if any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
                found.append(f"{node.lineno}: write `==` for `is`: an expression is never the same object")
            case ast.Compare() if len(node.ops) > 1:
                found.append(f"{node.lineno}: write (a < b) & (b < c) for `a < b < c`")
    return found


@pytest.mark.parametrize("path", SPECIFIED, ids=lambda path: path.name)
def test_the_specification_has_no_slips(path: Path) -> None:
    assert not slips(path.read_text())


@pytest.mark.parametrize("text", ["~c", "a is b", "a is not b", "0 < n < m"])
def test_a_slip_is_found(text: str) -> None:
    assert len(slips(text)) == 1


# --- no module remembers ------------------------------------------------------

MODULES = (graph, properties, raft, rules, spec, tracing, types, values)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_a_module_has_only_constants(module: ModuleType) -> None:
    """Two tracers in one process know nothing of each other."""
    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    mutable = [
        name
        for name, x in vars(module).items()
        if isinstance(x, dict | list | set) and name != "__builtins__"
    ]
    assert all(name.isupper() or name.startswith("__") for name in mutable), mutable


def test_tracing_changes_no_modules_tables() -> None:
    before = [repr({k: v for k, v in vars(m).items() if k.isupper()}) for m in MODULES]
    tracer = Tracer(raft.raft, SERVERS)
    for action in raft.raft.actions.values():
        tracer.transition(action)
    assert before == [repr({k: v for k, v in vars(m).items() if k.isupper()}) for m in MODULES]


def test_a_loop_that_depends_on_a_condition_is_refused() -> None:
    """It would never end: each new condition is first taken to hold."""

    def endless(s: Any) -> bool:
        k = 0
        while s["n1"].log.length >= k:
            k += 1
        return True

    with pytest.raises(TypeError, match="endless asks more than 500 conditions"):
        Tracer(spec_of(), SERVERS).property(endless)


def test_a_property_may_branch() -> None:
    """As an action may: it is traced once per path."""

    def claim(s: Any) -> bool:
        return s["n1"].other_flag if s["n1"].flag else False

    tracer = Tracer(spec_of(), SERVERS)
    both = tracer.property(lambda s: s["n1"].flag & s["n1"].other_flag)
    assert tracer.property(claim) is both
