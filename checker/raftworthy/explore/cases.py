"""Where to look for what goes wrong without a rule: beginnings, bounds, and what is then to be seen.

Most of Raft's disasters need a dozen steps before the one that matters. A beginning is such a
prefix, written down as in the paper's figures; what comes after it is explored.

    w  a walk, chosen step by step
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from raftspec.extensions import EXTENSIONS, having
from raftspec.mutants import MUTANTS, Mutant
from raftspec.spec import Spec
from raftworthy.explore.bounds import Bounds, UnusableError
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path, Progress, Result
from raftworthy.explore.reference import explore_model


class Walk:
    """A path that is chosen step by step. A step that isn't possible raises ValueError."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.path = Path(model.generated.initial())

    def do(self, action: str, *params: Any) -> Walk:
        """Take a step."""
        move = self.model.take(self.path.world, action, params)
        if move is None:
            shown = ", ".join(map(str, params))
            raise ValueError(f"{action}({shown}) is not possible after {len(self.path)} steps")
        self.path = self.path.then(move)
        return self

    def receive(self, kind: str, source: str, target: str) -> Walk:
        """The target handles the latest message of a kind from a source."""
        for move in reversed(self.path.moves):
            for m in move.sent:
                if (m.__struct_config__.tag, m.source, m.target) == (kind, source, target):
                    return self.do(f"handle_{kind}", m)
        raise ValueError(f"{source} sent no {kind} to {target} in {len(self.path)} steps")

    def stand(self, i: str, *voters: str) -> Walk:
        """Server i begins an election; if it has to ask before, these servers would vote for it."""
        if "pre_vote" in self.model.bounds.extensions:
            self.do("start_pre_vote", i)
            for voter in voters:
                self.receive("pre_vote", i, voter).receive("pre_vote_reply", voter, i)
        return self.do("timeout", i)

    def elect(self, i: str, *voters: str) -> Walk:
        """Server i becomes leader with other servers' votes."""
        self.stand(i, *voters)
        for voter in voters:
            self.receive("request_vote", i, voter).receive("request_vote_reply", voter, i)
        return self.do("become_leader", i)

    def ask(self, i: str) -> Walk:
        """Leader i appends a client's next command."""
        return self.do("client_request", i, f"c{self.path.world.past.commands + 1}")

    def change(self, action: str, i: str, *voters: str) -> Walk:
        """Leader i appends a configuration with these voters."""
        return self.do(action, i, f"c{self.path.world.past.commands + 1}", frozenset(voters))

    def appends(self, action: str, i: str, *meaning: Any) -> Walk:
        """Leader i appends a command with a meaning."""
        return self.do(action, i, f"c{self.path.world.past.commands + 1}", *meaning)

    def send(self, i: str, j: str, size: int = 1) -> Walk:
        """Leader i sends j what comes next, and j answers."""
        s = self.path.world.variables[i]
        prev = s.next_index[j] - 1
        self.do("append_entries", i, j, prev, min(size, len(s.log) - prev), s.commit_index)
        return self.receive("append_entries", i, j).receive("append_entries_reply", j, i)


def initial(w: Walk) -> Walk:
    """No server has done anything yet."""
    return w


def led(w: Walk) -> Walk:
    """n1 leads term 1 with n2's vote."""
    return w.elect("n1", "n2")


def stored(w: Walk) -> Walk:
    """n1 leads term 1; entry 1 is on n1 and n2, and n1 knows."""
    return led(w).ask("n1").send("n1", "n2")


def committed(w: Walk) -> Walk:
    """n1 leads term 1, and has committed entry 1, which is on n1 and n2."""
    return stored(w).do("advance_commit_index", "n1", 1)


def rivals(w: Walk) -> Walk:
    """n1 led term 1 and has entry 1 of it for itself; n3 leads term 2 with n2's vote. Figure 8 (b)."""
    return led(w).ask("n1").do("timeout", "n3").elect("n3", "n2")


def rivals_with_entries(w: Walk) -> Walk:
    """As `rivals`, and n3 has its own entry 1."""
    return rivals(w).ask("n3")


def old_leader_returns(w: Walk) -> Walk:
    """As `rivals_with_entries`, and n1 leads again, in term 3. Figure 8, on the way to (c)."""
    return rivals_with_entries(w).receive("request_vote", "n3", "n1").elect("n1", "n2")


