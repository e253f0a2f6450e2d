"""Replay's fast path: one function per kind of event, with the specification's step written into it.

`Steps.take` is what replay means. A function made here does the same for an ordinary event, with
no calls between: it returns True, or changes nothing and returns False, and `take` has the event.
What differs once the step is taken goes to the methods that `take` uses, too.

    e  an event     i  its server     me  i's variables     m  the message received     x  one sent
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from textwrap import indent
from types import CodeType
from typing import Any

from msgspec import UNSET

from raftspec.graph import postorder
from raftspec.properties import raft
from raftspec.tracing import Transition
from raftworthy.generated import Writer, action_body, scope_of
from raftworthy.ledger import replay_actions
from raftworthy.steps import HANDLERS, Steps

# What the templates keep in a name of their own.
FUSED = ("append_entries", "client_request", *HANDLERS)  # the rest is rare
FOLLOWING = ("commit_index", "last_applied")  # may move on in steps that follow
KNOWN = ("log", "role", "current_term", "voted_for")

BEGIN = """\
def {name}(e):
    i, sends, state = e.server, e.sends, e.state
    server = servers.get(i)
    if server is None or sends is UNSET: return False
    seq = server.seq + 1
    if e.seq != seq and e.seq is not UNSET: return False
"""
RECEIVE = """\
    m = e.message
    if type(m) is not {message} or m.target != i: return False
    key = hash(m)
    if key in sent.recent: sent.recent[key] = i
    elif key in sent.older: sent.older[key] = i
    else: return False
"""
BEFORE = """\
    me = server.me
    log, role, current_term, voted_for = me.log, me.role, me.current_term, me.voted_for
    length = len(log)
    log.cut = None
"""
ENTRIES = """\
    if not e.entries: return False
    for entry in e.entries:
        v = entry.value
"""
CHECK_ENTRY = """\
        if log[-1] != entry: replay.refuse_entry(e, entry, me)
"""
# An event may stand for more steps. Their order doesn't matter to what they come to; a guard that
# fails changes nothing, and `follow_up` finds it again. What then still differs is a violation.
COMPARE = """\
    if state is not UNSET:
        n = state.commit_index
        if n is not UNSET and n > me.commit_index: advance_commit_index(S, i, n, None)
        n = state.last_applied
        if n is not UNSET and n > me.last_applied: apply_entries(S, i, n, None)
    if {further}(state is not UNSET and ({differs})):
        replay.follow_up(e, me, last=True)
        replay.compare(e, me)
"""
CHECK_ROLE = """\
    if role == "leader" and me.role != "leader":
        replay.remember_leadership(server, current_term, log.cut, length)
"""
EXPECT_REPLY = """\
    x = sends[0] if len(sends) == 1 else None
    fine = type(x) is {kind} and {same}
    if not fine: made = {kind}({fields})
"""
ONE_REPLY = """\
    if fine:
        key = hash(x)
        if key in sent.recent or key in sent.older:
            server.news = ()
        else:
            sent.recent[key] = ""
            server.news = (key,)
            if owed or waiting: replay.arrived(key)
    else:
        replay.send(e, server, [made])
"""
LEADERS_MESSAGES = """\
    server.news = ()
    if sends:
        news = []
        for x in sends:
            if type(x) is not AppendEntries or not may_send(i, me, x) or x.target not in servers:
                replay.check_sent(e, x, ())
            key = hash(x)
            if not (key in sent.recent or key in sent.older):
                sent.recent[key] = ""
                news.append(key)
                if owed or waiting: replay.arrived(key)
        server.news = news
"""
END = """\
    server.before = current_term, voted_for, length
    server.seq = seq
    kinds["{name}"] += 1
    return True
"""
# Whether leader i may send the AppendEntries x now.
MAY_SEND = """\
def may_send(i, me, x):
{lines}
    return {same}
"""
TEMPLATES = {
    BEGIN,
    RECEIVE,
    ENTRIES,
    BEFORE,
    CHECK_ENTRY,
    COMPARE,
    CHECK_ROLE,
    ONE_REPLY,
    LEADERS_MESSAGES,
    END,
}
BIND = """\
def bind(replay):
    S, servers, sent, kinds = replay.world, replay.state, replay.sent, replay.kinds
    owed, waiting = replay.owed, replay.waiting
    apply_entries = replay.actions["apply_entries"]
    advance_commit_index = replay.actions["advance_commit_index"]
{functions}
    return locals()
"""


def _writer(t: Transition) -> Writer:
    """A writer that uses the templates' names for the acting server."""
    w = Writer(t.roots())
    w.names[t.server], w.owners[t.server, 0] = "i", "me"
    return w


