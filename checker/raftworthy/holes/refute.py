"""Lines that cannot all be true: no state that Raft's invariant allows has what they say.

Each line says something of its server after a step, and of messages received and sent. Of the servers' states
at their lines, and of what happened until the end, the conjuncts of `raftspec.invariant` have to hold, and
from line to line the promises for steps; all else that servers do is open. So what is refuted is
refuted whatever the other lines say, and whatever was not logged. Only of servers whose lines tell all that
they acknowledged is it also known what they did not.

    L  a line     t  a term     m  a message
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import z3
from msgspec import UNSET

from raftspec.extensions import having
from raftspec.graph import Node
from raftspec.invariant import with_witnesses
from raftspec.properties import raft
from raftspec.rules import RULES
from raftspec.spec import Spec
from raftspec.tracing import Tracer
from raftspec.types import Type
from raftworthy.holes.lines import Line, Lines, known
from raftworthy.holes.sparse import SparseTerms, State, TooMuchError, Unknown, shapes_for
from raftworthy.native.identity import text_of
from raftworthy.prove.logic import Truth
from raftworthy.replay.format import trace_format
from raftworthy.structs import snake_case

# The conjuncts used, and the rule that each is there for. What happened later makes none of them wrong.
AT_A_LINE = {
    "a7_candidates_vote_for_themselves": "election.vote_for_self",
    "b4_leaders_were_elected": "election.majority",
    "k2_acknowledged_entries_are_stored": "restart.keep_log",
    "d3_commit_index_is_justified": "commit.follower_limit",
    "d7_applied_is_committed": "apply.committed_only",
    "r1_requests_are_in_terms_reached": "term.adopt_newer",
}
OF_MESSAGES = {
    "a9_votes_sent_were_given": "vote.recorded",
    "m1_requests_join_the_leaders_log": "replicate.leader_only",
    "m3_requests_carry_the_leaders_entries": "append.own_term",
    "k7_acknowledgements_sent_were_given": "append.acknowledge_matched",
}
OF_THE_PAST = {
    "a4_one_vote_a_term": "vote.once_per_term",
    "b1_leaders_have_a_quorum": "election.majority",
    "d2_commits_were_acknowledged": "commit.majority",
    "k4_acknowledged_entries_are_the_leaders": "append.acknowledge_matched",
}
FROM_LINE_TO_LINE = {
    "terms_never_fall": "restart.keep_term",
    "vote_is_kept": "vote.once_per_term",
    "commit_never_falls": "commit.never_back",
}
RULE_OF = {**AT_A_LINE, **OF_MESSAGES, **OF_THE_PAST, **FROM_LINE_TO_LINE}
ACKNOWLEDGING = ("handle_append_entries", "handle_install_snapshot")
ROLES = ("follower", "candidate", "leader")
TERMS = 64  # how many terms are looked at, at most
EFFORT = 50_000_000  # of Z3 for one question, in its own measure


@dataclass(frozen=True)
class Tie:
    """What ties the lines: a conjunct or promise, and the rule that it is there for."""

    claim: str
    says: str
    rule: str
    section: str
    why: str


@dataclass
class Refutation:
    """A minimal set of lines that can't all be true, and what ties them."""

    lines: list[Line]
    ties: list[Tie]
    silent: list[
        tuple[str, int, Line | None]
    ]  # servers that acknowledge no more in a term, with the last line
    others: int = 0  # how many lines were looked at
    checks: int = 0


@dataclass
class Facts:
    """What Z3 is asked: conditions, each under what it depends on."""

    conditions: list[tuple[tuple[str, ...], Truth]] = field(default_factory=list)

    def add(self, needs: Sequence[str], c: Truth) -> None:
        if c is not True:
            self.conditions.append((tuple(needs), c))


def claims_of(spec: Spec, servers: tuple[str, ...]) -> dict[str, Node]:
    """The claims that are used, as they are in the invariant of a specification."""
    witnessed = with_witnesses(spec)
    tracer = Tracer(witnessed, servers)
    declared = [p for name, p in witnessed.properties.items() if name in RULE_OF]
    return {
        p.name: tracer.graph.without_rules(tracer.property(p.claim, p.states, p.params)) for p in declared
    }


