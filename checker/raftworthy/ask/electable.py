"""Who of the servers with these logs can be elected for a term, with whose votes, and who refuses.

Z3 is asked about the specification's own steps: the candidate's timeout, each voter's answer to its
request, what the candidate makes of it, and `become_leader`. What isn't known of a server, its term or whom
it voted for, is whatever helps. Every witness is taken again by the Python back end. Logs stay as they are
until the election is over.

    c  a candidate     v  a voter     s  a state
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import z3

from raftspec.graph import postorder
from raftspec.properties import raft
from raftspec.spec import OnlyIf, State
from raftspec.types import Type
from raftworthy.ask.campaign import Campaign
from raftworthy.ask.change import RAFT, Change
from raftworthy.ask.logs import MOST_TERM, Log, Logs, Named
from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.broken_steps import DisagreementError
from raftworthy.explore.paths import Move, Path
from raftworthy.generated import World, to_spec
from raftworthy.prove.logic import Truth, Value
from raftworthy.prove.machine import Machine
from raftworthy.prove.terms import Variables
from raftworthy.wording import Reader


@dataclass(frozen=True)
class Refusal:
    """A voter that can't vote for a candidate: the rules that each refuse, with the values they speak of."""

    voter: str
    rules: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Candidate:
    """Whether a server can be elected, with fewest voters, and who else can vote for it or can't.

    `why_not` says what keeps it from standing for election at all; `missing` is the guard that fails, and its
    values, although everybody votes for it who can.
    """

    server: str
    witness: Path | None
    voters: tuple[str, ...]
    others: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    why_not: str = ""
    missing: tuple[str, str] | None = None

    @property
    def electable(self) -> bool:
        return self.witness is not None


