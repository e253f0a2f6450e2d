"""Answers about logs as text and as data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raftspec.rounds import HISTORIES
from raftspec.rules import RULES
from raftworthy.ask.change import Change
from raftworthy.ask.electable import Candidate
from raftworthy.ask.logs import Logs
from raftworthy.ask.reachable import Reachable
from raftworthy.diagram import lay_out
from raftworthy.explore.broken_steps import title
from raftworthy.explore.export import trace_events
from raftworthy.explore.telling import sentences


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names in a sentence."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "nobody"


def change_told(change: Change) -> Iterator[str]:
    """What is otherwise than in Raft."""
    for rule in sorted(change.without):
        yield f"without: {rule}: {RULES[rule].why}"
    if change.mutant:
        yield f"mutant {change.mutant.name}: {change.mutant.story}"


def filled(text: str, width: int, indent: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


# --- who can be elected ----------------------------------------------------------


def election_text(
    logs: Logs, term: int, change: Change, found: Sequence[Candidate], width: int, steps: bool
) -> str:
    """The answer for each server, with the winners' votes and what refuses the others."""
    out = [f"who of {len(logs.names)} servers can be elected for term {term}, with the logs as they are:"]
    longest = max(map(len, logs.names))
    for c in found:
        told = f"  {c.server.ljust(longest)}  "
        inside = " " * len(told)
        out.append(
            textwrap.fill(
                told + _outcome(c),
                width,
                subsequent_indent=inside,
                drop_whitespace=False,
                break_on_hyphens=False,
            )
        )
        if c.missing:
            out.append(filled(f"become_leader lacks: {c.missing[0]}: {c.missing[1]}", width, inside))
        if not c.electable:
            out += (filled(text, width, inside) for text in _refusals(c))
    rules = {rule for c in found if not c.electable for r in c.refusals for rule, _ in r.rules}
    for rule in sorted(rules):
        section = RULES[rule].section
        where = section if section.startswith("Figure") else f"section {section}"
        out.append(filled(f"{rule} ({where}): {RULES[rule].why}", width, "  "))
    out += (filled(text, width, "  ") for text in change_told(change))
    if steps:
        for c in found:
            if c.witness:
                out += ["", f"{c.server} is elected:", lay_out(c.witness, width).plain.rstrip()]
    winners = [c.server for c in found if c.electable]
    out.append(f"electable: {', '.join(winners)}" if winners else "nobody is electable")
    return "\n".join(out)


def _outcome(c: Candidate) -> str:
    if c.why_not:
        return f"cannot stand: {c.why_not}"
    refused = f"; {listed([r.voter for r in c.refusals])} can't" if c.refusals else ""
    if c.electable:
        too = f"; {listed(c.others)} can vote for it, too" if c.others else ""
        votes = f"with the votes of itself and {', '.join(c.voters)}" if c.voters else "with its own vote"
        return f"can, {votes}{too}{refused}"
    if c.others:
        return f"cannot: only {listed(c.others)} can vote for it"
    return "cannot: nobody else can vote for it"


def _refusals(c: Candidate) -> Iterator[str]:
    for r in c.refusals:
        for rule, values in r.rules:
            yield f"{r.voter} refuses by {rule}: {values}"


def election_data(logs: Logs, term: int, change: Change, found: Sequence[Candidate]) -> dict[str, Any]:
    """The same for machines."""
    return {
        "verdict": "electable" if any(c.electable for c in found) else "not electable",
        "term": term,
        "logs": logs.as_data(),
        "without": sorted(change.without),
        "mutant": change.mutant and change.mutant.name,
        "electable": [c.server for c in found if c.electable],
        "candidates": [_candidate(c) for c in found],
    }


def _candidate(c: Candidate) -> dict[str, Any]:
    return {
        "server": c.server,
        "electable": c.electable,
        "votes": list(c.voters),
        "can_vote_too" if c.electable else "can_vote": list(c.others),
        "refuses": [
            {"server": r.voter, "rules": [{"rule": rule, "values": values} for rule, values in r.rules]}
            for r in c.refusals
        ],
        "cannot_stand": c.why_not or None,
        "missing": {"guard": c.missing[0], "values": c.missing[1]} if c.missing else None,
        "steps": sentences(c.witness) if c.witness else [],
    }


