"""Real bugs of real Raft servers, each as a small change to the specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raftspec.spec import Spec, Step


@dataclass(frozen=True)
class Mutant:
    """A wrong Raft: rules taken away, actions replaced."""

    name: str
    without: frozenset[str] = frozenset()
    actions: Mapping[str, Callable[..., Step]] = field(default_factory=dict)
    source: str = ""
    story: str = ""
    breaks: str = ""

    def apply(self, spec: Spec) -> Spec:
        return spec.but(self.actions) if self.actions else spec


MUTANTS: dict[str, Any] = {}
