"""Rules that nothing goes wrong without: why that is, and what was explored to say so.

Some follow from others, some are Figure 2's choice among what is safe, and some keep the cluster going:
without those, something good never happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raftspec.rules import POLICY
from raftworthy.explore.bounds import Bounds
from raftworthy.explore.cases import MEMBERS, RULE_CASES, SESSIONS, WITH_SNAPSHOTS, Case


@dataclass(frozen=True)
class Needless:
    """A rule without which nothing goes wrong within these bounds. `same`: not even a state differs."""

    why: str
    bounds: tuple[Bounds, ...]
    same: bool = False


@dataclass(frozen=True)
class Wait:
    """What happens within a case's bounds, and never without the rule; `good` is for `--find`."""

    what: str
    good: str
    case: Case


IMPLIED_BOUNDS = (Bounds(servers=2, max_term=1, max_log=2), Bounds(max_log=0, max_messages=7))
CHOICE_BOUNDS = (Bounds(servers=2, max_term=1), Bounds(max_term=1, max_messages=6))

NEEDLESS: Mapping[str, Needless] = {
    "election.candidate_only": Needless(
        "Only a candidate has votes: whoever steps down drops them.", IMPLIED_BOUNDS, same=True
    ),
    "append.no_gap": Needless(
        "Beyond the log's end the term is 0, so the previous entry doesn't match either.",
        IMPLIED_BOUNDS, same=True,
    ),
    "commit.in_log": Needless(
        "Beyond the log's end the term is 0, which is no leader's.", IMPLIED_BOUNDS, same=True
    ),
    "replicate.ack_success": Needless(
        "A refusal's match_index is 0; mutant R08 is what happens if it isn't.", IMPLIED_BOUNDS, same=True
    ),
    "vote.current_term": Needless(
        "An old request is answered in the voter's own term, so it is a vote of that term, for a candidate "
        "whose log was as good when it asked.",
        (Bounds(servers=2), Bounds(max_log=0, max_messages=9)),
    ),
} | {
    rule: Needless("Figure 2 chooses so among what is safe; a server may choose otherwise.", CHOICE_BOUNDS)
    for rule in sorted(POLICY - RULE_CASES.keys() - {"replicate.back_off"})
}  # fmt: skip

# Without these a command may never be decided, though one server's timeouts are alone: `raftworthy live`.
LIVELOCKS = frozenset({
    "term.adopt_newer", "term.fresh_vote", "leader.initial_next_index", "append.refuse", "replicate.back_off",
    "R06", "R12",
})  # fmt: skip

WAITS: Mapping[str, Wait] = {
    "term.adopt_newer": Wait(
        "a server is elected", "len(leaders()) == 1", Case(Bounds(servers=2, max_log=0))
    ),
    "term.fresh_vote": Wait(
        "two servers are elected, one after the other",
        "len(set(s.past.leaders[t] for t in s.past.leaders)) == 2",
        Case(Bounds(servers=2, max_log=0)),
    ),
    "append.candidate_steps_down": Wait(
        "a candidate gives up its election within the term",
        "any(s[i].role == 'follower' and s[i].voted_for == i for i in servers)",
        Case(Bounds(max_term=1, max_log=0)),
    ),
    "replicate.back_off": Wait(
        "a follower whose log differs gets the leader's entry",
        "terms('n2') == [1]",
        Case(Bounds(max_term=3, commands=2, max_messages=16), "old_leader_returns"),
    ),
    "R06": Wait(
        "an entry of an older term is committed with a newer one",
        "s.n1.commit_index == 2 and terms('n1') == [1, 2]",
        Case(Bounds(servers=1, max_log=2, crashes=1)),
    ),
    "R12": Wait(
        "a follower whose log differs gets the leader's entry",
        "terms('n2') == [1]",
        Case(Bounds(max_term=3, commands=2, max_messages=16), "old_leader_returns"),
    ),
}  # fmt: skip

