"""Replay's fast path: one function per kind of event, with the specification's step written into it.

`Steps.take` is what replay means. A function made here does the same for an ordinary event, with
no calls between: it returns True, or changes nothing and returns False, and `take` has the event.
What differs once the step is taken goes to the methods that `take` uses, too.

    e  an event     i  its server     me  i's variables     m  the message received     x  one sent
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from textwrap import indent
from types import CodeType
from typing import Any

from msgspec import UNSET

from raftspec.graph import LEAVES, Graph, Node, postorder
from raftspec.properties import raft
from raftspec.raft import Role
from raftspec.tracing import Transition
from raftspec.types import BOOL
from raftworthy.generated import Generated, Writer, action_body, scope_of, watched_rules
from raftworthy.replay.ledger import replay_actions
from raftworthy.replay.steps import HANDLERS, Steps

# What the templates keep in a name of their own.
FUSED = ("append_entries", "client_request", *HANDLERS)  # the rest is rare
USUAL_ROLE = {"handle_append_entries": "follower", "handle_append_entries_reply": "leader"}
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
    if not (type(x) is {kind} and {same}): return False
"""
# A follower may commit later than it could.
EXPECT_COMMIT = """\
    if state is not UNSET and state.commit_index is not UNSET and state.commit_index < {commit}: return False
"""
ONE_REPLY = """\
    key = hash(x)
    if key in sent.recent or key in sent.older:
        server.news = ()
    else:
        sent.recent[key] = ""
        server.news = (key,)
        if owed or waiting: replay.arrived(key)
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
BIND = """\
def bind(replay):
    S, servers, sent, kinds = replay.world, replay.state, replay.sent, replay.kinds
    owed, waiting = replay.owed, replay.waiting
    apply_entries = replay.actions["apply_entries"]
    advance_commit_index = replay.actions["advance_commit_index"]
{functions}
    return locals()
"""


def _writer(t: Transition, extra: Iterable[Node] = ()) -> Writer:
    """A writer that uses the templates' names for the acting server."""
    w = Writer([*t.roots(), *extra])
    w.names[t.server], w.owners[t.server, 0] = "i", "me"
    return w


def _name_known(t: Transition, w: Writer) -> None:
    """Let a writer use the templates' names for the server's variables, too."""
    for n in list(w.uses):
        if n.op == "get" and n.args == (t.server,) and n.attr[0] in KNOWN:
            w.names[n] = str(n.attr[0])
    w.names |= {n: "length" for n in w.uses if n.op == "len" and w.names.get(n.args[0]) == "log"}


def _differs(new: Mapping[str, str]) -> str:
    """The text of: the event says something of the variables that the step didn't make true."""
    values = {"log_length": "len(log)", "last_log_term": "(log[-1].term if log else 0)"}
    scalars = (name for name, t in raft.server.types().items() if t.kind not in ("seq", "map", "set"))
    values |= {name: new.get(name, name if name in KNOWN else f"me.{name}") for name in scalars}
    texts = [f"(state.{name} is not UNSET and state.{name} != {value})" for name, value in values.items()]
    unlike = "not state.match_index.items() <= me.match_index.items()"
    texts += ["state.votes is not UNSET", f"(state.match_index is not UNSET and {unlike})"]
    return " or ".join(
        [*texts, "(state.next_index is not UNSET and not state.next_index.keys() <= servers.keys())"]
    )


def _usually(t: Transition, graph: Graph, role: str) -> tuple[Transition, list[Node]]:
    """A handler's step for a message of the current term at a server of this role, and its rules' answers."""
    done: dict[Node, Node] = {}
    term = graph.leaf("get", ("current_term", 0), raft.server.types()["current_term"], t.server)
    for n in postorder(*t.roots()):
        args = tuple(done[a] for a in n.args)
        if (n.op, n.attr) == ("message", (t.action.message, "term")):
            done[n] = term
        elif (n.op, n.attr) == ("get", ("role", 0)):
            done[n] = graph.const(Role(role), n.type)
        elif n.op == "lt" and args[0] is args[1]:
            done[n] = graph.const(False, BOOL)
        elif n.op in LEAVES:
            done[n] = n
        else:
            done[n] = args[0] if n.op == "rule" else graph.node(n.op, *args, attr=n.attr)
    rules = [done[n] for n in watched_rules(t)]
    t = t.but(done.__getitem__)
    same = {graph.const(Role(role), raft.server.types()["role"])}
    same |= {n for n in done.values() if n.op == "get" and n.args == (t.server,)}
    updates = {name: n for name, n in t.updates.items() if n not in same}
    return replace(t, updates=updates), rules


