"""Formulas for any number of servers: on few servers each means what the specification's values mean."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import z3
from tests.raftworthy.finite import Finite
from tests.raftworthy.test_native import BOUNDS, EXPRESSIONS, NEXT, random_value

from raftspec.anynumber import AnyNumber
from raftspec.graph import OPERATIONS, OVER_SERVERS
from raftspec.raft import Entry, raft
from raftspec.types import BOOL, INDEX, SERVER, SERVER_SET, TERM, VALUE, Type
from raftspec.values import count, every, ite, set_each, some, those
from raftworthy.explore.bounds import UnusableError
from raftworthy.prove.unbounded import terms
from raftworthy.prove.unbounded import values as v
from raftworthy.prove.unbounded.formulas import both, either, no
from raftworthy.prove.unbounded.formulas import every as for_all
from raftworthy.prove.unbounded.formulas import some as for_some
from raftworthy.prove.unbounded.terms import Terms
from raftworthy.prove.unbounded.values import Entries, Members, Size, Table

SERVERS = BOUNDS.names

# What is said of all servers: by the same function, once on values and once traced.
OVER: dict[str, list[tuple[tuple[Type, ...], Callable[..., Any]]]] = {
    "every_server": [
        ((NEXT, INDEX), lambda all, m, a: every(m[j] <= a for j in all)),
        ((NEXT, INDEX), lambda all, m, a: some(m[j] == a for j in all)),
        ((NEXT, INDEX), lambda all, m, a: every(some(m[i] + m[j] == a for j in all) for i in all)),
    ],
    "count_servers": [
        ((NEXT, INDEX), lambda all, m, a: count(m[j] <= a for j in all) == 0),
        ((NEXT, INDEX), lambda all, m, a: count(m[j] <= a for j in all) == 1),
        ((NEXT, INDEX), lambda all, m, a: count(m[j] <= a for j in all) <= 1),
        ((NEXT, INDEX), lambda all, m, a: count(m[j] <= a for j in all) > 1),
        ((NEXT, INDEX), lambda all, m, a: majority(all, count(m[j] <= a for j in all))),
        ((NEXT, INDEX), lambda all, m, a: minority(all, count(m[j] <= a for j in all))),
        ((SERVER_SET, SERVER_SET), lambda all, s, voters: majority_of(all, s, voters)),
        ((SERVER_SET, SERVER_SET), lambda all, s, voters: no_majority_of(all, s, voters)),
    ],
    "set_size": [
        ((SERVER_SET,), lambda all, s: majority(all, s.size)),
        ((SERVER_SET, SERVER), lambda all, s, i: majority(all, s.add(i).size)),
        ((SERVER_SET,), lambda all, s: minority(all, s.size)),
        ((SERVER_SET,), lambda all, s: s.size < 2),
        ((SERVER_SET,), lambda all, s: s.size > 0),
    ],
    "those": [((NEXT, INDEX), lambda all, m, a: those(all, lambda j: m[j] <= a))],
    "set_each": [((NEXT, INDEX), lambda all, m, a: set_each(m, all, lambda j: m[j] + a))],
    "before": [
        (
            (NEXT, INDEX),
            lambda all, m, a: some((i < j) & (m[i] == a) & (m[j] < m[i]) for i in all for j in all),
        )
    ],
}
assert OVER_SERVERS.keys() <= OVER.keys()


def majority(servers: Any, size: Any) -> Any:
    return number(servers) < size + size


def minority(servers: Any, size: Any) -> Any:
    return size + size <= number(servers)


def majority_of(servers: Any, s: Any, voters: Any) -> Any:
    size = count(s.has(j) for j in servers)
    return count(voters.has(j) for j in servers) < size + size


def no_majority_of(servers: Any, s: Any, voters: Any) -> Any:
    size = count(s.has(j) for j in servers)
    return size + size <= count(voters.has(j) for j in servers)


def number(servers: Any) -> Any:
    return servers.tracer.number_of_servers() if hasattr(servers, "tracer") else len(servers)


def first_difference(
    types: tuple[Type, ...], f: Callable[..., Any], over: bool, seed: str, tries: int = 25
) -> str | None:
    """Where the proof's rule and the meaning of an operation differ, if they do."""
    rng = random.Random(seed)
    tracer = AnyNumber(raft)
    params = [tracer.wrap(tracer.graph.leaf("param", f"p{k}", t)) for k, t in enumerate(types)]
    node = tracer.lift(f(tracer.servers, *params) if over else f(*params), None)
    # Wide enough for what an operation makes of the numbers below; the meaning of a bound variable is exact.
    finite = Finite(SERVERS, range(-5, 11))
    environment = {f"p{k}": v.unknown(t, f"p{k}")() for k, t in enumerate(types)}
    value = Terms(finite.named, environment=environment).value(node)
    for _ in range(tries):
        args = [small(random_value(rng, t)) for t in types]
        for k, (t, x) in enumerate(zip(types, args, strict=True)):
            finite.given(t, f"p{k}", lambda *a, x=x: x)
        expected = f(SERVERS, *args) if over else f(*args)
        if not finite.same(node.type, value, expected):
            return f"{node!r} of {args} (seed {seed!r}) is {expected!r}, and not in the proof"
    return None