def figure_8(w: Walk) -> Walk:
    """n1 leads term 3, and has replicated its entry of term 1 to n2: a majority. Figure 8 (c)."""
    return old_leader_returns(w).send("n1", "n2").send("n1", "n2")


def figure_8_returned(w: Walk) -> Walk:
    """As `figure_8`, and n3 leads term 4, with its entry of term 2. Figure 8 (d)."""
    return figure_8(w).receive("request_vote", "n1", "n3").elect("n3", "n2")


def overwritten(w: Walk) -> Walk:
    """As `figure_8_returned`, and n1 has n3's entry instead of its own; n2 still has the old one."""
    return figure_8_returned(w).send("n3", "n1").send("n3", "n1")


def settled(w: Walk) -> Walk:
    """As `rivals_with_entries`, and n3 has committed its entry, with n2. n1 knows only the term."""
    w = rivals_with_entries(w).send("n3", "n2").do("advance_commit_index", "n3", 1)
    return w.receive("request_vote", "n3", "n1")


def change_left_behind(w: Walk) -> Walk:
    """Of four servers n1 led term 1, and has the removal of n4 for itself; n4 leads term 2."""
    w = w.elect("n1", "n2", "n3").change("change_voters", "n1", "n1", "n2", "n3")
    return w.do("timeout", "n4").elect("n4", "n2", "n3")


def changed_beside(w: Walk) -> Walk:
    """As `change_left_behind`, and n4 has committed the removal of n1, with n2. n1 knows only the term."""
    w = change_left_behind(w).change("change_voters", "n4", "n2", "n3", "n4")
    return w.send("n4", "n2").do("advance_commit_index", "n4", 1).receive("request_vote", "n4", "n1")


def joint(w: Walk) -> Walk:
    """n1 leads term 1, and has committed a joint configuration, on n1 and n2: after it n1 shall be alone."""
    return led(w).change("enter_joint", "n1", "n1").send("n1", "n2").do("advance_commit_index", "n1", 1)


def alone(w: Walk) -> Walk:
    """As `joint`, and n1 has left the joint configuration and committed that, with n2, which doesn't know."""
    return joint(w).change("change_voters", "n1", "n1").send("n1", "n2").do("advance_commit_index", "n1", 2)


def candidates_ask(w: Walk) -> Walk:
    """n1 and n2 are candidates of term 1, and ask again: n3 would vote for either. With pre_vote only."""
    w.stand("n1", "n3").stand("n2", "n3")
    for i in ("n1", "n2"):
        w.do("start_pre_vote", i).receive("pre_vote", i, "n3")
    return w


def followed(w: Walk) -> Walk:
    """As `committed`, and n2 leads term 2 with n1's vote; n3 has nothing."""
    return committed(w).elect("n2", "n1")


def registered(w: Walk) -> Walk:
    """n1 is alone, leads term 1, and has registered a client at time 1."""
    return w.elect("n1").appends("register_client", "n1", 1)


def asked_of_two(w: Walk) -> Walk:
    """n1 leads term 1, and has committed a client's registration and a request of it, with n2."""
    w = led(w).appends("register_client", "n1", 1).appends("session_request", "n1", 1, 1, 1, 1)
    return w.send("n1", "n2").send("n1", "n2").do("advance_commit_index", "n1", 2)


def asked_of_another(w: Walk) -> Walk:
    """As `asked_of_two`, and n2 has applied both, and leads term 2 with n1's vote."""
    w = asked_of_two(w).do("append_entries", "n1", "n2", 2, 0, 2).receive("append_entries", "n1", "n2")
    return w.do("apply_entries", "n2", 1).do("apply_entries", "n2", 2).elect("n2", "n1")


def succeeded(w: Walk) -> Walk:
    """As `committed`, and n2 leads term 2 with n3's vote; it has entry 1 and doesn't know it is committed."""
    return committed(w).elect("n2", "n3")


def behind(w: Walk) -> Walk:
    """As `committed`; n2 has applied entry 1, and n1 has committed entry 2 since, with n3."""
    w = committed(w).do("append_entries", "n1", "n2", 1, 0, 1).receive("append_entries", "n1", "n2")
    w = w.do("apply_entries", "n2", 1).ask("n1").send("n1", "n3").send("n1", "n3")
    return w.do("advance_commit_index", "n1", 2)


