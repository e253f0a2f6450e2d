"""Which of the servers that wait for each other at the end of a trace is to blame.

One wrong line makes other servers wait, too: for its replies, and for the messages that would have
followed. So each waiting server's line is put right on trial, as little as can be, and the rest is
replayed. To blame is the one that, put right, sets the others free.

    e  the event that a server waits with     i  the server     m  a message
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from msgspec.structs import replace as but

from raftworthy.files import Place, Unusable
from raftworthy.generated import World
from raftworthy.replay.ledger import PastLog, Server, Stopped, Violation
from raftworthy.replay.provenance import unlike
from raftworthy.replay.steps import Steps

if TYPE_CHECKING:
    from raftworthy.replay.order import Replay

ON_TRIAL = 2_000  # how many events are replayed, at most, to see who is set free


def to_blame(replay: Replay) -> str:
    """The waiting server whose line is the wrong one."""
    parked = replay.parked
    waiting = sorted(parked, key=lambda i: parked[i][0][1])  # the earlier line first

    def for_another(i: str) -> bool:
        """Whether it is another waiting server's message that could end the wait."""
        m = parked[i][0][0].message
        return m is not UNSET and m.source in parked

    best, most = min(waiting, key=for_another), 1
    for corrected in (_with_a_value_put_right, _as_it_is):
        for i in waiting if len(waiting) > 1 else ():
            for e in corrected(replay, parked[i][0][0]):
                freed = _set_free(replay, i, e)
                if freed == len(waiting):
                    return i
                if freed > most:
                    best, most = i, freed
    return _start_before(replay, best)


def _start_before(replay: Replay, i: str) -> str:
    """Server i; or, if it waits, directly or not, for one that can't have started so, that one."""
    best, seen = i, {i}
    while (e := replay.parked[i][0][0]).event != "restart":
        if e.message is UNSET or e.message.source not in replay.parked.keys() - seen:
            return best
        i = e.message.source
        seen.add(i)
    return i


def _with_a_value_put_right(replay: Replay, e: Any) -> Iterator[Any]:
    """The event with another value in its message, or without one of its claims."""
    if e.message is not UNSET:
        for m in dict.fromkeys(messages_like(replay, e.message)):
            if len(unlike(m, e.message)) == 1:
                yield but(e, message=m)
    if e.state is not UNSET:
        for name in e.state.__struct_fields__:
            if getattr(e.state, name) is not UNSET:
                yield but(e, state=but(e.state, **{name: UNSET}))
    if e.event == "restart" and e.entries:
        yield but(e, entries=UNSET, after=UNSET)


def _as_it_is(replay: Replay, e: Any) -> Iterator[Any]:
    """The event itself, for which whatever it lacks is now believed to have been sent."""
    yield e


def _set_free(replay: Replay, i: str, e: Any) -> int:
    """How many of the waiting servers get past their lines, and the next, if e is taken for server i's."""
    ahead = {j: min(2, len(events)) for j, events in replay.parked.items()}

    def watch(e: Any, place: Place, world: World) -> None:
        if e.server in ahead:
            ahead[e.server] -= 1
            if not ahead[e.server]:
                del ahead[e.server]
        if not ahead:
            trial.stop_at = trial.number

    trial = _copy(replay)
    trial.observer, trial.stop_at = watch, replay.number + ON_TRIAL
    (before, place), *rest = trial.parked[i]
    trial.parked[i] = deque([(e, place), *rest])
    trial.waiting = {key: j for key, j in trial.waiting.items() if j != i}
    if e is before:
        _believe(trial, e)
    try:
        trial.go_on(i)
        while trial.retry():
            pass
    except (Violation, Unusable, Stopped):
        pass  # as far as it got
    return len(replay.parked.keys() - ahead.keys())


def _believe(trial: Replay, e: Any) -> None:
    """Let everything have been sent that an event needs: its message, or the replies of all servers."""
    me = trial.state[e.server].me
    if e.message is not UNSET:
        trial.sent.recent[hash(e.message)] = ""
    for j in trial.servers:
        if j != e.server and me.role == "candidate":
            trial.sent.recent[hash(trial.request_vote_reply(j, e.server, me.current_term, True))] = ""
        if j != e.server and me.role == "leader":
            trial.state[e.server].acknowledged[j, me.current_term] = len(me.log) + len(e.entries or ())


# --- what a server sent, or could have sent -----------------------------------------------


def messages_like(steps: Steps, m: Any) -> Iterator[Any]:
    """Messages that the source of m has sent or could have sent, with values like those of m."""
    source = steps.state.get(m.source)
    if source is None:
        return
    if type(m) is steps.request_vote:
        for (i, _), other in steps.requests.items():
            if i == m.source:
                yield but(other, target=m.target)
    for other in _one_off(m):
        if hash(other) in steps.sent:
            yield other
    if type(m) is steps.append_entries:
        terms = {past.term for past in source.ended} | {source.me.current_term}
        end = max(0, len(source.me.log) - len(m.entries))
        known = but(m, leader_commit=source.me.commit_index)
        for other in (m, *_one_off(m), known, but(m, prev_log_index=end), but(known, prev_log_index=end)):
            for term in sorted(terms):
                made = steps.could_have_sent(source, other, term)
                yield from (x for x in made if not source.logs_sends or hash(x) in steps.sent)


def _one_off(m: Any) -> Iterator[Any]:
    """The message with one number one more or less, or the other answer: the commonest slips."""
    for name in m.__struct_fields__:
        value = getattr(m, name)
        if isinstance(value, bool):
            yield but(m, **{name: not value})
        elif isinstance(value, int):
            yield but(m, **{name: value + 1})
            if value:
                yield but(m, **{name: value - 1})


# --- a copy of a replay, to try something out -------------------------------------------------


def _copy(replay: Replay) -> Replay:
    """Another replay that stands where this one does. Logs are copied, as their entries needn't be."""
    made = type(replay)(replay.servers, extensions=replay.extensions)
    made.world = World({i: v.copy() for i, v in replay.world.variables.items()}, replay.world.past.copy())
    made.state = {i: _copy_of(server, made.world.variables[i]) for i, server in replay.state.items()}
    made.sent = replay.sent.copy()
    for name in ("requests", "owed", "waiting", "kinds"):
        setattr(made, name, dict(getattr(replay, name)))
    made.parked = {i: deque(events) for i, events in replay.parked.items()}
    made.hungry, made.number = set(replay.hungry), replay.number
    return made


def _copy_of(server: Server, me: Any) -> Server:
    """A server of a replay, with its variables' copy."""
    me.log.cut = server.me.log.cut
    ended = []
    for past in server.ended:
        held = past.log  # the leadership's log: a PastLog, which shares the server's
        log = PastLog(me.log, held.shared, held.tail)
        ended.append(past._replace(log=log))
    return replace(server, me=me, ended=ended, acknowledged=dict(server.acknowledged))