def small(x: Any) -> Any:
    """Numbers up to what a bound variable runs over."""
    return max(-5, min(5, x)) if type(x) is int else x


# As it knows no command but "none".
TWO_ENTRIES = ((TERM, VALUE, VALUE, BOOL), lambda t, x, y, c: ite(c, Entry(t, x), Entry(t, y)))


def differs(op: str) -> str | None:
    cases = [(types, f, False) for types, f in EXPRESSIONS.get(op, []) if op != "record"]
    if op == "record":
        cases = [(*TWO_ENTRIES, False)]
    cases += [(types, f, True) for types, f in OVER.get(op, [])]
    found = (first_difference(types, f, over, f"{op}{k}") for k, (types, f, over) in enumerate(cases))
    return next((x for x in found if x), None)


@pytest.mark.parametrize("op", [*OPERATIONS, *OVER_SERVERS])
def test_an_operation_means_in_the_proof_what_it_means(op: str) -> None:
    assert differs(op) is None


good = dict(terms.RULES)


def longer(q: Entries) -> Entries:
    return Entries(q.length + 1, q.at)


# Slips that are easily made, each in one rule.
SLIPS: list[tuple[str, Callable[..., Any]]] = [
    ("not", lambda w, n, a: a),
    ("and", lambda w, n, a, b: either(a, b)),
    ("or", lambda w, n, a, b: both(a, b)),
    ("eq", lambda w, n, a, b: no(v.same(a, b))),
    ("eq", lambda w, n, a, b: either(no(a), b) if n.args[0].type.kind == "bool" else good["eq"](w, n, a, b)),
    ("lt", good["le"]),
    ("le", good["lt"]),
    ("add", lambda w, n, a, b: a - b),
    ("sub", lambda w, n, a, b: b - a),
    ("sub", lambda w, n, a, b: z3.If(a < b, z3.IntVal(0), a - b)),
    ("ite", lambda w, n, c, a, b: w.where(c, b, a)),
    ("count", lambda w, n, *cs: good["count"](w, n, *cs[1:])),
    ("rule", lambda w, n, c: True),
    ("set_add", lambda w, n, s, i: s),
    ("set_add", lambda w, n, s, i: Members(lambda j: v.same(i, j))),
    ("set_has", lambda w, n, s, i: no(s.has(i))),
    ("set_size", lambda w, n, s: Size(Members(lambda j: no(s.has(j))))),
    ("map_get", lambda w, n, m, k: m.at(v.NO_SERVER if n.args[1].type == SERVER else k + 1)),
    ("map_set", lambda w, n, m, k, x: m),
    ("map_set", lambda w, n, m, k, x: Table(lambda key: x)),
    ("len", lambda w, n, q: q.length - 1),
    ("at", lambda w, n, q, k: q.at(k - 1)),
    ("prefix", lambda w, n, q, k: q),
    ("prefix", lambda w, n, q, k: Entries(good["prefix"](w, n, q, k).length, q.at)),
    ("prefix", lambda w, n, q, k: Entries(k, good["prefix"](w, n, q, k).at)),
    ("slice", lambda w, n, q, a, b: good["prefix"](w, n, q, b)),
    ("slice", lambda w, n, q, a, b: Entries(good["slice"](w, n, q, a, b).length, lambda x: q.at(a + x))),
    ("slice", lambda w, n, q, a, b: Entries(b - a, good["slice"](w, n, q, a, b).at)),
    ("append", lambda w, n, q, x: longer(q)),
    ("append", lambda w, n, q, x: Entries(q.length, good["append"](w, n, q, x).at)),
    ("concat", lambda w, n, q, r: good["concat"](w, n, r, q)),
    ("concat", lambda w, n, q, r: Entries(q.length + r.length, q.at)),
    ("agrees", lambda w, n, q, r, k: both(k <= q.length, k <= r.length)),
    ("agrees", lambda w, n, q, r, k: good["agrees"](w, n, q, r, k - 1)),
    ("agrees", lambda w, n, q, r, k: for_all(v.NUMBER_SORT, lambda x: v.same(q.at(x), r.at(x)))),
    ("agrees", lambda w, n, q, r, k: both(k <= q.length, good["agrees"](w, n, q, q, k))),
    ("forall", lambda w, n, top: good["forall"](w, n, top - 1)),
    ("forall", lambda w, n, top: good["exists"](w, n, top)),
    ("exists", lambda w, n, top: good["exists"](w, n, top + 1)),
    ("exists", lambda w, n, top: good["forall"](w, n, top)),
    ("latest", lambda w, n, top: good["latest"](w, n, top - 1)),
    ("latest", lambda w, n, top: z3.If(top < 0, z3.IntVal(0), top)),
    ("record", lambda w, n, *fields: (fields[0], v.NOTHING)),
    ("field", lambda w, n, record: record[0] if n.attr == "value" else record[0] + 1),
    ("every_server", lambda w, n: w.inside(n.attr, v.NO_SERVER).value(n.args[-1])),
    ("every_server", lambda w, n: no(good["every_server"](w, n))),
    ("count_servers", lambda w, n: Size(Members(lambda j: no(good["count_servers"](w, n).of.has(j))))),
    ("count_servers", lambda w, n: Size(good["count_servers"](w, n).of, 2)),
    ("those", lambda w, n: Members(lambda j: no(good["those"](w, n).has(j)))),
    ("set_each", lambda w, n, m: m),
    ("before", lambda w, n, i, j: terms.before(j, i)),
]  # fmt: skip
assert {op for op, _ in SLIPS} == OPERATIONS.keys() | OVER_SERVERS.keys()


@pytest.mark.parametrize(("op", "slip"), SLIPS, ids=[f"{op}-{k}" for k, (op, _) in enumerate(SLIPS)])
def test_a_wrong_rule_is_noticed(op: str, slip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would have found it: as another answer, or as something that can't be computed."""
    monkeypatch.setattr(terms, "RULES", {**good, op: slip})
    try:
        found = differs(op)
    except UnusableError as e:
        found = str(e)
    assert found


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: s.has(v.NO_SERVER),
        lambda s: for_some(v.QUORUM_SORT, lambda q: terms.within(q, s), "q"),
        lambda s: for_all(v.QUORUM_SORT, lambda q: either(no(v.quorum(q)), terms.within(q, s)), "q"),
        lambda s: no(terms.within(v.EVERYBODY, s)),
    ],
)  # fmt: skip
def test_a_majority_that_is_none_is_noticed(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "is_quorum", wrong)
    assert differs("set_size")
    assert differs("count_servers")
