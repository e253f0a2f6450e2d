"""What a crash may leave behind: the last logged step may be lost, or one more may be on the disk.

Both orders of writing, disk first or trace first, are in use; a kill between the two writes leaves one
of these. Anything else on the disk is a violation.

    e  the restart event     i  its server     v  variables     m  a message
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET

from raftspec.snapshots import InstallSnapshot
from raftworthy.files import Unusable
from raftworthy.generated import World
from raftworthy.replay.ledger import Ledger, Mismatch, Server, Violation, differences, shallow


def restart(ledger: Ledger, e: Any, server: Server, last: bool) -> bool:
    """A server starts with what its disk holds. False if others' events may yet explain what that is.

    Raises:
        Violation: nothing explains it, and `last` says that nothing more will come.
    """
    if e.start is not UNSET and e.start != server.start + 1 and (server.start or e.start != 1):
        missing = server.start + 1
        what = f"this is start {e.start} of {server.name}; " + (
            f"the trace of its start {missing} is missing"
            if e.start > missing
            else "that one was there already; is a file given twice?"
        )
        raise Unusable("", what)
    me = server.me
    # Two things that nobody saw explain it only where one doesn't.
    if not (
        _disk_holds(e, me)
        or _take_back(ledger, e, server)
        or _hidden_step(ledger, e, server)
        or _take_back(ledger, e, server, told=True)
    ):
        if last or len(ledger.servers) == 1:
            raise other_disk(e, me)
        return False
    if me.role == "leader":
        ledger.remember_leadership(server, me.current_term, None, len(me.log))
    me = server.me = ledger.world.variables[e.server]
    me.log.cut = None
    ledger.actions["restart"](ledger.world, e.server, _send_nothing)
    _load_table(ledger, e, me)
    mismatches = list(differences(e.state, me))
    if mismatches:
        raise Violation("state", e, "restart", (e.server,), mismatches=mismatches)
    if e.start is not UNSET:
        server.start = e.start
    server.before = None
    server.could_commit = 0
    server.news = ()
    server.held.clear()
    return True


def _load_table(ledger: Ledger, e: Any, me: Any) -> None:
    """With sessions the state that a snapshot holds is made again, entry by entry, if it isn't known."""
    if ledger.tables:
        ledger.tables.give(me)
    if ledger.told and "sessions" in ledger.extensions:
        for n in range(me.last_applied + 1, me.snapshot_index + 1):
            ledger.actions["apply_entries"](ledger.world, e.server, n, _send_nothing)


def _send_nothing(m: Any) -> None:
    raise AssertionError(f"a server that starts sends {m}")


def _disk_holds(e: Any, v: Any) -> bool:
    """Whether the persistent variables are what the restart event says."""
    state, log = e.state, v.log
    if state is not UNSET and not (
        (state.current_term is UNSET or state.current_term == v.current_term)
        and (state.voted_for is UNSET or state.voted_for == v.voted_for)
        and (state.log_length is UNSET or state.log_length == len(log))
        and (state.last_log_term is UNSET or state.last_log_term == (log[-1].term if log else 0))
    ):
        return False
    told = UNSET if state is UNSET else getattr(state, "snapshot_index", UNSET)
    if told not in (UNSET, getattr(v, "snapshot_index", 0)):
        return False
    if not e.entries:
        return True
    after = len(log) - len(e.entries) if e.after is UNSET else e.after
    return after >= 0 and list(e.entries) == log[after:]


def _log_means(e: Any, v: Any) -> bool:
    """Whether the log's newest configuration is where the restart event says, where membership can change."""
    said = getattr(e.state, "configured", UNSET)
    return said is UNSET or said == v.configured