def _outdone(w: Walk, size: int) -> Walk:
    """n2 is elected by n3, has an entry of its own, and commits it with n3, who had none of `size` before."""
    w = w.elect("n2", "n3").ask("n2")
    while len(w.path.world.variables["n3"].log) <= size:
        w = w.send("n2", "n3")
    return w.do("advance_commit_index", "n2", size + 1)


def outdone(w: Walk) -> Walk:
    """n1 leads term 1 and has applied entry 1; n2 leads term 2 and has committed entry 2. n1 doesn't know."""
    return _outdone(committed(w).do("apply_entries", "n1", 1), 1)


def _asks(w: Walk) -> Walk:
    """As `committed`; n1 has applied entry 1, and begun its first round of readers."""
    return committed(w).do("apply_entries", "n1", 1).do("begin_read", "n1")


def _asked(w: Walk) -> Walk:
    """As `_asks`, and n2 has acknowledged the round."""
    return _asks(w).receive("read_index", "n1", "n2")


def outdone_reader(w: Walk) -> Walk:
    """As `outdone`; before that n1 had answered readers, by n2's acknowledgement."""
    w = _asked(w).receive("read_index_reply", "n2", "n1").do("serve_read", "n1")
    return _outdone(w, 1)


def _returned(w: Walk) -> Walk:
    """n1 leads again, in term 3, and has committed and applied entry 2."""
    w = w.do("timeout", "n3").do("timeout", "n3").receive("request_vote", "n3", "n1")
    w = w.elect("n1", "n2").ask("n1").send("n1", "n2").do("advance_commit_index", "n1", 2)
    return w.do("apply_entries", "n1", 2)


def returned_reader(w: Walk) -> Walk:
    """As `outdone` with terms 3 and 4; n2's answer to n1's readers of term 1 is still under way."""
    return _outdone(_returned(_asked(w)), 2)


def late_question(w: Walk) -> Walk:
    """As `returned_reader`, but n2 got n1's question of term 1 only in term 3, and answered it then."""
    return _outdone(_returned(_asks(w)).receive("read_index", "n1", "n2"), 2)


def compacted(w: Walk) -> Walk:
    """As `committed`, and n1 has a snapshot in place of the entry, which n3 lacks. With snapshots only."""
    return committed(w).do("apply_entries", "n1", 1).do("take_snapshot", "n1", 1)


def appended(w: Walk) -> Walk:
    """As `compacted`, and n2 has a second entry, as n1 knows, but not that any is committed."""
    w = stored(w).ask("n1").send("n1", "n2").do("advance_commit_index", "n1", 1)
    return w.do("apply_entries", "n1", 1).do("take_snapshot", "n1", 1)


def ahead(w: Walk) -> Walk:
    """As `compacted`, and n2 has a second entry and knows that it is committed."""
    return compacted(w).ask("n1").send("n1", "n2").do("advance_commit_index", "n1", 2).send("n1", "n2")


def follower_compacted(w: Walk) -> Walk:
    """n1 leads term 1 and has committed an entry, with n3; n2 has compacted it, and n1 doesn't know."""
    w = led(w).ask("n1").send("n1", "n3").do("advance_commit_index", "n1", 1)
    w = w.do("append_entries", "n1", "n2", 0, 1, 1).receive("append_entries", "n1", "n2")
    return w.do("apply_entries", "n2", 1).do("take_snapshot", "n2", 1)


def compacted_beside(w: Walk) -> Walk:
    """Of five n1 led term 1, with two entries on n2, too; n3 leads term 2, and has compacted its own."""
    w = w.elect("n1", "n2", "n5").ask("n1").ask("n1").send("n1", "n2", 2).do("timeout", "n3")
    w = w.elect("n3", "n4", "n5").ask("n3").send("n3", "n4").send("n3", "n5")
    return w.do("advance_commit_index", "n3", 1).do("apply_entries", "n3", 1).do("take_snapshot", "n3", 1)