class Election:
    """The elections for a term among servers with these logs, in Raft or a changed one."""

    def __init__(self, logs: Logs, term: int, change: Change = RAFT) -> None:
        _check(logs, term)
        self.logs, self.term = logs, term
        self.numbers = commands(logs)
        bounds = Named(
            len(logs.names), max(term, logs.last_term), max(logs.longest, 1), None, 0, len(self.numbers),
            max(logs.longest, 1), True, called=logs.names,
        )  # fmt: skip
        self.model = change.model(bounds)
        self.machine = Machine(self.model)
        self.logic = self.machine.logic
        self.world = self.model.generated.initial()
        entry = next(s for cls, s in self.model.generated.structs.items() if cls.__name__ == "Entry")
        for log in logs.servers:
            me = self.world.variables[log.server]
            me.log = [entry(t, f"c{self.numbers[log.terms[: n + 1]]}") for n, t in enumerate(log.terms)]
            me.commit_index = log.commit or 0

    # --- the state before the election ---

    def unknown(self, candidate: str) -> tuple[Variables, list[Truth]]:
        """The servers with their logs. Of the rest, what isn't said in the file is unknown."""
        known = self.machine.known(self.world)
        rules: list[Truth] = []
        servers = []
        for log, variables in zip(self.logs.servers, known.servers, strict=True):
            term, vote, typed = self._persistent(log, candidate == log.server)
            rules += typed
            servers.append({**variables, "current_term": term, "voted_for": vote})
        return Variables(tuple(servers), known.past), rules

    def _persistent(self, log: Log, stands: bool) -> tuple[Value, Value, list[Truth]]:
        """A server's term and vote."""
        shapes, logic, types = self.machine.shapes, self.logic, raft.server.types()
        if log.term is not None and not (stands and log.term == self.term):
            term: Value = log.term
            if log.votes:
                return term, shapes.encode(types["voted_for"], log.vote), []
            vote, rules = shapes.fresh(types["voted_for"], f"{log.server}.voted_for")
            return term, vote, rules
        # Not said, or a candidate of the very term: before it stood, it was in an earlier one.
        term, rules = shapes.fresh(types["current_term"], f"{log.server}.current_term")
        vote, more = shapes.fresh(types["voted_for"], f"{log.server}.voted_for")
        least = max(log.terms, default=0)
        limits = [logic.at_most(least, term), logic.less(term, self.term)]
        # In term 0 nobody is voted for.
        fresh = logic.either(logic.less(0, term), logic.same(vote, 0))
        return term, vote, [*rules, *more, *limits, fresh]

    # --- one candidate ---

    def candidate(self, c: str) -> Candidate:
        """Whether c can be elected, and why not."""
        log = next(log for log in self.logs.servers if log.server == c)
        if (why := self._cannot_stand(log)) is not None:
            return Candidate(c, None, (), (), (), why)
        start, typed = self.unknown(c)
        own = self.term - 1 if log.term is None or log.term == self.term else log.term
        campaign = Campaign(self.machine, start, typed, c, self.term, self.term - own)
        if not campaign.can_stand():
            return Candidate(c, None, (), (), (), f"timeouts don't lead it to term {self.term}")
        granting = [v for v in campaign.asks if campaign.can_grant(v)]
        refusals = tuple(self._refusal(campaign, v) for v in campaign.asks if v not in granting)
        found = campaign.won()
        if found is None:
            missing = self._missing(campaign, granting)
            return Candidate(c, None, (), tuple(granting), refusals, missing=missing)
        witness, voters = self._witness(campaign, found)
        return Candidate(c, witness, voters, tuple(v for v in granting if v not in voters), refusals)

    def _cannot_stand(self, log: Log) -> str | None:
        if log.term is not None and log.term > self.term:
            return f"it is in term {log.term} already, and terms_never_fall"
        if log.term == self.term and log.votes and log.vote != log.server:
            return (
                f"it is in term {self.term} already, and has voted for {log.vote or 'nobody'}: vote_is_kept"
            )
        return None

    def _witness(self, campaign: Campaign, found: z3.ModelRef) -> tuple[Path, tuple[str, ...]]:
        """What Z3 found, taken again by Python."""
        path = campaign.path(found)
        me = path.world.variables[campaign.c]
        if (me.role, me.current_term) != ("leader", self.term):
            raise DisagreementError(f"Python says that {campaign.c} doesn't lead term {self.term}")
        return path, tuple(v for v in campaign.asks if campaign.is_asked(found, v))

    def _missing(self, campaign: Campaign, granting: list[str]) -> tuple[str, str] | None:
        """What `become_leader` lacks when all have voted for the candidate who can."""
        found = campaign.all_vote(granting)
        if found is None:
            return None
        s = campaign.path(found, won=False).world
        reader = Reader(self._state(s, {}), campaign.c, {"i": campaign.c}, None)
        for guard in self.model.generated.transitions["become_leader"].guards:
            if not reader.value(guard.condition):
                return guard.text, reader.values(guard.condition)
        raise DisagreementError(f"Python says that {campaign.c} leads term {self.term}")

    def _refusal(self, campaign: Campaign, v: str) -> Refusal:
        """Which rules refuse. What isn't known is such that as few as possible do."""
        path = campaign.path(campaign.asked_only(v), until=v)
        move = path.moves[-1]
        if any(m.granted for m in move.sent):
            raise DisagreementError(f"Python says that {v} votes for {campaign.c}")
        return Refusal(v, tuple(self._rules(path.worlds()[-2], v, move)))

    def _rules(self, s: World, v: str, move: Move) -> Iterator[tuple[str, str]]:
        """The rules that each alone keep a vote from being given, with the values that they read."""
        generated = self.model.generated
        transition = generated.transitions[move.action]
        nodes = {n.attr: n for n in postorder(*transition.roots()) if n.op == "rule"}
        lenient = generated.tracer.rules
        switched = {rule: lenient[rule] for rule in self.model.without if rule in lenient}
        m = to_spec(move.message, transition.action.params["m"])

        def grants(state: State[Any, Any]) -> bool:
            sent = transition.action.function(state, m).sends
            return any((x.condition and x.message.granted) for x in sent if isinstance(x, OnlyIf))

        state = self._state(s, switched)
        grants(state)
        failing = {x.rule for x in state.asked if not x.holds and lenient[x.rule]} - self.model.without
        for rule in sorted(failing):
            if not grants(self._state(s, switched | dict.fromkeys(failing - {rule}, True))):
                yield rule, Reader(state, v, {}, m).values(nodes[rule])

    def _state(self, s: World, rules: Mapping[str, bool]) -> State[Any, Any]:
        """A state as the specification's own functions handle it."""
        variables = {i: to_spec(x, Type("record", cls=raft.server)) for i, x in s.variables.items()}
        return State(variables, to_spec(s.past, Type("record", cls=raft.history)), rules=rules)


def _check(logs: Logs, term: int) -> None:
    if not 1 <= term <= MOST_TERM:
        raise UnusableError(f"--term is {term}; write a number from 1 to {MOST_TERM}")
    for log in logs.servers:
        if log.terms and max(log.terms) >= term:
            raise UnusableError(
                f"{log.server} has an entry of term {max(log.terms)}, so that term has had its leader; "
                f"ask for a later term: --term {logs.last_term + 1}"
            )


def commands(logs: Logs) -> dict[tuple[int, ...], int]:
    """A number for the command of each entry; entries with the same terms up to them are the same entry."""
    numbers: dict[tuple[int, ...], int] = {}
    for log in logs.servers:
        for n in range(1, len(log.terms) + 1):
            numbers.setdefault(log.terms[:n], len(numbers) + 1)
    return numbers
