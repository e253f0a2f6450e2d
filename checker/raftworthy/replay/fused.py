"""Replay's fast path: one function per kind of event, with the specification's step written into it.

`Steps.take` is what replay means. A function made here does the same for an ordinary event, with
no calls between: it returns True, or changes nothing and returns False, and `take` has the event.
What differs once the step is taken goes to the methods that `take` uses, too.

What makes them quick: a handler is written several times, for cases in which most conditions are known
(`_where`); no statement jumps far, as Python 3.11 compares quickest just before a short jump; a
rule is noted only where it makes a difference; a message that is as expected is compared, not made.

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
from raftspec.spec import Spec
from raftspec.tracing import Transition
from raftspec.types import BOOL, zero
from raftworthy.generated import Generated, Writer, action_body, notes, scope_of, watched_rules
from raftworthy.replay.ledger import replay_actions
from raftworthy.replay.steps import Steps
from raftworthy.replay.templates import (
    BEFORE,
    BEGIN,
    BIND,
    CHECK_ENTRY,
    CHECK_ROLE,
    COMPARE,
    END,
    ENTRIES,
    EXPECT_COMMIT,
    EXPECT_REPLY,
    EXPECT_REQUESTS,
    LEADERS_MESSAGES,
    MESSAGES,
    ONE_REPLY,
    RECEIVE,
    RECEIVED,
    REQUESTS,
    USUALLY,
)

# What the templates keep in a name of their own.
HANDLERS = tuple(a.name for a in raft.actions.values() if a.message)
FUSED = ("timeout", "append_entries", "client_request", *HANDLERS)  # the rest is rare
USUAL_ROLE = {"handle_append_entries": "follower", "handle_append_entries_reply": "leader"}
KNOWN = ("log", "role", "current_term")


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


def _differs(spec: Spec, new: Mapping[str, str]) -> str:
    """The text of: the event says something of the variables that the step didn't make true."""
    values = {"log_length": "len(log)", "last_log_term": "(log[-1].term if log else 0)"}
    scalars = (name for name, t in spec.server.types().items() if t.kind not in ("seq", "map", "set"))
    values |= {name: new.get(name, name if name in KNOWN else f"me.{name}") for name in scalars}
    texts = [f"(state.{name} is not UNSET and state.{name} != {value})" for name, value in values.items()]
    others = (x for x in spec.server.types() if x not in values and x not in raft.server.types())
    texts += [f"(state.{name} is not UNSET and state.{name} != me.{name})" for name in others]
    unlike = "not state.match_index.items() <= me.match_index.items()"
    texts.append("(state.votes is not UNSET and state.votes != me.votes)")
    texts += [f"(state.match_index is not UNSET and {unlike})"]
    return " or ".join(
        [*texts, "(state.next_index is not UNSET and not state.next_index.keys() <= servers.keys())"]
    )


def _where(
    t: Transition, graph: Graph, known: Mapping[tuple[str, str], Node]
) -> tuple[Transition, dict[Node, Node]]:
    """A step where some of what it reads is known, and what becomes of its expressions."""
    done: dict[Node, Node] = {}
    for n in postorder(*t.roots()):
        args = tuple(done[a] for a in n.args)
        name = n.attr[1] if n.op == "message" else n.attr[0] if n.op == "get" else ""
        if (n.op, name) in known:
            done[n] = known[n.op, name]
        elif n.op in LEAVES:
            done[n] = n
        elif n.op == "rule":
            done[n] = args[0]
        else:
            done[n] = _simpler(n.op, args, graph) or graph.node(n.op, *args, attr=n.attr)
    rules = {n: done[n] for n in watched_rules(t)}
    t = t.but(done.__getitem__)
    same = {n for (op, _), n in known.items() if op == "get"}
    same |= {n for n in done.values() if n.op == "get" and n.args == (t.server,)}
    return replace(t, updates={name: n for name, n in t.updates.items() if n not in same}), rules


def _simpler(op: str, args: tuple[Node, ...], graph: Graph) -> Node | None:
    """What an operation comes to where a term is its own, or a sequence is empty."""
    empty = [a.op == "const" and a.type.kind == "seq" and not len(a.attr) for a in args]
    same = len(args) == 2 and args[0] is args[1]
    if same and op in ("lt", "le", "eq"):
        return graph.const(op != "lt", BOOL)
    if same and op == "sub":
        return graph.const(0, args[0].type)
    if op == "ite" and args[0].op == "const":
        return args[1] if args[0].attr else args[2]
    if op == "ite" and args[2].op == "len" and _is_smaller(args) and _never_positive(args[1]):
        return args[1]
    if op == "slice" and (empty[0] or (_never_positive(args[1]) and _is_length(args[2], args[0]))):
        return args[0]
    if op == "concat" and empty[1]:
        return args[0]
    if op == "len" and args[0].op == "concat":
        return graph.node("add", *(graph.node("len", a) for a in args[0].args))
    if op == "add" and args[1].op == "const" and not args[1].attr:
        return args[0]
    if op in ("exists", "forall") and _never_positive(args[0]):
        return graph.const(op == "forall", BOOL)
    if op == "latest" and _never_positive(args[0]):
        return graph.const(0, args[0].type)
    return None


