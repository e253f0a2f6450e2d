"""Lockstep: raftd's core and the specification take the same steps, from every state within bounds.

The explorer finds the states. In each, the core is put into each server's place and given every input
that could come next, and so is the specification. Variables, disk and messages must be equal after it:
a server that does less than Figure 2 says is found as well as one that does more. The step's
trace event must be one that `replay` accepts.

A server's step depends on its own variables and the input alone, so equal ones are compared once. The core
takes what Figure 2 lets it do by itself (lead, commit, apply) in the step that makes it possible; the
specification is made to do so, too. `next_index` is policy: the core is tried with the log's end and
with what follows `match_index`, and may send any AppendEntries that a leader is allowed to send.

`specification` and `core` are the two sides, `inputs` what both are given, `comparing` compares a step of
both, `run` does so from every state, `report` says what came out.
"""

from __future__ import annotations

from raftworthy.lockstep.report import AGREES, DIFFERS, UNUSABLE, Disagreement, Result, render
from raftworthy.lockstep.run import DEFAULT_BOUNDS, lockstep, usual_bounds

__all__ = [
    "AGREES",
    "DEFAULT_BOUNDS",
    "DIFFERS",
    "UNUSABLE",
    "Disagreement",
    "Result",
    "lockstep",
    "render",
    "usual_bounds",
]
