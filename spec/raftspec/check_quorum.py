"""Check quorum: a leader that hears from no majority stops leading. Dissertation, section 6.2.

What it hears, and for how long not, is a matter of time, and time isn't specified: so a leader may stop
whenever it likes. That is always safe; it keeps clients from waiting for a leader that can't commit.
"""

from __future__ import annotations

from raftspec.raft import LEADER, History, S, ServerVariables, step_down
from raftspec.rules import read
from raftspec.spec import Extension, Step, when
from raftspec.types import Server

check_quorum = Extension(
    ServerVariables,
    History,
    read("""
check_quorum.leader_only | implied | D 6.2 | Who doesn't lead has no leadership to give up.
"""),
    name="check_quorum",
)


@check_quorum.action
def lose_quorum(s: S, i: Server) -> Step:
    """Leader i has heard from no majority for too long, and stops leading. Dissertation, section 6.2."""
    me = s[i]
    return Step(
        i,
        when("i is leader", s.rule("check_quorum.leader_only", me.role == LEADER)),
        then=step_down(s, me),
    )
