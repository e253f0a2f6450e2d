"""The rules of Raft by name: what kind each is, where the paper says it, and why it exists.

`safety` rules keep the properties true. `implied` rules follow from the others as they stand here, and are
kept because the paper states them. `liveness` rules only keep the cluster going: without them
nothing wrong is ever agreed on. `policy` is Figure 2's choice among what is safe; a server may choose
otherwise, so a trace is not held to it. Sections are those of Ongaro and Ousterhout (2014).
"""

# ruff: noqa: E501  (one rule, one row)

from __future__ import annotations

from raftspec.spec import Rule

_TABLE = """
term.adopt_newer             | liveness | 5.1      | A server that stays behind in an older term can't take part in the current one.
term.step_down               | safety   | 5.1      | A leader that sees a newer term is no longer leader; going on in the new term, it would be a second one.
term.fresh_vote              | liveness | 5.2      | A vote belongs to one term; kept for the next, it would keep the server from voting.
election.not_leader          | policy   | 5.2      | A leader has no reason to stand for election.
election.new_term            | safety   | 5.2      | In a term that is not new the candidate may have voted for somebody else already.
election.vote_for_self       | safety   | 5.2      | A candidate that counts itself must not vote for another in the same term.
election.candidate_only      | implied  | 5.2      | Who gave up an election, for a newer term or another leader, must not win it afterwards.
election.majority            | safety   | 5.2      | Two majorities share a voter, and that one votes once: so a term has one leader at most.
vote.current_term            | implied  | 5.1      | A vote for an old term may elect a leader whom newer terms have forgotten.
vote.up_to_date              | safety   | 5.4.1    | A leader must have every committed entry; a voter that has newer ones refuses.
vote.once_per_term           | safety   | 5.2      | Two votes of one server in a term can give the term two leaders.
vote.recorded                | safety   | 5.2      | A vote that isn't written down can be given again.
vote.refuse                  | policy   | Figure 2 | A refusal tells the candidate a newer term sooner.
vote.count_current_term      | safety   | 5.2      | A vote given in an older term doesn't elect anybody in this one.
vote.count_granted           | safety   | 5.2      | A refusal is not a vote.
leader.reset_match_index     | safety   | Figure 2 | What followers stored in an older term may have been overwritten since.
leader.initial_next_index    | policy   | Figure 2 | A new leader tries the end of its log first.
append.leader_only           | safety   | 5.3      | Entries come from the term's one leader; from anybody else they would collide.
append.own_term              | safety   | 5.3      | An entry is known by index and term, so a leader marks it with its own.
replicate.leader_only        | safety   | 5.3      | Followers trust what a term's leader sends; only the leader may speak for the term.
replicate.next_index         | policy   | 5.3      | The next entry that a follower needs is the useful one to send.
replicate.commit_index       | safety   | 5.3      | Followers take the leader's word for what is committed.
replicate.latest_commit      | policy   | 5.3      | Telling the whole commit index lets followers apply sooner.
append.current_term          | safety   | 5.1      | A deposed leader must not change logs any more.
append.candidate_steps_down  | liveness | 5.2      | A candidate that hears from the term's leader has lost; a leader that hears from another of its term is none.
append.previous_entry        | safety   | 5.3      | Entries join only where the logs are equal before; so equal entries mean equal logs up to them.
append.no_gap                | implied  | 5.3      | A log has no holes.
append.refuse                | policy   | 5.3      | A refusal makes the leader go back in its log.
append.truncate_only_conflict| safety   | 5.3      | A late copy of an old request must not cut off entries that newer ones have stored and acknowledged.
append.truncate_conflict     | safety   | 5.3      | The leader's log is the truth; a conflicting entry and all after it go.
append.acknowledge_matched   | safety   | 5.3      | Only what this request covered is known to equal the leader's log; the rest may be an old term's.
commit.follower_limit        | safety   | 5.3      | Beyond the entries of this request the log may not be the leader's, so nothing there is committed.
commit.never_back            | safety   | 5.3      | What is committed stays so; a late message with an older commit index changes nothing.
replicate.ack_current_term   | safety   | 5.1      | An acknowledgement of an older term speaks of a log that may have been overwritten.
replicate.ack_success        | implied  | 5.3      | A refusal says nothing about what is stored.
commit.match_monotone        | safety   | 5.3      | Acknowledgements arrive in any order; a late one takes nothing back.
replicate.next_after_match   | policy   | 5.3      | What is known to be stored need not be sent again.
replicate.back_off           | policy   | 5.3      | After a refusal the leader tries one entry earlier, until the logs join.
commit.leader_only           | safety   | 5.3      | Only a leader knows what a majority stores.
commit.in_log                | implied  | 5.3      | Only an entry that exists can be committed.
commit.majority              | safety   | 5.3      | Every later leader is elected by a majority, which shares a server with this one.
commit.current_term          | safety   | 5.4.2    | An older term's entry on a majority can still be overwritten (Figure 8); one of the leader's own term can't.
apply.committed_only         | safety   | 5.3      | What isn't committed may vanish; a state machine can't take it back.
restart.keep_term            | safety   | 5.1      | Forgetting the term, a server would take part in an old one again.
restart.keep_vote            | safety   | 5.2      | Forgetting the vote, a server would vote again in the same term.
restart.keep_log             | safety   | 5.3      | What was acknowledged must survive, or a majority stores less than the leader counted; taken away, a restart loses the last entry.
"""


def read(table: str) -> dict[str, Rule]:
    """Rules from a table with a row for each: name, kind, section, why."""
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return {name: Rule(name, kind, section, why) for name, kind, section, why in rows}


RULES = read(_TABLE)
POLICY = frozenset(name for name, rule in RULES.items() if rule.kind == "policy")
