"""What Raft's invariant is missing without a rule, as `raftworthy prove --record-failures` found it.

Z3 takes seconds to say which action breaks which claim first, so it is recorded. A record is shown only as
long as a hash of the specification without the rule is the same, and after Python has taken its step again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from raftspec.extensions import EXTENSIONS
from raftspec.mutants import MUTANTS
from raftspec.rules import RULES
from raftspec.types import Record, Type
from raftworthy.explore.broken_steps import Counterexample, Question, confirmed, plain, sizes, witnessed
from raftworthy.explore.identity import key
from raftworthy.explore.model import Model
from raftworthy.generated import Variables

PLACE = Path(__file__).with_name("unkept.json")


class Row(msgspec.Struct, frozen=True):
    """The first claim that a step breaks without a rule or with a bug, and the smallest such step.

    Of the state before, what isn't as in the initial one: by server, and history. `size` is how many servers
    there are, up to which terms, with logs up to which length.
    """

    name: str
    size: tuple[int, int, int]
    key: str
    action: str
    claim: str
    before: dict[str, dict[str, Any]]
    past: dict[str, Any]
    step: list[Any]
    about: dict[str, Any]


def extensions_of(name: str) -> tuple[str, ...]:
    """What Raft has beside Figure 2 where a rule, or a known bug, is at home."""
    if name in MUTANTS:
        return MUTANTS[name].extensions
    return () if name in RULES else tuple(x for x, e in EXTENSIONS.items() if name in e.rules)


def first_unkept(name: str) -> Counterexample | None:
    """What fails first without a rule or with a bug, if that is recorded for this specification.

    Raises:
        DisagreementError: the record is of this specification, and Python says otherwise.
    """
    row = _recorded().get(name)
    if row is None:
        return None
    model = _model(row)
    if row.key != _key(model):
        return None
    return _read(row, model)


def record(found: Iterable[tuple[str, Counterexample]]) -> Path:
    """Write what was found, by a rule's or a bug's name, into the package."""
    rows = [_row(name, c) for name, c in found]
    PLACE.write_bytes(b"[\n" + b",\n".join(map(msgspec.json.encode, rows)) + b"\n]\n")
    _recorded.cache_clear()
    return PLACE


@cache
def _recorded() -> Mapping[str, Row]:
    if not PLACE.exists():
        return {}
    return {row.name: row for row in msgspec.json.decode(PLACE.read_bytes(), type=list[Row])}


def _model(row: Row) -> Model:
    without = [] if row.name in MUTANTS else [row.name]
    bounds = sizes(*row.size, extensions_of(row.name))
    return witnessed(bounds, without, MUTANTS.get(row.name))


def _key(model: Model) -> str:
    return key(model, model.spec.properties)


# --- a counterexample as a row, and back ---------------------------------------


def _row(name: str, c: Counterexample) -> Row:
    b = c.bounds
    size = b.servers, b.max_term, b.max_log
    blank = Row(name, size, "", *c.question, {}, {}, [], {})
    model = _model(blank)
    first = model.generated.initial()
    servers = {i: _different(v, first.variables[i]) for i, v in c.before.variables.items()}
    return msgspec.structs.replace(
        blank, key=_key(model), before={i: v for i, v in servers.items() if v},
        past=_different(c.before.past, first.past), step=[plain(x) for x in c.move.params] if c.move else [],
        about={name: plain(x) for name, x in c.values.items()},
    )  # fmt: skip


def _different(variables: Variables, first: Variables) -> dict[str, Any]:
    values = ((f, getattr(variables, f)) for f in variables.__slots__)
    return {f: plain(x) for f, x in values if x != getattr(first, f)}


def _read(row: Row, model: Model) -> Counterexample:
    before = model.generated.initial()
    for i, values in row.before.items():
        _set(model, before.variables[i], model.spec.server, values)
    _set(model, before.past, model.spec.history, row.past)
    action = model.spec.actions.get(row.action)
    params = [
        _value(model, t, x) for t, x in zip(action.params.values() if action else (), row.step, strict=True)
    ]
    types = model.spec.properties[row.claim].params
    about = {p: _value(model, t, row.about[p]) for p, t in types.items()}
    return confirmed(Question(row.action, row.claim), model, before, tuple(params), about)


def _set(model: Model, variables: Variables, types: type[Record], values: Mapping[str, Any]) -> None:
    for f, x in values.items():
        value = _value(model, types.types()[f], x)
        setattr(variables, f, list(value) if isinstance(value, tuple) else value)


def _value(model: Model, t: Type, x: Any) -> Any:
    """A value of the Python back end from JSON's. A state of the invariant may have commands that are 0."""
    match t.kind:
        case "set":
            return frozenset(x)
        case "seq":
            assert t.of is not None
            return tuple(_value(model, t.of, y) for y in x)
        case "map":
            assert t.of is not None
            assert t.key is not None
            number = t.key.kind == "num" and t.key.name != "value"
            return {int(k) if number else k: _value(model, t.of, y) for k, y in x.items()}
        case "record":
            assert t.cls is not None
            types = t.cls.types()
            fields = x if isinstance(x, list) else [x[f] for f in types]
            values = (_value(model, f, y) for f, y in zip(types.values(), fields, strict=True))
            return model.generated.structs[t.cls](*values)
    return x