# The same of extensions.
CHANGES = (Bounds(servers=2, max_term=1, max_log=2, commands=2, changes=2, extensions=("membership",)),)
# Small, and such that pre-vote decides something: two servers with entries, three without.
ASKED = (
    Bounds(servers=2, max_messages=8, extensions=("pre_vote",)),
    Bounds(max_log=0, max_messages=8, extensions=("pre_vote",)),
)
TRANSFER_MEMBERS: dict[str, Any] = {"extensions": ("leadership_transfer", "membership")}
SLOWER = "Nothing wrong is agreed on; "
SNAPSHOTS = (
    Bounds(max_term=1, max_messages=7, **WITH_SNAPSHOTS),
    Bounds(max_messages=6, **WITH_SNAPSHOTS),
)
EXTENSION_NEEDLESS: Mapping[str, Needless] = {
    "pre_vote.keep_term": Needless(
        SLOWER + "a server that is cut off only begins one term after another, and deposes the leader later.",
        ASKED,
    ),
    "pre_vote.not_adopted": Needless(
        SLOWER + "a leader is only deposed sooner, by a question, if whoever asks is in a newer term.", ASKED
    ),
    "pre_vote.current_term": Needless(
        SLOWER + "whoever asks in an older term only stands in one that is taken, in vain.", ASKED
    ),
    "pre_vote.up_to_date": Needless(
        SLOWER + "a server that can't be elected only begins terms, and deposes a leader each time.", ASKED
    ),
    "pre_vote.leader_heard": Needless(
        SLOWER + "a server that was cut off from its leader alone only deposes it for no use.", ASKED
    ),
    "pre_vote.refuse": Needless(
        SLOWER + "but perhaps nobody is elected: mutant E15 is what happens then.", ASKED
    ),
    "pre_vote.count_granted": Needless(
        SLOWER + "a server that was refused only begins a term, and is refused again.", ASKED
    ),
    "pre_vote.count_asked": Needless(
        SLOWER + "an old answer only leads to an election that nobody may want any more.", ASKED
    ),
    "pre_vote.leader_found": Needless(
        SLOWER + "a server that has found its leader only stands nevertheless, and deposes it.", ASKED
    ),
    "E13": Needless(
        SLOWER + "elections take 1.17 times as long in a simulated cluster whose leaders are crashed.",
        ASKED,
    ),
    "E14": Needless(
        SLOWER + "elections take 1.5 times as long in a simulated cluster with a server that asks on and "
        "hears no answer.", ASKED,
    ),
    "E15": Needless(
        SLOWER + "in a simulated cluster where one server has the newer log and another the newer term, "
        "nobody is elected, and somebody at once with the rule.", ASKED,
    ),
    "R14": Needless(
        SLOWER + "in a simulated cluster a leader whose followers have another one by now leads on.",
        (Bounds(servers=2, max_messages=6, extensions=("check_quorum",)),),
    ),
    "check_quorum.leader_only": Needless(
        SLOWER + "a candidate only gives up an election that it might have won.",
        (Bounds(servers=2, max_messages=6, extensions=("check_quorum",)),),
    ),
    "reads.one_round": Needless(
        "A round given up for another is as if it had been asked in vain; its readers wait for the next.",
        (Bounds(servers=2, max_term=1, reads=2, extensions=("reads",)),),
    ),
    "reads.give_up": Needless(
        "No answer counts any more for whoever was deposed, nor in a later term, as a round is under way: it "
        "only never ends, so that readers wait until the server restarts.",
        (Bounds(servers=2, max_messages=8, extensions=("reads",)),),
    ),
    "transfer.to_voter": Needless(
        "Who leads without a vote is elected by those who vote, as always, and stops once it is committed.",
        (Bounds(servers=2, max_term=1, max_log=2, max_messages=7, **TRANSFER_MEMBERS),),
        same=True,
    ),
    "membership.through_joint": Needless(
        "Entering one joint configuration out of another leaves and enters at once: the servers that vote "
        "now decide with those that will.",
        CHANGES,
    ),
    "membership.somebody_votes": Needless(
        "Nothing wrong is agreed on, as nothing is any more: nobody has a majority of nobody.", CHANGES
    ),
    "snapshot.leader_only": Needless(
        "Whoever has a snapshot has one of committed entries, and a newer term is not led by who sends it.",
        SNAPSHOTS,
    ),
    "snapshot.send_latest": Needless("An older snapshot is of committed entries, too.", SNAPSHOTS),
    "snapshot.send_needed": Needless(
        "A snapshot that nobody needs is taken for an acknowledgement of what is committed.", SNAPSHOTS
    ),
    "snapshot.current_term": Needless(
        "What is committed in an older term is committed in this one, and more of the log than that stays.",
        SNAPSHOTS,
    ),
    **{
        name: Needless("Nothing wrong is agreed on; it only takes longer, or waits for somebody.", CHANGES)
        for name in ("M05", "M06", "M09")
    },
    "membership.caught_up": Needless(
        "A leader may choose when a server has caught up; until it has, it only doesn't help.", CHANGES
    ),
}  # fmt: skip
EXTENSION_WAITS: Mapping[str, Wait] = {
    "snapshot.compacted_joins": Wait(
        "a follower takes entries that begin with what it has compacted",
        "terms('n2') == [1, 1] and s.n1.next_index['n2'] == 1",
        Case(
            Bounds(max_term=1, max_log=2, entries=2, max_messages=9, **WITH_SNAPSHOTS), "follower_compacted"
        ),
    ),
    "S05": Wait(
        "a follower gets an entry after the snapshot that it got",
        "terms('n3') == [1, 1]",
        Case(Bounds(max_term=1, max_log=2, max_messages=10, **WITH_SNAPSHOTS), "compacted"),
    ),
    "membership.removed_leader_steps_down": Wait(
        "a leader stops leading within its term",
        "any(s[i].role == 'follower' and s.past.leaders[1] == i for i in servers)",
        Case(Bounds(servers=2, max_term=1, max_log=2, commands=2, **MEMBERS)),
    ),
    "session.lowest_unanswered": Wait(
        "a response is forgotten that was given before",
        "s.n1.answer == 0 and s.n1.responses[1] > 0",
        Case(replace(SESSIONS, max_log=4, requests=2), "registered"),
    ),
}
