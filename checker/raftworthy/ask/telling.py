"""Answers about logs as text and as data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from raftspec.rules import RULES
from raftworthy.ask.electable import Candidate
from raftworthy.ask.logs import Logs
from raftworthy.diagram import lay_out
from raftworthy.explore.telling import sentences


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names in a sentence."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "nobody"


def filled(text: str, width: int, indent: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


# --- who can be elected ----------------------------------------------------------


def election_text(
    logs: Logs, term: int, without: Iterable[str], found: Sequence[Candidate], width: int, steps: bool
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
    for rule in without:
        out.append(filled(f"without: {rule}: {RULES[rule].why}", width, "  "))
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


def election_data(
    logs: Logs, term: int, without: Iterable[str], found: Sequence[Candidate]
) -> dict[str, Any]:
    """The same for machines."""
    return {
        "verdict": "electable" if any(c.electable for c in found) else "not electable",
        "term": term,
        "logs": logs.as_data(),
        "without": sorted(without),
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