def _never_positive(n: Node) -> bool:
    """Whether a number is a constant that isn't, or the smaller of it and another."""
    if n.op == "ite" and _is_smaller(n.args):
        return _never_positive(n.args[2])
    return n.op == "const" and n.attr <= 0


def _is_smaller(args: tuple[Node, ...]) -> bool:
    """Whether a choice is the smaller of two numbers."""
    condition, *two = args
    return condition.op == "lt" and condition.args == tuple(two)


def _is_length(n: Node, q: Node) -> bool:
    """Whether a number is the length of a sequence."""
    return n.op == "len" and n.args[0] is q


def _handled(
    spec: Spec, t: Transition, w: Writer, said: Mapping[Node, Node], without: Mapping[str, bool]
) -> str:
    """A handler's step and what follows from it, as the body of a function."""
    _name_known(t, w)
    body = action_body(t, w, refuse="return False")
    noted = notes(t, said, without, w)
    new = {x: w.atom(n) for x, n in t.updates.items() if x in KNOWN and x != "log"}
    commit = w.atom(t.updates["commit_index"]) if "commit_index" in t.updates else ""
    before = "me.voted_for"
    if "voted_for" in t.updates:
        before = "voted_for"
        w.line("voted_for = me.voted_for")
    parts = _lines(body.lines)
    if body.sends:
        ((condition, kind, fields),) = body.sends
        assert condition == "True", f"{t.name} sends {kind} on a condition"
        parts.append(EXPECT_REPLY.format(kind=kind, unlike=_unlike(t, fields)))
    if "commit_index" in t.updates:
        parts.append(EXPECT_COMMIT.format(commit=commit))
    parts += [RECEIVED, *_lines("    " + x for x in ("log.cut = None", *noted, *body.stores))]
    parts.append(COMPARE.format(further="e.entries or ", differs=_differs(spec, new)))
    # A leader that is removed stops as soon as that is committed.
    if "role" in t.updates or "membership" in spec.extensions:
        parts.append(CHECK_ROLE)
    end = END.format(name=t.name, voted_for=before)
    return "".join([*parts, ONE_REPLY if body.sends else LEADERS_MESSAGES, end])


def _handler_source(spec: Spec, t: Transition, graph: Graph, without: Mapping[str, bool]) -> str:
    """The functions for a handler's event: its step as it mostly is, and for all other cases."""
    assert t.action.message
    begin = BEGIN + RECEIVE.format(message=t.action.message.__name__) + BEFORE
    whole = _handled(spec, t, _writer(t, watched_rules(t)), {n: n for n in watched_rules(t)}, without)
    role = USUAL_ROLE.get(t.name)
    if role is None:
        return begin.format(name=t.name, kind=t.name) + whole
    types = spec.server.types()
    known = {
        ("message", "term"): graph.leaf("get", ("current_term", 0), types["current_term"], t.server),
        ("get", "role"): graph.const(Role(role), types["role"]),
    }
    parts = [begin.format(name=f"{t.name}_otherwise", kind=t.name), whole]
    parts += [begin.format(name=t.name, kind=t.name), USUALLY.format(name=t.name, role=role)]
    if "entries" in t.action.message.types():  # a heartbeat has none
        entries = t.action.message.types()["entries"]
        heartbeat = {("message", "entries"): graph.const(zero(entries), entries)}
        usual, said = _where(t, graph, known | heartbeat)
        parts.append("    if not m.entries:\n")
        parts.append(indent(_handled(spec, usual, _writer(usual, said.values()), said, without), "    "))
        log = graph.leaf("get", ("log", 0), types["log"], t.server)
        following = {("message", "prev_log_index"): graph.node("len", log)}
        usual, said = _where(t, graph, known | following)
        parts.append("    if m.prev_log_index == length:\n")
        parts.append(indent(_handled(spec, usual, _writer(usual, said.values()), said, without), "    "))
    usual, said = _where(t, graph, known)
    return "".join([*parts, _handled(spec, usual, _writer(usual, said.values()), said, without)])


def _timeout_source(spec: Spec, t: Transition, without: Mapping[str, bool]) -> str:
    """The function for the beginning of an election, with its requests in the order of the servers."""
    w = _writer(t)
    _name_known(t, w)
    body = action_body(t, w, "return False", without)
    new = {x: w.atom(n) for x, n in t.updates.items() if x in KNOWN}
    requests = (f"*(({kind}({', '.join(fields)}),) if {c} else ())" for c, kind, fields in body.sends)
    parts = [BEGIN.format(name=t.name, kind=t.name), BEFORE, *_lines(body.lines)]
    parts += [EXPECT_REQUESTS.format(requests=", ".join(requests)), "    voted_for = me.voted_for\n"]
    parts += _lines("    " + x for x in ("log.cut = None", *body.stores))
    parts += [COMPARE.format(further="e.entries or ", differs=_differs(spec, new)), CHECK_ROLE, REQUESTS]
    return "".join([*parts, END.format(name=t.name, voted_for="voted_for")])


