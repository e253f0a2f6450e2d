"""A plan's steps, taken one by one by the Python back end: only what it takes is a history.

Whether a vote is given, an election won or an entry committed, the specification says; a plan says only who
tries. Leaders choose for themselves what to send, as Figure 2's choices are not asked for.

    c  a leader     i, j  servers     t  a term     n  an index
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftworthy.ask.change import RAFT, Change
from raftworthy.ask.histories import Round, Terms
from raftworthy.ask.logs import Log, Logs, Named
from raftworthy.explore.cases import Walk
from raftworthy.explore.export import NOT_ASKED
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Move, Path


class PlanError(ValueError):
    """A step of a plan that the specification doesn't take."""


def model_for(logs: Logs, plan: Sequence[Round], change: Change = RAFT) -> Model:
    """The specification at the sizes of a plan; policy is left to the servers."""
    entries = max((len(r.log) for r in plan), default=0)
    terms = max(len(plan), 1)
    commands = max(sum(len(r.log) for r in plan), 1)
    bounds = Named(
        len(logs.names),
        terms,
        max(entries, 1),
        None,
        len(logs.names),
        commands,
        max(entries, 1),
        True,
        called=logs.names,
    )
    return change.model(bounds, NOT_ASKED)


def take(logs: Logs, plan: Sequence[Round], model: Model) -> Path:
    """The steps of a plan, from the initial state to where the servers have these logs.

    Raises:
        PlanError: the specification doesn't take a step, or comes to something else.
    """
    taking = _Taking(logs, plan, Walk(model))
    try:
        for r in plan:
            taking.round(r)
        taking.last_terms()
        taking.forget()
    except ValueError as error:
        raise PlanError(str(error)) from error
    taking.check()
    return taking.w.path


class _Taking:
    def __init__(self, logs: Logs, plan: Sequence[Round], w: Walk) -> None:
        self.logs, self.plan, self.w = logs, plan, w
        self.known = {log.server: log for log in logs.servers}
        self.learned: set[str] = set()  # who has the commit index that the file says

    def log(self, i: str) -> Terms:
        return tuple(e.term for e in self.w.path.world.variables[i].log)

    def may_join(self, i: str, t: int) -> bool:
        """Whether i gets as far as term t."""
        term = self.known[i].term
        return term is None or t <= term

    # --- a round ---

    def round(self, r: Round) -> None:
        """Elections that are lost, then the one that is won, and what the leader does."""
        for log in self.logs.servers:
            if log.term == r.term and log.votes and log.vote not in (None, r.leader):
                self.lost_vote(log)
        if r.leader is None:
            return
        self.elect(r)
        for _ in range(len(r.log) - len(self.log(r.leader))):
            self.w.ask(r.leader)
        for i in self.logs.names:
            if i != r.leader and r.logs[i] != self.log(i):
                self.replicate(r.leader, i, r.logs[i])
        if r.commit and any(log.commit for log in self.logs.servers):
            self.commit(r)

    def lost_vote(self, log: Log) -> None:
        """A server votes for one who isn't elected."""
        c, i, t = log.vote, log.server, log.term
        assert c is not None
        assert t is not None
        self.stand(c, t)
        if c != i and self.w.path.world.variables[i].voted_for != c:
            self.w.receive("request_vote", c, i)

    def stand(self, c: str, t: int) -> None:
        while self.w.path.world.variables[c].current_term < t:
            self.w.do("timeout", c)

    def elect(self, r: Round) -> None:
        """The leader asks for votes, first those who are to take over entries, until it has enough."""
        c = r.leader
        assert c is not None
        self.stand(c, r.term)
        path = self.w.path
        if self.won(c):
            return
        known = [log.server for log in self.logs.servers if log.term == r.term and log.vote == c]
        changed = [i for i in self.logs.names if r.logs[i] != self.log(i)]
        rest = [i for i in self.logs.names if i not in changed]
        for j in dict.fromkeys((*known, *changed, *rest)):
            if j == c or not self.may_join(j, r.term) or self._voted_for_another(j, c, r.term):
                continue
            path = self.w.path
            if not any(m.granted for m in self.w.receive("request_vote", c, j).path.moves[-1].sent):
                self.w.path = path  # a refusal is of no use
                continue
            self.w.receive("request_vote_reply", j, c)
            if self.won(c):
                return
        raise PlanError(f"{c} is not elected for term {r.term}")

    def _voted_for_another(self, j: str, c: str, t: int) -> bool:
        log = self.known[j]
        return log.term == t and log.votes and log.vote != c

    def won(self, c: str) -> bool:
        """Become leader, if there are votes enough."""
        move = self.w.model.take(self.w.path.world, "become_leader", (c,))
        if move is not None:
            self.w.path = self.w.path.then(move)
        return move is not None

    def replicate(self, c: str, i: str, after: Terms) -> None:
        """Server i takes over the leader's entries from where their logs part."""
        same = 0
        for a, b in zip(self.log(i), after, strict=False):
            if a != b:
                break
            same += 1
        self.send(c, i, same, len(after) - same, 0)

    def send(self, c: str, i: str, prev: int, size: int, commit: int) -> None:
        """An AppendEntries that i receives."""
        self.w.do("append_entries", c, i, prev, size, commit).receive("append_entries", c, i)

    # --- commitment ---

    def commit(self, r: Round) -> None:
        """The leader hears from who stores the entry, commits it, and tells whom the file says to know."""
        c, n = r.leader, r.commit
        assert c is not None
        for i in self.logs.names:
            if self._committed(c, n):
                break
            if i != c and self.may_join(i, r.term) and r.logs[i][:n] == r.log[:n]:
                self.send(c, i, n, 0, 0)
                self.w.receive("append_entries_reply", i, c)
        if not self._committed(c, n):
            raise PlanError(f"{c} doesn't commit entry {n} in term {r.term}")
        for log in self.logs.servers:
            i, k = log.server, log.commit or 0
            if not 0 < k <= n or i in self.learned or r.logs[i][:k] != r.log[:k]:
                continue
            if i == c and k == n:
                self.learned.add(i)
            elif i != c and self.may_join(i, r.term):
                self.send(c, i, k, 0, k)
                self.learned.add(i)

    def _committed(self, c: str, n: int) -> bool:
        if self.w.path.world.variables[c].commit_index >= n:
            return True
        move: Move | None = self.w.model.take(self.w.path.world, "advance_commit_index", (c, n))
        if move is not None:
            self.w.path = self.w.path.then(move)
        return move is not None

    # --- the end ---

    def last_terms(self) -> None:
        """Who is to be in a later term stands for election in it, and nobody hears."""
        for log in self.logs.servers:
            if log.term is not None and (not log.votes or log.vote == log.server):
                self.stand(log.server, log.term)

    def forget(self) -> None:
        """Who is to know of nothing committed, restarts."""
        for log in self.logs.servers:
            if log.commit == 0 and self.w.path.world.variables[log.server].commit_index:
                self.w.do("restart", log.server)

    def check(self) -> None:
        """That the servers are what the file says."""
        for log in self.logs.servers:
            me = self.w.path.world.variables[log.server]
            said: list[tuple[str, Any, Any]] = [("log", self.log(log.server), log.terms)]
            said += [("current_term", me.current_term, log.term)] if log.term is not None else []
            said += [("commit_index", me.commit_index, log.commit)] if log.commit is not None else []
            said += [("voted_for", me.voted_for, log.vote)] if log.votes else []
            for name, comes, x in said:
                if comes != x:
                    raise PlanError(f"{log.server} comes to {name} {comes} by the plan, not {x}")