def _name_known(t: Transition, w: Writer) -> None:
    """Let a writer use the templates' names for the server's variables, too."""
    for n in postorder(*t.roots()):
        if n.op == "get" and n.args == (t.server,) and n.attr[0] in KNOWN:
            w.names[n] = str(n.attr[0])
        elif n.op == "len" and (n.args[0].op, n.args[0].attr, n.args[0].args) == (
            "get",
            ("log", 0),
            (t.server,),
        ):
            w.names[n] = "length"


def _differs(new: Mapping[str, str]) -> str:
    """The text of: the event says something of the variables that the step didn't make true."""
    values = {"log_length": "len(log)", "last_log_term": "(log[-1].term if log else 0)"}
    scalars = (name for name, t in raft.server.types().items() if t.kind not in ("seq", "map", "set"))
    values |= {name: new.get(name, f"me.{name}") for name in scalars}
    texts = [f"(state.{name} is not UNSET and state.{name} != {value})" for name, value in values.items()]
    texts.append(
        "(state.match_index is not UNSET and not state.match_index.items() <= me.match_index.items())"
    )
    return " or ".join([*texts, "state.votes is not UNSET"])


def _event_source(name: str, t: Transition | None) -> str:
    """The function for a kind of event. Without a transition, the event only says what its server sends."""
    parts = [BEGIN]
    new: dict[str, str] = {}
    end = [COMPARE, CHECK_ROLE, LEADERS_MESSAGES, END]
    if t and t.action.message:
        w = _writer(t)
        _name_known(t, w)
        body = action_body(t, w, watch=True, refuse="return False")
        new = {
            x: w.atom(n)
            for x, n in t.updates.items()
            if n.type.kind not in ("seq", "map") and x not in FOLLOWING
        }
        parts += [RECEIVE, BEFORE, *_lines(body.lines)]
        if body.sends:
            ((condition, kind, fields),) = body.sends
            assert condition == "True", f"{name} sends {kind} on a condition"
            parts.append(EXPECT_REPLY.format(kind=kind, same=_same(t, fields), fields=", ".join(fields)))
            end[2] = ONE_REPLY
        parts += _lines("    " + x for x in body.stores)
    elif t:
        w = _writer(t)
        w.indent = "        "
        body = action_body(t, w, watch=True, refuse="assert len(log) == length; return False")
        assert not body.sends
        parts += [
            BEFORE,
            ENTRIES,
            *_lines(body.lines),
            *_lines("        " + x for x in body.stores),
            CHECK_ENTRY,
        ]
    else:
        parts.append(BEFORE)
    names = {
        "name": name,
        "message": t.action.message.__name__ if t and t.action.message else "",
        "further": "" if name == "client_request" else "e.entries or ",
        "differs": _differs(new),
    }
    # Only the templates have fields to fill in; the specification's text has braces of its own.
    return "".join(part.format(**names) if part in TEMPLATES else part for part in [*parts, *end])


def _lines(texts: Iterable[str]) -> list[str]:
    return [text + "\n" for text in texts]


def _same(t: Transition, fields: Iterable[str]) -> str:
    """The text of: x is the one message that the transition sends."""
    return " and ".join(
        f"x.{f} == {text}" for f, text in zip(t.sends[0].message.types(), fields, strict=True)
    )


def _may_send_source(t: Transition) -> str:
    """Whether a leader's message is one that `append_entries` makes, asked without making it."""
    w = _writer(t)
    given = {
        "j": "x.target",
        "prev": "x.prev_log_index",
        "size": "len(x.entries)",
        "commit": "x.leader_commit",
    }
    for n in postorder(*t.roots()):
        if n.op == "param" and n.attr in given:
            w.bind(n, given[n.attr])
    body = action_body(t, w, watch=True, refuse="return False")
    ((_, _, fields),) = body.sends
    return MAY_SEND.format(lines="\n".join(body.lines), same=_same(t, fields))


def fused_source(transitions: Mapping[str, Transition]) -> str:
    """The text of all functions, for one replay: `bind(replay)` returns them by name."""
    functions = [_may_send_source(transitions["append_entries"])]
    functions += [
        _event_source(name, transitions[name] if name != "append_entries" else None) for name in FUSED
    ]
    return BIND.format(functions=indent("".join(functions), "    "))


@cache
def _compiled(servers: tuple[str, ...]) -> CodeType:
    source = fused_source(replay_actions(servers).transitions)
    return compile(source, "<fused from the specification>", "exec")


def fused(replay: Steps) -> dict[str, Callable[[Any], bool]]:
    """The fast path of a replay, by kind of event."""
    generated = replay.generated
    scope = scope_of(generated.structs) | {f"seen_{name}": s for name, s in generated.seen.items()}
    scope |= {"UNSET": UNSET}
    exec(_compiled(replay.servers), scope)
    functions = scope["bind"](replay)
    return {name: functions[name] if name in FUSED else _never for name in generated.actions}


def _never(e: Any) -> bool:
    """There is no fast path for this kind of event."""
    return False
