"""All that the answer to a question about a specification follows from, as text and as a hash.

Where any of it differs, the hash does: an answer that is kept or recorded is never that of another question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from raftworthy.explore.model import Model
from raftworthy.native.identity import text_of, text_of_type


def facts(model: Model, properties: list[str]) -> Iterator[str]:
    """The question: the specification, its bounds, and the properties that are checked."""
    graph = model.generated.tracer.graph
    yield f"{model.bounds!r} {properties}"
    spec = model.spec
    for group in (spec.server, spec.history, *spec.messages):
        yield group.__name__
        yield from (f"{name} {text_of_type(t)}" for name, t in group.types().items())
    for t in model.generated.transitions.values():
        yield f"{t.name} {list(t.updates)} {list(t.history)} {[s.message.__name__ for s in t.sends]}"
        yield from (f"{name}: {text_of_type(p)}" for name, p in t.action.params.items())
        yield from text_of(t.but(graph.without_rules).roots())
    for p in properties:
        yield f"{p} {spec.properties[p].states} {list(spec.properties[p].params)}"
        yield from text_of([graph.without_rules(model.generated.claims[p])])


def key(model: Model, properties: Iterable[str]) -> str:
    """The hash of a question."""
    found = hashlib.sha256()
    for fact in facts(model, list(properties)):
        found.update(fact.encode())
        found.update(b"\0")
    return found.hexdigest()[:32]