def _client_request_source(spec: Spec, t: Transition, without: Mapping[str, bool]) -> str:
    """The function for a leader's appending of entries."""
    w = _writer(t)
    w.indent = "        "
    body = action_body(t, w, "assert len(log) == length; return False", without)
    assert not body.sends
    parts = [BEGIN.format(name=t.name, kind=t.name), BEFORE, ENTRIES, *_lines(body.lines)]
    parts += [*_lines("        " + x for x in body.stores), CHECK_ENTRY]
    parts += [COMPARE.format(further="", differs=_differs(spec, {})), LEADERS_MESSAGES]
    return "".join([*parts, END.format(name=t.name, voted_for="me.voted_for")])


def _append_entries_source(spec: Spec) -> str:
    """The function for an event that only says what its leader sends."""
    name = "append_entries"
    parts = [BEGIN.format(name=name, kind=name), BEFORE, "    log.cut = None\n"]
    parts += [COMPARE.format(further="e.entries or ", differs=_differs(spec, {})), LEADERS_MESSAGES]
    return "".join([*parts, END.format(name=name, voted_for="me.voted_for")])


def _lines(texts: Iterable[str]) -> list[str]:
    return [text + "\n" for text in texts]


def _unlike(t: Transition, fields: Iterable[str]) -> str:
    """The text of: or x is not the one message that the transition sends."""
    names = [f"x.{name}" for name in t.sends[0].message.types()]
    return "".join(f" or {x} != {text}" for x, text in zip(names, fields, strict=True) if x != text)


def _messages_source(t: Transition, without: Mapping[str, bool]) -> str:
    """A leader's messages: each is one that `append_entries` makes, asked without making it."""
    w = _writer(t)
    for n in w.uses:  # the leader's variables are read once, not for each message
        if n.op == "get" and n.args == (t.server,):
            w.names[n] = str(n.attr[0])
    before = [f"    {name} = me.{name}" for name in w.names.values() if name != "i"]
    given = {
        "j": "x.target",
        "prev": "x.prev_log_index",
        "size": "len(x.entries)",
        "commit": "x.leader_commit",
    }
    w.names |= {n: given[n.attr] for n in w.uses if n.op == "param" and n.attr in given}
    w.indent = "        "
    body = action_body(t, w, "break", without)
    ((_, _, fields),) = body.sends
    # Where there are no entries to send, there are none in the log between prev and prev + 0.
    (entries,) = (text for text, n in zip(fields, t.sends[0].fields, strict=True) if n.type.kind == "seq")
    unlike = _unlike(t, ["x.entries" if text == entries else text for text in fields]).removeprefix(" or ")
    return MESSAGES.format(
        before="\n".join(before), lines="\n".join(body.lines), unlike=unlike, entries=entries
    )


def fused_source(generated: Generated) -> str:
    """The text of all functions, for one replay: `bind(replay)` returns them by name."""
    spec, steps, graph = generated.spec, generated.transitions, generated.tracer.graph
    without = generated.tracer.rules
    functions = [_messages_source(steps["append_entries"], without), _append_entries_source(spec)]
    functions.append(_client_request_source(spec, steps["client_request"], without))
    functions.append(_timeout_source(spec, steps["timeout"], without))
    functions += [_handler_source(spec, steps[name], graph, without) for name in HANDLERS]
    counters = [f"{name}_taken" for name in FUSED]
    return BIND.format(
        functions=indent("".join(functions), "    "),
        names=", ".join(counters),
        counters=" = ".join(counters),
        counted="\n".join(f'        kinds["{name}"] += {name}_taken' for name in FUSED),
    )


@cache
def _compiled(servers: tuple[str, ...], extensions: frozenset[str]) -> CodeType:
    source = fused_source(replay_actions(servers, extensions))
    return compile(source, "<fused from the specification>", "exec")


def fused(replay: Steps) -> tuple[dict[str, Callable[[Any], bool]], Callable[[], None]]:
    """The fast path of a replay, by kind of event, and what adds those taken to `replay.kinds`."""
    generated = replay.generated
    scope = scope_of(generated.structs) | {"exercised": generated.exercised, "UNSET": UNSET}
    exec(_compiled(replay.servers, replay.extensions), scope)
    functions = scope["bind"](replay)
    fast = {name: functions[name] if name in FUSED else _never for name in generated.actions}
    if replay.appending:  # what entries mean has to be noted
        fast["client_request"] = _never
    return fast, functions["count"]


def _never(e: Any) -> bool:
    """There is no fast path for this kind of event."""
    return False
