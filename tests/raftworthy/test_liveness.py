"""Liveness: the livelock of duelling candidates, and what makes a command be decided in the end."""

from __future__ import annotations

from raftworthy.explore.fairness import SOME, Timing
from raftworthy.explore.live import Question, ask

TWO = Question(servers=2, max_messages=None)
ALONE = Timing(SOME, patient=True)


def test_candidates_stand_in_each_others_way_for_ever() -> None:
    """Fischer, Lynch and Paterson: with timeouts at any time, no term need have a leader."""
    answer = ask(TWO)
    assert answer.lasso is not None
    assert answer.verdict == "livelock"
    actions = [(m.action, m.server) for m in answer.lasso.rounds[0].moves]
    assert {("timeout", "n1"), ("timeout", "n2")} < set(actions)
    assert answer.lasso.terms_later("current_term") == 1