def added_unseen(e: Any, log: Sequence[Any]) -> dict[str, Any]:
    """What AppendEntries would say that make a log what the disk holds, as far as the restart event tells."""
    state = e.state
    if state is UNSET or UNSET in (state.current_term, state.log_length) or not e.entries:
        return {}
    after = state.log_length - len(e.entries) if e.after is UNSET else e.after
    prev = min(len(log), state.log_length)
    while prev > after and log[prev - 1] != e.entries[prev - 1 - after]:
        prev -= 1
    if prev < after or prev == state.log_length:
        return {}
    entries = tuple(e.entries[prev - after :])
    prev_term = log[prev - 1].term if prev else 0
    told = {"prev_log_index": prev, "prev_log_term": prev_term, "entries": entries}
    return {"term": state.current_term, **told}


def newer_term(e: Any, me: Any) -> dict[str, Any]:
    """What a message would say that brings a server to the term on its disk, if that is newer."""
    newer = e.state is not UNSET and e.state.current_term not in (UNSET, me.current_term)
    return {"term": e.state.current_term} if newer else {}


def _take_back(ledger: Ledger, e: Any, server: Server, told: bool = False) -> bool:
    """The last step was logged but never reached the disk: undo it, if that explains the disk.

    If `told`, together with a newer term that the server was told of before.
    """
    if server.before is None:
        return False
    (term, voted_for, length), me, log = server.before, server.me, server.me.log
    cut = log.cut
    kept = length - len(cut or ())
    added = log[kept:]
    log.end(kept, cut or ())
    trial = shallow(me)
    trial.current_term, trial.voted_for = term, voted_for
    if ledger.told and server.compacted[0] == server.seq:
        trial.snapshot_index = server.compacted[1]
    if hasattr(trial, "configured"):
        trial.configured = kept + len(cut or ()) + 1  # past the log: the restart looks for the newest in it
    if not (_told_of_newer_term(ledger, e, trial) if told else _disk_holds(e, trial)):
        log.end(kept, added, cut)
        return False
    for key, receiver in ledger.sent.take_back(server.news).items():
        what = f"the step before this restart is not on the disk, but {receiver} received a message of it"
        v = Violation("restart", e, "restart", (e.server,), what=what)
        v.number = ledger.number
        ledger.owed[key] = v
    ledger.world.variables[e.server] = trial
    if len(ledger.servers) == 1 or (me.role == "leader" and me.commit_index > length):
        _take_back_commitment(ledger.world.past, length)
    ledger.lost_steps += 1
    return True


def _told_of_newer_term(ledger: Ledger, e: Any, trial: Any) -> bool:
    """Before the lost step a reply that isn't logged may have changed the disk; take it if so."""
    term = UNSET if e.state is UNSET else e.state.current_term
    if term is UNSET or term <= trial.current_term or ledger.state[e.server].logs_sends:
        return False
    for j, them in ledger.world.variables.items():
        if j != e.server and them.current_term >= term:
            world = World({**ledger.world.variables, e.server: trial}, ledger.world.past)
            reply = ledger.request_vote_reply(j, e.server, term, False)
            ledger.actions["handle_request_vote_reply"](world, reply, _send_nowhere)
            return _disk_holds(e, trial)
    return False


def _take_back_commitment(past: Any, length: int) -> None:
    """A leader that is the only voter commits, and applies, what it appends in the very same step."""
    del past.committed[length:]
    if hasattr(past, "applied") and past.applied > length:
        for n in range(length + 1, past.applied + 1):
            past.answers.pop(n, None)
            past.executions.pop(n, None)
        past.applied = length


def _hidden_step(ledger: Ledger, e: Any, server: Server) -> bool:
    """One step reached the disk but not the trace: find a step that explains the disk."""
    if not server.seq:
        return False  # before its first start a server took no steps
    world, log, i = ledger.world, server.me.log, e.server
    length, cut = len(log), log.cut
    for steps in _candidates(ledger, e):
        trial = World({**world.variables, i: shallow(server.me)}, shallow(world.past))
        log.cut = None
        taken = not any(ledger.actions[name](trial, *params, _send_nowhere) for name, *params in steps)
        if taken and _disk_holds(e, trial.variables[i]) and _log_means(e, trial.variables[i]):
            world.variables[i], world.past = trial.variables[i], trial.past
            ledger.hidden_steps += 1
            return True
        log.end(length - len(log.cut or ()), log.cut or (), cut)
    return False


