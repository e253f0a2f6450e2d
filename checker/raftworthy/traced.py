"""What tracing a specification comes to: expressions and functions' text, kept on disk for the next command.

To trace takes longer than most searches. The key is a hash of the sources as they were imported and of what
was asked. So only a specification that is declared in them can be kept, with or without a declared bug, and
none that somebody made: of that nobody knows by what it would be found again.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import raftspec
from raftspec.graph import Graph, Node
from raftspec.spec import Action, Spec
from raftspec.tracing import Tracer, Transition
from raftworthy.kept import folder, hash_of, keep_if_possible, kept, sources

# As they are now, when they are imported; what is changed later isn't what this process runs.
SOURCES = sources(raftspec.__file__, __file__, str(Path(__file__).with_name("generated.py")))


@dataclass
class Traced:
    """A specification as expressions, and as Python that isn't run yet."""

    tracer: Tracer
    transitions: Mapping[str, Transition]
    claims: Mapping[str, Node]  # the properties' expressions
    source: str
    code: CodeType


def kept_trace(
    spec: Spec, servers: tuple[str, ...], switched_off: Iterable[str], asked: str, trace: Callable[[], Traced]
) -> Traced:
    """What `trace` comes to, from the disk if it is there. `asked` says what else it depends on."""
    where = folder()
    if where is None:
        return trace()
    parts = [SOURCES, sys.version, asked, *sorted(spec.extensions), " ".join(servers), *sorted(switched_off)]
    place = where / f"{hash_of(parts)}.graph"
    if (content := kept(place)) is not None:
        return _read(content, spec, servers, frozenset(switched_off))
    made = trace()
    keep_if_possible(place, _written(made))
    return made


class _Pickler(pickle.Pickler):
    """Writes by name what the specification has itself."""

    def __init__(self, file: io.BytesIO, spec: Spec) -> None:
        super().__init__(file, 5)
        self.named = {id(x): name for name, x in _named(spec).items()}

    def persistent_id(self, obj: Any) -> str | None:
        return self.named.get(id(obj)) if isinstance(obj, Action | type) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, spec: Spec) -> None:
        super().__init__(file)
        self.named = _named(spec)

    def persistent_load(self, pid: str) -> Any:
        return self.named[pid]


def _named(spec: Spec) -> dict[str, Any]:
    actions = {f"action {name}": a for name, a in spec.actions.items()}
    return {"server": spec.server, "history": spec.history, **actions}


def _written(made: Traced) -> bytes:
    tracer, file = made.tracer, io.BytesIO()
    # All nodes come first, each after its arguments, so that nothing is nested deeply.
    nodes, nameless = tracer.graph.contents()
    held = (
        nodes, nameless, made.transitions, made.claims, tracer.rules, tracer.followed, made.source,
        marshal.dumps(made.code),
    )  # fmt: skip
    _Pickler(file, tracer.spec).dump(held)
    return file.getvalue()


def _read(content: bytes, spec: Spec, servers: tuple[str, ...], switched_off: frozenset[str]) -> Traced:
    held = _Unpickler(io.BytesIO(content), spec).load()
    nodes, nameless, transitions, claims, rules, followed, source, code = held
    tracer = Tracer(spec, servers, switched_off)
    tracer.graph, tracer.rules, tracer.followed = Graph(nodes, nameless), rules, followed
    return Traced(tracer, transitions, claims, source, marshal.loads(code))
