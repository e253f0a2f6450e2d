"""Servers with one rule broken, so that tests can see the rule missed. Never for use.

Each fault is a `Core` with one small method replaced, named after the rule it breaks.
Many are bugs that real servers have had. A broken server doesn't check its own steps:
it is for others to notice.
"""

from __future__ import annotations

import random

from raftd.core import Config, Core, Persistent
from raftd.faults import before_elections, figure_2, membership, reads, sessions, snapshots  # noqa: F401
from raftd.faults.breaking import BREAKS

__all__ = ["BREAKS", "make_core"]


def make_core(
    server: str,
    servers: tuple[str, ...],
    rng: random.Random,
    config: Config | None = None,
    persistent: Persistent | None = None,
    broken: str | None = None,
    *,
    traced: bool = True,
) -> Core:
    """A server that keeps every rule, or all but one."""
    if broken is not None and broken not in BREAKS:
        raise ValueError(f"no fault is called {broken!r}: choose one of {', '.join(sorted(BREAKS))}")
    kind = BREAKS[broken] if broken is not None else Core
    return kind(server, servers, rng, config, persistent, traced)