BEGINNINGS: dict[str, Callable[[Walk], Walk]] = {
    f.__name__: f
    for f in (
        initial, led, stored, committed, rivals, rivals_with_entries, old_leader_returns,
        figure_8, figure_8_returned, overwritten, settled,
    )
}  # fmt: skip
EXTENSION_BEGINNINGS: dict[str, Callable[[Walk], Walk]] = {
    f.__name__: f
    for f in (
        change_left_behind, changed_beside, joint, alone, registered, asked_of_two, asked_of_another,
        candidates_ask, followed, succeeded, behind, outdone, outdone_reader, returned_reader, late_question,
        compacted, appended, ahead, follower_compacted, compacted_beside,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Where a disaster is to be found: within these bounds, after this beginning.

    The beginning keeps to Figure 2's policy. With `any_policy` servers choose for themselves only after it.
    """

    bounds: Bounds
    start: str = "initial"
    any_policy: bool = False
    properties: tuple[str, ...] | None = None

    @property
    def spec(self) -> Spec:
        """Raft with the extensions that the bounds name."""
        return having(*self.bounds.extensions)

    def explore(
        self,
        spec: Spec | None = None,
        *,
        without: Iterable[str] = (),
        mutant: Mutant | None = None,
        progress: Callable[[Progress], None] | None = None,
        limit_states: int | None = None,
        explorer: Callable[..., Result] = explore_model,
        made: tuple[Model, Path] | None = None,
        **more: Any,
    ) -> Result:
        """Explore Raft, or another specification, here, by the reference explorer or by another one.

        `made` is what `begun` gives, if somebody has it already.
        """
        model, begun = made or self.begun(spec or self.spec, without, mutant)
        return explorer(
            model,
            properties=self.properties,
            start=begun,
            progress=progress,
            limit_states=limit_states,
            **more,
        )

    def checking(self, more: str) -> Case:
        """The same, with one more property to be checked."""
        return replace(self, properties=(*(self.properties or ()), more))

    def sending(self, messages: int | None) -> Case:
        """The same, in which so many messages are sent, if the case doesn't say how many."""
        if self.bounds.max_messages is not None or messages is None:
            return self
        return replace(self, bounds=replace(self.bounds, max_messages=messages))

    def begun(
        self, spec: Spec, without: Iterable[str] = (), mutant: Mutant | None = None
    ) -> tuple[Model, Path]:
        """The specification within these bounds, and the beginning, walked in it.

        Raises:
            UnusableError: there is no such beginning, or it doesn't fit the bounds.
        """
        without = frozenset(without)
        beginnings = BEGINNINGS | EXTENSION_BEGINNINGS
        if self.start not in beginnings:
            raise UnusableError(f"no beginning is called {self.start}; there are {', '.join(beginnings)}")
        figure_2 = Model(spec, self.bounds, without, mutant)
        model = Model(spec, self.bounds, without, mutant, self.any_policy) if self.any_policy else figure_2
        try:
            return model, beginnings[self.start](Walk(figure_2)).path
        except (KeyError, ValueError) as error:  # a server that isn't there, or a step that isn't possible
            raise UnusableError(
                f"the beginning {self.start} doesn't fit the bounds ({self.bounds}): {error}"
            ) from error


def with_extensions(names: Iterable[str] | None, mutant: str | None) -> tuple[str, ...]:
    """The extensions that are named, or `all`, and those that a known bug is in; each once, in their order.

    Raises:
        UnusableError: there is no such extension, or no such mutant.
    """
    found = mutant_called(mutant)
    names = EXTENSIONS if names and "all" in names else names
    wanted = {*(names or ()), *(found.extensions if found else ())}
    known = (name for name in EXTENSIONS if name in wanted)
    return Bounds(extensions=(*known, *sorted(wanted - EXTENSIONS.keys()))).extensions


def mutant_called(name: str | None) -> Mutant | None:
    """A known bug by its id. Raises UnusableError if there is none."""
    if name is not None and name not in MUTANTS:
        raise UnusableError(f"no mutant is called {name}; there are {', '.join(MUTANTS)}")
    return MUTANTS[name] if name is not None else None


def _reading(**bounds: Any) -> Bounds:
    return Bounds(**bounds, extensions=("reads",))


TWO = Bounds(servers=2)
ELECTIONS = Bounds(max_log=0)

# Each rule that something goes wrong without, and where. Figure 8 (commit.current_term) is 28 steps,
# beginning included, in 3 servers, 4 terms, logs of 1, 2 commands and 20 messages: from the initial state
# that is more than the reference explorer affords.
RULE_CASES: Mapping[str, Case] = {
    "term.step_down": Case(ELECTIONS),
    "election.new_term": Case(ELECTIONS),
    "election.vote_for_self": Case(ELECTIONS),
    "election.majority": Case(ELECTIONS),
    "vote.up_to_date": Case(Bounds(), "committed"),
    "vote.once_per_term": Case(ELECTIONS),
    "vote.recorded": Case(ELECTIONS),
    "vote.count_current_term": Case(ELECTIONS),
    "vote.count_granted": Case(ELECTIONS),
    "leader.reset_match_index": Case(Bounds(max_term=5, commands=2), "overwritten"),
    "append.leader_only": Case(Bounds(servers=2, max_term=1, commands=2)),
    "append.own_term": Case(Bounds(commands=2), "rivals"),
    "replicate.leader_only": Case(Bounds(commands=2), "settled", any_policy=True),
    "replicate.commit_index": Case(Bounds(max_term=1), "led", any_policy=True),
    "append.current_term": Case(Bounds(commands=2), "rivals_with_entries"),
    "append.previous_entry": Case(Bounds(commands=2), "rivals_with_entries", any_policy=True),
    "append.truncate_only_conflict": Case(TWO),
    "append.truncate_conflict": Case(Bounds(commands=2), "rivals_with_entries"),
    "append.acknowledge_matched": Case(Bounds(commands=2), "rivals"),
    "commit.follower_limit": Case(Bounds(commands=2), "settled"),
    "commit.never_back": Case(TWO),
    "replicate.ack_current_term": Case(Bounds(max_term=5, commands=2), "overwritten"),
    "commit.match_monotone": Case(TWO),
    "replicate.next_after_match": Case(Bounds(servers=2, max_term=1)),
    "commit.leader_only": Case(Bounds(servers=1, max_term=1, crashes=1)),
    "commit.majority": Case(TWO),
    "commit.current_term": Case(Bounds(max_term=4, commands=2, max_messages=20), "figure_8"),
    "apply.committed_only": Case(Bounds(servers=2, max_term=1, applies=True)),
    "restart.keep_term": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "restart.keep_vote": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "restart.keep_log": Case(Bounds(servers=2, max_term=1, crashes=1)),
}

WITH_SNAPSHOTS: dict[str, Any] = {"extensions": ("snapshots",)}
COMPACTED = Bounds(max_term=1, max_log=2, max_messages=14, **WITH_SNAPSHOTS)
ALONE = Case(Bounds(servers=1, max_term=1, crashes=1, **WITH_SNAPSHOTS))
BESIDE = Case(
    Bounds(servers=5, max_log=2, commands=3, entries=2, max_messages=40, **WITH_SNAPSHOTS), "compacted_beside"
)

# Each mutant that breaks something, and where.
MUTANT_CASES: Mapping[str, Case] = {
    "E01": Case(ELECTIONS),
    "E02": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "E03": Case(ELECTIONS),
    "E04": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "E10": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "E11": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "E16": Case(Bounds(commands=2), "rivals"),
    "R01": RULE_CASES["commit.current_term"],
    "R02": Case(TWO),
    "R03": Case(Bounds(servers=2, max_term=1)),
    "R04": Case(TWO),
    "R05": Case(TWO),
    "R08": Case(Bounds(max_term=3, commands=2), "old_leader_returns"),
    "R11": Case(Bounds(max_term=3, max_messages=11), "committed"),
    "R15": Case(Bounds(servers=2, max_term=1, crashes=1)),
    "R16": Case(Bounds(servers=2, max_term=1, max_log=2), "led", any_policy=True),
    "L01": Case(_reading(max_log=2), "outdone"),
    "L02": Case(_reading(max_log=2), "outdone"),
}

ASKING: dict[str, Any] = {"extensions": ("pre_vote",)}
TRANSFER: dict[str, Any] = {"extensions": ("leadership_transfer",)}
SESSIONS = Bounds(servers=1, max_term=1, max_log=3, extensions=("sessions",))
MEMBERS: dict[str, Any] = {"extensions": ("membership",)}
# The same of extensions.
EXTENSION_CASES: Mapping[str, Case] = {
    "pre_vote.majority": Case(Bounds(max_log=0, **ASKING)),
    "pre_vote.keep_vote": Case(Bounds(max_log=0, **ASKING)),
    "pre_vote.no_vote": Case(Bounds(max_log=0, **ASKING), "candidates_ask"),
    "E06": Case(Bounds(max_log=0, **ASKING)),
    "E07": Case(Bounds(max_log=0, **ASKING), "candidates_ask"),
    "check_quorum.keep_vote": Case(Bounds(max_log=0, extensions=("check_quorum",))),
    "transfer.leader_only": Case(Bounds(max_log=0, **TRANSFER)),
    "transfer.caught_up": Case(Bounds(**TRANSFER), "followed"),
    "transfer.current_term": Case(Bounds(**TRANSFER)),
    "membership.in_force_when_stored": Case(
        Bounds(max_log=3, commands=3, changes=2, crashes=1, max_messages=10, **MEMBERS), "alone"
    ),
    "membership.majority_of_both": Case(Bounds(max_messages=6, **MEMBERS)),
    "membership.count_voters": Case(Bounds(servers=2, max_log=3, commands=3, max_messages=7, **MEMBERS)),
    "membership.one_server": Case(Bounds(max_log=2, commands=2, max_messages=8, **MEMBERS), "committed"),
    "membership.one_at_a_time": Case(Bounds(max_log=2, commands=2, changes=2, max_messages=6, **MEMBERS)),
    "membership.own_term_first": Case(
        Bounds(servers=4, max_term=3, commands=2, changes=2, max_messages=20, **MEMBERS), "changed_beside"
    ),
    "session.once": Case(SESSIONS),
    "session.kept_response": Case(SESSIONS),
    "session.not_forgotten": Case(replace(SESSIONS, max_log=4, requests=2), "registered"),
    "session.registered": Case(replace(SESSIONS, max_log=2)),
    "session.expiry_from_log": Case(replace(SESSIONS, servers=2, commands=3), "asked_of_two"),
    "reads.leader_only": Case(_reading(max_term=1, max_log=2), "behind"),
    "reads.own_term": Case(_reading(), "succeeded"),
    "reads.majority": Case(_reading(max_log=2), "outdone"),
    "reads.current_round": Case(_reading(max_log=2, reads=2), "outdone_reader"),
    "reads.ack_current_term": Case(_reading(max_term=4, max_log=3, reads=2), "returned_reader"),
    "reads.ask_current_term": Case(_reading(max_term=4, max_log=3, reads=2), "late_question"),
    "reads.wait_applied": Case(_reading(max_term=1), "committed"),
    "snapshot.applied_only": ALONE,
    "snapshot.last_term": Case(Bounds(max_term=3, commands=2, max_messages=18, **WITH_SNAPSHOTS), "settled"),
    "snapshot.send_kept": Case(COMPACTED, "compacted", any_policy=True),
    "snapshot.send_taken": Case(COMPACTED, "compacted", any_policy=True),
    "snapshot.never_back": Case(COMPACTED, "ahead", any_policy=True),
    "snapshot.keep_newer": Case(COMPACTED, "appended", any_policy=True),
    "snapshot.discard_conflict": BESIDE,
    "restart.keep_snapshot": ALONE,
    "S01": Case(COMPACTED, "compacted", any_policy=True),
    "S02": Case(Bounds(servers=1, crashes=1, **WITH_SNAPSHOTS), any_policy=True),
    "S04": BESIDE,
    "S07": ALONE,
}
EXTENSION_CASES = {
    **EXTENSION_CASES,
    "M01": EXTENSION_CASES["membership.own_term_first"],
    "M02": Case(Bounds(max_log=2, commands=2, changes=2, max_messages=9, **MEMBERS), "joint"),
    "M03": EXTENSION_CASES["membership.one_at_a_time"],
    "R17": EXTENSION_CASES["membership.majority_of_both"],
    "L07": Case(replace(SESSIONS, servers=2, max_term=2), "asked_of_another"),
    "L08": Case(replace(SESSIONS, max_term=2, crashes=1, extensions=("sessions", "snapshots")), "registered"),
    "L09": EXTENSION_CASES["session.expiry_from_log"],
    "L10": EXTENSION_CASES["session.not_forgotten"],
    "L11": EXTENSION_CASES["session.once"],
}