def same(a: Node, b: Node) -> bool:
    """Whether two claims say the same; of majorities they don't where membership changes."""
    return list(text_of([a])) == list(text_of([b]))


class Refuter:
    """Looks for lines that can't all be true, by claims that the lines' extensions leave as they are."""

    def __init__(self, lines: Lines, looked_at: Callable[[Line], bool] = lambda line: True) -> None:
        self.lines = lines
        self.looked_at = looked_at
        self.servers = lines.servers
        self.number = {i: k for k, i in enumerate(self.servers, 1)}
        spec = with_witnesses()
        self.types = spec.server.types(), spec.history.types()
        extended = claims_of(having(*lines.extensions), self.servers)
        self.nodes = {
            name: (spec.properties[name], node)
            for name, node in claims_of(raft, self.servers).items()
            if name in extended and same(node, extended[name])
        }
        largest, self.terms = self._sizes()
        self.shapes = shapes_for(
            self.servers, trace_format(self.servers, self.lines.extensions).structs, self.terms, largest
        )
        self.of = Unknown(self.shapes.logic, len(self.servers), largest, self.terms)
        self.end = State(self.of, self.servers, *self.types, at={})
        self.facts = Facts()
        self.values: dict[str, int] = {}
        self.told: dict[str, Line] = {}
        self.quiet: dict[str, tuple[str, int, Line | None]] = {}

    def _sizes(self) -> tuple[int, int]:
        """The largest number that any line names, and the largest term."""
        numbers, terms, values = [len(self.servers), 4], [1], set()
        for line in self.lines.all():
            for m in (line.e.message, *(line.e.sends or ())):
                for f, x in known(m).items() if m is not UNSET else ():
                    if f == "entries":
                        values |= {entry.value for entry in x}
                        terms += [entry.term for entry in x]
                        numbers.append(len(x))
                    elif isinstance(x, int):
                        (terms if f.endswith("term") else numbers).append(x)
            if line.e.state is not UNSET:
                for f in ("current_term", "last_log_term", "commit_index", "last_applied", "log_length"):
                    x = getattr(line.e.state, f)
                    if x is not UNSET:
                        (terms if f.endswith("term") else numbers).append(x)
        return 2 * max(*numbers, *terms, len(values)) + 2, max(terms)

    def refute(self, effort: int = EFFORT) -> Refutation | None:
        """A minimal set of lines that can't all be true, if one is found with so much effort of Z3."""
        if self.terms > TERMS:
            return None
        self._collect()
        solver = z3.SolverFor("QF_FD")
        solver.set("rlimit", effort)  # and no timeout, so that it is the same on a busy machine
        assumed: dict[str, Any] = {}
        logic = self.shapes.logic
        for rule in self.of.rules:
            solver.add(logic.truth(rule))
        for needs, c in self.facts.conditions:
            names = [assumed.setdefault(x, z3.Bool(f"!{x}")) for x in needs]
            solver.add(z3.Implies(z3.And(*names), logic.truth(c)))
        if solver.check(*assumed.values()) != z3.unsat:
            return None
        by_name = {str(x): name for name, x in assumed.items()}
        core = [by_name[str(x)] for x in solver.unsat_core()]
        core, checks = self._minimal(solver, assumed, core)
        return self._refutation(core, checks)

    def _minimal(self, solver: Any, assumed: Mapping[str, Any], core: list[str]) -> tuple[list[str], int]:
        """Leave out what isn't needed. Without any one of the rest it is no longer refuted."""
        checks = 0
        for name in sorted(core, key=lambda x: (x in self.told, x)):
            if name not in core:
                continue
            rest = [x for x in core if x != name]
            checks += 1
            if solver.check(*(assumed[x] for x in rest)) == z3.unsat:
                kept = {str(x) for x in solver.unsat_core()}
                core = [x for x in rest if str(assumed[x]) in kept]
        assert solver.check(*(assumed[x] for x in core)) != z3.sat, "a core that can be satisfied"
        return core, checks

    def _refutation(self, core: Sequence[str], checks: int) -> Refutation:
        lines = sorted((self.told[x] for x in core if x in self.told), key=lambda x: x.number)
        silent = [self.quiet[x] for x in core if x in self.quiet]
        ties = []
        for name in core:
            if name in RULE_OF:
                rule = RULES[RULE_OF[name]]
                doc = (self.nodes[name][0].claim.__doc__ or "").splitlines()[0]
                ties.append(Tie(name, doc, rule.name, rule.section, rule.why))
        return Refutation(lines, ties, silent, sum(1 for _ in self.lines.all()), checks)

    # --- what the lines say ---

    def _collect(self) -> None:
        for i, own in self.lines.of.items():
            before: tuple[State, Line] | None = None
            restarted = False
            for line, after in pairwise([*own, None]):
                assert line is not None
                restarted |= line.e.event == "restart"
                if after is not None and after.e.event == "restart":
                    continue  # the last step before a kill may never have reached the disk, nor anybody
                if not (self._says_something(line) and self.looked_at(line)):
                    continue
                name = f"line {line.number}"
                self.told[name] = line
                view = State(self.of, self.servers, *self.types, at={self.number[i]: str(line.number)})
                self._of_line(i, line, name, view)
                if before is not None:
                    self._between(i, before[0], view, restarted)
                before, restarted = (view, line), False
            self._quiet_server(i, own)
        self._of_the_past()

    def _says_something(self, line: Line) -> bool:
        return line.e.state is not UNSET or line.e.message is not UNSET or bool(line.e.sends)

    def _of_line(self, i: str, line: Line, name: str, view: State) -> None:
        """What a line says of its server and of messages, and what has to hold there."""
        logic, k = self.shapes.logic, self.number[i]
        state = line.e.state
        for f in ("role", "current_term", "voted_for", "commit_index", "last_applied"):
            x = UNSET if state is UNSET else getattr(state, f)
            if x is not UNSET:
                self.facts.add([name], logic.same(view.get(k, f), self._encoded(f, x)))
        if state is not UNSET and state.log_length is not UNSET:
            self.facts.add([name], logic.same(view.get(k, "log").length, state.log_length))
        for claim in AT_A_LINE:
            if claim != "r1_requests_are_in_terms_reached" and self._concerns(claim, line):
                self._claim(claim, [], {"i": k}, view)
        for m in (line.e.message, *(line.e.sends or ())):
            if m is not UNSET:
                self._of_message(m, name, view if m is not line.e.message else self.end)

    def _concerns(self, claim: str, line: Line) -> bool:
        """Whether a line tells what a claim is about; otherwise it says nothing there."""
        about = {
            "a7_candidates_vote_for_themselves": "role",
            "b4_leaders_were_elected": "role",
            "k2_acknowledged_entries_are_stored": "log_length",
            "d3_commit_index_is_justified": "commit_index",
            "d7_applied_is_committed": "last_applied",
        }
        state = line.e.state
        return state is not UNSET and getattr(state, about[claim]) is not UNSET

    def _encoded(self, f: str, x: Any) -> int:
        if f == "role":
            return ROLES.index(x)
        if f == "voted_for":
            return self.number.get(x, 0)
        return int(x)

    def _of_message(self, m: Any, name: str, view: State) -> None:
        """A message that was sent: what the conjuncts say of it."""
        cls = next(
            c
            for c in trace_format(self.servers, self.lines.extensions).structs
            if c.__name__ == type(m).__name__
        )
        have = known(m)
        environment: dict[Any, Any] = {}
        if "term" not in have:
            return
        for f, t in cls.types().items():
            environment[cls, f] = self._field(f, t, have, f"{name}.{snake_case(cls.__name__)}.{id(m)}.{f}")
        claims = [c for c in OF_MESSAGES if c in self.nodes and self._about(c) is cls]
        for claim in claims:
            self._claim(claim, [name], environment, view if claim.startswith("k7") else self.end)
        if cls.__name__ == "RequestVote" and view is not self.end:
            self._claim("r1_requests_are_in_terms_reached", [name], environment, view)

    def _field(self, f: str, t: Type, have: Mapping[str, Any], name: str) -> Any:
        if f not in have:
            if t.kind == "seq":
                return self.shapes.encode(t, (), 0)
            return self.of.value(name, t)
        x = have[f]
        if t.kind == "seq":
            from raftworthy.prove.logic import Entries

            return Entries(len(x), tuple((entry.term, self._value_number(entry.value)) for entry in x))
        return self.number.get(x, 0) if t.kind == "server" else x

    def _value_number(self, value: str) -> int:
        return self.values.setdefault(value, len(self.values) + 1)

    def _about(self, claim: str) -> Any:
        (t,) = self.nodes[claim][0].params.values()
        return t.cls

    def _claim(self, claim: str, needs: Sequence[str], environment: Mapping[Any, Any], *views: State) -> None:
        if claim not in self.nodes:
            return
        terms = SparseTerms(self.of, self.shapes, *views)
        try:
            c = terms.value(self.nodes[claim][1], environment)
        except TooMuchError:
            return
        self.facts.add([*needs, claim], c)

    def _between(self, i: str, before: State, after: State, restarted: bool) -> None:
        """From a line to a later one of a server: what steps keep, any number of steps keeps."""
        others = {k: x for k, x in enumerate(self.servers, 1) if x != i}
        for view in (before, after):
            for k in others:
                for f in ("current_term", "voted_for", "commit_index"):
                    view.kept[k, f] = self.end.get(k, f)
            view.kept[0, "restarts"] = 0
        for claim in FROM_LINE_TO_LINE:
            if not (restarted and claim == "commit_never_falls"):
                self._claim(claim, [], {}, before, after)
        for k in range(self.terms + 1):  # what a server has told others it has told for good
            n = self.number[i]
            a, b = before.get(n, "acked"), after.get(n, "acked")
            if k in a.made or k in b.made:
                self.facts.add([], self.shapes.logic.at_most(a.at(k), b.at(k)))

    def _quiet_server(self, i: str, own: Sequence[Line]) -> None:
        """What a server acknowledged at most, if its lines tell all its acknowledgements."""
        n, logic = self.number[i], self.shapes.logic
        acked: dict[int, int] = {}
        last: dict[int, Line] = {}
        complete = bool(own)
        stood: set[int] = set()  # a leader counts itself among those that store its log, and no line says so
        for line in own:
            if line.e.event == "timeout":
                term = UNSET if line.e.state is UNSET else line.e.state.current_term
                complete = complete and term is not UNSET
                stood.add(term)
            if line.e.event in ACKNOWLEDGING:
                if line.e.sends is UNSET:
                    complete = False
                for x in line.e.sends or ():
                    m = known(x)
                    if not {"term", "match_index", "success"} <= m.keys():
                        complete = False
                    elif m["success"] and m["match_index"] >= acked.get(m["term"], 0):
                        acked[m["term"]], last[m["term"]] = m["match_index"], line
        for t in sorted(set(range(self.terms + 1)) - stood) if complete else ():
            name = f"{i} in term {t}"
            self.quiet[name] = i, t, last.get(t)
            self.facts.add([name], logic.at_most(self.end.get(n, "acked").at(t), acked.get(t, 0)))

    def _of_the_past(self) -> None:
        """What holds of votes, leaders, acknowledgements and commits at the end."""
        for t in range(1, self.terms + 1):
            for claim in sorted(OF_THE_PAST.keys() & self.nodes.keys()):
                params = self.nodes[claim][0].params
                if "i" in params:
                    for k in self.number.values():
                        self._claim(claim, [], {"t": t, "i": k}, self.end)
                else:
                    self._claim(claim, [], {"t": t}, self.end)


def describe(line: Line) -> str:
    """What a line says, in the words of the trace format."""
    e = line.e
    parts = list(_told(e))
    return f"{e.server} {e.event}" + (f": {', '.join(parts)}" if parts else "")


def _told(e: Any) -> Iterator[str]:
    from raftworthy.wording import show

    if e.message is not UNSET:
        m = known(e.message)
        told = [f"{f} {show(m[f])}" for f in ("source", "term", "granted", "match_index") if f in m]
        yield f"received {snake_case(type(e.message).__name__)} ({', '.join(told)})"
    for f in ("role", "current_term", "voted_for", "log_length", "commit_index"):
        x = UNSET if e.state is UNSET else getattr(e.state, f)
        if x is not UNSET:
            yield f"{f} = {show(x)}"
    for x in e.sends or ():
        m = known(x)
        if m.get("granted") or m.get("success"):
            told = [f"{f} {show(m[f])}" for f in ("target", "term", "match_index") if f in m]
            yield f"sent {snake_case(type(x).__name__)} ({', '.join(told)})"