def _send_nowhere(m: Any) -> None:
    """The step was not logged, so none of its messages left."""


def _candidates(ledger: Ledger, e: Any) -> Iterator[list[tuple[Any, ...]]]:
    """What a server may have done unseen, each as actions with parameters, judging by what its disk holds."""
    i, state = e.server, e.state
    me = ledger.world.variables[i]
    if state is UNSET:
        return
    yield [("timeout", i)]
    if ledger.told and state.snapshot_index not in (UNSET, me.snapshot_index):
        yield from _snapshots(ledger, i, state.snapshot_index, state.current_term)
    term = me.current_term if state.current_term is UNSET else state.current_term
    if state.voted_for not in (UNSET, None) and (state.voted_for, term) in ledger.requests:
        m = ledger.requests[state.voted_for, term]
        yield [
            (
                "handle_request_vote",
                ledger.request_vote(m.source, i, term, m.last_log_index, m.last_log_term),
            )
        ]
    for j in ledger.servers:
        them = ledger.world.variables[j]
        if j != i and not ledger.state[i].logs_sends and them.current_term >= term - 1 > me.current_term:
            # A reply that isn't logged had told it of a newer term.
            yield [
                ("handle_request_vote_reply", ledger.request_vote_reply(j, i, term - 1, False)),
                ("timeout", i),
            ]
        if j == i or them.current_term < term:
            continue
        yield [("handle_request_vote_reply", ledger.request_vote_reply(j, i, term, False))]
        for leader in ledger.leaders_of(j, term):
            yield [("handle_append_entries", _missed_entries(ledger, i, j, leader.log, term, state))]
    if state.log_length is not UNSET and e.entries:
        added = state.log_length - len(me.log)
        appends = [("client_request", i, entry.value) for entry in e.entries[len(e.entries) - added :]]
        if added == 1:  # whose own vote is a majority
            yield [("timeout", i), ("become_leader", i), *appends]
        for name, params in ledger.said(e).items():
            if added == 1:
                yield [(name, i, e.entries[-1].value, *params)]
        if 0 < added <= len(e.entries):
            if me.role == "candidate":
                votes = [ledger.request_vote_reply(j, i, term, True) for j in ledger.servers]
                received = [
                    ("handle_request_vote_reply", vote) for vote in votes if hash(vote) in ledger.sent
                ]
                yield [*received, ("become_leader", i), *appends]
            yield list(appends)


def _snapshots(ledger: Ledger, i: str, n: int, term: Any) -> Iterator[list[tuple[Any, ...]]]:
    """A server's disk has a snapshot of n entries, which it took itself or got from a leader."""
    yield [("take_snapshot", i, n)]
    prefix = tuple(ledger.world.past.committed[:n])
    if len(prefix) < n:
        return
    made = ledger.generated.structs[InstallSnapshot]
    for j in ledger.servers:
        them = ledger.world.variables[j]
        if j != i:
            yield [
                ("handle_install_snapshot", made(j, i, them.current_term if term is UNSET else term, prefix))
            ]


def _missed_entries(ledger: Ledger, i: str, j: str, log: list[Any], term: int, state: Any) -> Any:
    """The AppendEntries of leader j that would make i's log what its disk holds: j's log up to some point."""
    mine = ledger.world.variables[i].log
    upto = len(mine) if state.log_length is UNSET else state.log_length
    prev = min(len(mine), len(log), upto)
    while prev and mine[prev - 1] != log[prev - 1]:
        prev -= 1
    prev_term = log[prev - 1].term if prev else 0
    return ledger.append_entries(j, i, term, prev, prev_term, tuple(log[prev:upto]), 0)


def other_disk(e: Any, me: Any) -> Violation:
    """The violation that a disk is which nothing explains."""
    persistent = ("current_term", "voted_for", "log_length", "last_log_term")
    found = [m for m in differences(e.state, me) if m.name in persistent]
    if not found:
        found = [Mismatch("entries", f"the end of a log of {len(me.log)}", "other entries")]
    return Violation("restart", e, "restart", (e.server,), mismatches=found)
