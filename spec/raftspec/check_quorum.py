"""Check quorum: a leader that hears from no majority stops leading. Dissertation, section 6.2.

What it hears, and for how long not, is a matter of time, and time isn't specified: so a leader may stop
whenever it likes. That is always safe; it keeps clients from waiting for a leader that can't commit.
"""

from __future__ import annotations

from raftspec.raft import LEADER, NOBODY, History, S, ServerVariables, step_down
from raftspec.rules import read
from raftspec.spec import Extension, Step, when
from raftspec.types import Server

check_quorum = Extension(
    ServerVariables,
    History,
    read("""
check_quorum.leader_only | liveness | D 6.2 | Who doesn't lead has nothing to give up; a candidate goes on.
check_quorum.keep_vote   | safety   | D 6.2 | Its own vote elected it, and must not be given again.
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
        then=step_down(s, me).but(voted_for=me.voted_for if s.follows("check_quorum.keep_vote") else NOBODY),
    )