def _handled(t: Transition, w: Writer, watched: Iterable[Node]) -> str:
    """A handler's step and what follows from it, as the body of a function."""
    _name_known(t, w)
    body = action_body(t, w, watch=False, refuse="return False")
    w.line(f"seen_{t.name}.add(({', '.join(map(w.expr, watched))},))")
    new = {x: w.atom(n) for x, n in t.updates.items() if x in KNOWN and x != "log"}
    commit = w.atom(t.updates["commit_index"]) if "commit_index" in t.updates else ""
    parts = _lines(body.lines)
    if body.sends:
        ((condition, kind, fields),) = body.sends
        assert condition == "True", f"{t.name} sends {kind} on a condition"
        parts.append(EXPECT_REPLY.format(kind=kind, same=_same(t, fields)))
    if "commit_index" in t.updates:
        parts.append(EXPECT_COMMIT.format(commit=commit))
    parts += _lines("    " + x for x in body.stores)
    parts.append(COMPARE.format(further="e.entries or ", differs=_differs(new)))
    if "role" in t.updates:
        parts.append(CHECK_ROLE)
    return "".join([*parts, ONE_REPLY if body.sends else LEADERS_MESSAGES, END.format(name=t.name)])


def _handler_source(t: Transition, graph: Graph) -> str:
    """The function for a handler's event: twice its step, first as it mostly is."""
    assert t.action.message
    parts = [BEGIN.format(name=t.name), RECEIVE.format(message=t.action.message.__name__), BEFORE]
    if t.name in USUAL_ROLE:
        usual, rules = _usually(t, graph, USUAL_ROLE[t.name])
        parts.append(f"    if m.term == current_term and role == {USUAL_ROLE[t.name]!r}:\n")
        parts.append(indent(_handled(usual, _writer(usual, rules), rules), "    "))
    rules = watched_rules(t)
    return "".join([*parts, _handled(t, _writer(t, rules), rules)])


def _client_request_source(t: Transition) -> str:
    """The function for a leader's appending of entries."""
    w = _writer(t)
    w.indent = "        "
    body = action_body(t, w, watch=True, refuse="assert len(log) == length; return False")
    assert not body.sends
    parts = [BEGIN.format(name=t.name), BEFORE, ENTRIES, *_lines(body.lines)]
    parts += [*_lines("        " + x for x in body.stores), CHECK_ENTRY]
    parts += [COMPARE.format(further="", differs=_differs({})), LEADERS_MESSAGES, END.format(name=t.name)]
    return "".join(parts)


def _append_entries_source() -> str:
    """The function for an event that only says what its leader sends."""
    compare = COMPARE.format(further="e.entries or ", differs=_differs({}))
    name = "append_entries"
    return BEGIN.format(name=name) + BEFORE + compare + LEADERS_MESSAGES + END.format(name=name)


def _lines(texts: Iterable[str]) -> list[str]:
    return [text + "\n" for text in texts]


def _same(t: Transition, fields: Iterable[str]) -> str:
    """The text of: x is the one message that the transition sends."""
    names = [f"x.{name}" for name in t.sends[0].message.types()]
    return " and ".join(f"{x} == {text}" for x, text in zip(names, fields, strict=True) if x != text)


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
            w.names[n] = given[n.attr]
    body = action_body(t, w, watch=True, refuse="return False")
    ((_, _, fields),) = body.sends
    return MAY_SEND.format(lines="\n".join(body.lines), same=_same(t, fields))


def fused_source(generated: Generated) -> str:
    """The text of all functions, for one replay: `bind(replay)` returns them by name."""
    steps, graph = generated.transitions, generated.tracer.graph
    functions = [_may_send_source(steps["append_entries"]), _append_entries_source()]
    functions.append(_client_request_source(steps["client_request"]))
    functions += [_handler_source(steps[name], graph) for name in HANDLERS]
    return BIND.format(functions=indent("".join(functions), "    "))


@cache
def _compiled(servers: tuple[str, ...]) -> CodeType:
    source = fused_source(replay_actions(servers))
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