# --- whether logs can exist side by side ---------------------------------------------


def history_text(logs: Logs, found: Reachable, change: Change, width: int, steps: bool) -> str:
    """The history term by term, or the facts and claims that contradict each other."""
    out = []
    if found.path:
        out.append("a history that leads there, term by term:")
        out += (filled(text, width, "  ") for text in rounds_told(found))
        if steps:
            out += ["", lay_out(found.path, width).plain.rstrip(), ""]
        out += (f"  {log}" for log in logs.servers)
        terms = len(found.plan)
        out.append(f"reachable: {len(found.path)} steps of the specification lead there, in {terms} terms")
    elif found.because:
        out.append("these can't all be true:")
        facts: dict[str, list[str]] = {}
        for f in found.because.facts:
            facts.setdefault(f.server, []).append(f.what)
        out += (filled(f"{i}: {', '.join(what)}", width, "  ") for i, what in facts.items())
        out.append("because in every behaviour of the specification:")
        for claim, about in found.because.claims.items():
            here = listed([str(t) for t in about if t])
            told = f"{title(claim)}: {found.because.doc(claim)}"
            out.append(filled(f"{told} Here: term {here}." if any(about) else told, width, "  "))
        out.append("impossible: no behaviour of the specification leads to these logs")
    else:
        out.append("undecided")
    out += (filled(f"tried: {text}", width, "  ") for text in found.tried if not found.path)
    out += (filled(text, width, "  ") for text in change_told(change))
    if not found.path:
        out += (filled(text, width, "  ") for text in gone_told(found))
        out.append(f"  sizes: {len(logs.names)} servers, logs never longer than {found.entries} entries")
    return "\n".join(out)


def gone_told(found: Reachable) -> Iterator[str]:
    """Claims that nothing was concluded from, as some behaviour breaks them, or may."""
    for name in found.gone:
        yield f"not kept: {title(name)}: {' '.join(HISTORIES[name].doc.split())}"


def rounds_told(found: Reachable) -> Iterator[str]:
    """What each term's leader did, as the steps taken tell it."""
    assert found.path is not None
    voters: dict[int, list[str]] = {}
    for move in found.path.moves:
        if move.action == "handle_request_vote":
            voters.setdefault(move.message.term, []).extend(m.source for m in move.sent if m.granted)  # type: ignore[union-attr]
    before: Mapping[str, Sequence[int]] = dict.fromkeys(found.plan[0].logs, ())
    for r in found.plan:
        if r.leader is None:
            yield f"term {r.term}: nobody leads"
            continue
        own = r.log.count(r.term)
        text = f"term {r.term}: {r.leader} leads with the votes of {listed(voters.get(r.term, []))}"
        text += f", and appends {own} {'entry' if own == 1 else 'entries'}" if own else ""
        changed: dict[int, list[str]] = {}
        for i, log in r.logs.items():
            if i != r.leader and log != before[i]:
                changed.setdefault(len(log), []).append(i)
        taken = [f"{listed(who)} up to entry {n}" for n, who in sorted(changed.items())]
        yield text + (
            f"; its log is taken over by {', by '.join(taken)}" if taken else "; nobody takes any over"
        )
        before = r.logs


def history_data(logs: Logs, found: Reachable, change: Change) -> dict[str, Any]:
    """The same for machines."""
    data: dict[str, Any] = {
        "verdict": found.verdict,
        "logs": logs.as_data(),
        "sizes": {"servers": len(logs.names), "entries": found.entries},
        "tried": found.tried,
        "without": sorted(change.without),
        "mutant": change.mutant and change.mutant.name,
        "not_kept": list(found.gone),
    }
    if found.path:
        data["rounds"] = [
            {"term": r.term, "leader": r.leader, "log": r.log, "logs_after": dict(r.logs)} for r in found.plan
        ]
        data["steps"] = sentences(found.path)
        data["trace"] = list(trace_events(found.path))
    if found.because:
        data["facts"] = [{"server": f.server, "fact": f.what} for f in found.because.facts]
        data["claims"] = [
            {"claim": c, "says": found.because.doc(c), "terms": [t for t in terms if t]}
            for c, terms in found.because.claims.items()
        ]
    return data
