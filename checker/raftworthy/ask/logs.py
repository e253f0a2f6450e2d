"""The logs of a cluster as somebody types them: for each server its entries' terms, as in Figure 7.

    # the servers' logs, and what else is known of them
    s1: 1 1 1 4 4 5 5 6 6 6   term=7 vote=s3
    s2: 1 1 1 4               commit=3

`term` is the server's current term, `vote` whom it voted for in it (`nobody` too), `commit` up to where it
takes entries for committed. The same as JSON: {"s1": [1, 1], "s2": {"log": [1], "term": 7, "vote": null}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftworthy.explore.bounds import Bounds, UnusableError

NAME = re.compile(r"[^\s:=,#]+")
FACTS = ("term", "vote", "commit")
EXAMPLE = "write for instance `s1: 1 1 4 term=7 vote=s2 commit=2`"
MOST_SERVERS, MOST_ENTRIES, MOST_TERM = 15, 60, 60
NOBODY = "nobody"


@dataclass(frozen=True)
class Log:
    """What is known of one server: its entries' terms, and perhaps its term, its vote and its commit index.

    `votes` says whether it is known for whom it voted; `vote` is then that server, or None for nobody.
    """

    server: str
    terms: tuple[int, ...]
    term: int | None = None
    votes: bool = False
    vote: str | None = None
    commit: int | None = None
    line: int = 0

    def __str__(self) -> str:
        facts = [f"term={self.term}"] if self.term is not None else []
        facts += [f"vote={self.vote or NOBODY}"] if self.votes else []
        facts += [f"commit={self.commit}"] if self.commit is not None else []
        return f"{self.server}: {' '.join([*map(str, self.terms), *facts])}".rstrip()


@dataclass(frozen=True)
class Logs:
    """The servers of a cluster, in the order of the file."""

    servers: tuple[Log, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(log.server for log in self.servers)

    @property
    def longest(self) -> int:
        return max(len(log.terms) for log in self.servers)

    @property
    def last_term(self) -> int:
        """The highest term that is mentioned."""
        return max((t for log in self.servers for t in (*log.terms, log.term or 0)), default=0)

    def as_data(self) -> dict[str, Any]:
        """The logs as JSON that `read_logs` takes."""
        out = {}
        for log in self.servers:
            facts: dict[str, Any] = {"log": list(log.terms)}
            facts |= {f: getattr(log, f) for f in ("term", "commit") if getattr(log, f) is not None}
            out[log.server] = facts | ({"vote": log.vote} if log.votes else {})
        return out


@dataclass(frozen=True)
class Named(Bounds):
    """Sizes with the servers' own names. Nothing is enumerated here, so more servers have a place."""

    called: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.servers == len(self.called)

    @property
    def names(self) -> tuple[str, ...]:
        return self.called


def read_logs(file: Path) -> Logs:
    """Read a file of logs.

    Raises:
        UnusableError: it can't be read, or says what no logs can be; with the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnusableError(f"{file}: not a text file: {error.reason}; {EXAMPLE}") from error
    return parse(text, str(file))


def parse(text: str, file: str = "logs") -> Logs:
    """Logs from text, lines or JSON."""
    read = _from_json if text.lstrip().startswith("{") else _from_lines
    servers = tuple(read(text, file))
    _check(servers, file)
    return Logs(servers)


def _from_lines(text: str, file: str) -> Iterator[Log]:
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        name, colon, rest = said.partition(":")
        if not colon or not NAME.fullmatch(name.strip()):
            raise UnusableError(f"{file}:{number}: no server and its log: {line.strip()[:80]!r}; {EXAMPLE}")
        terms: list[int] = []
        facts: dict[str, Any] = {}
        for word in rest.replace(",", " ").split():
            fact, is_fact, value = word.partition("=")
            if not is_fact:
                terms.append(_number(word, "an entry's term", 1, file, number))
            elif fact not in FACTS:
                raise UnusableError(
                    f"{file}:{number}: {fact!r} is not known of a server; there are {', '.join(FACTS)}"
                )
            elif fact in facts:
                raise UnusableError(f"{file}:{number}: {fact} is said twice")
            else:
                facts[fact] = value if fact == "vote" else _number(value, fact, 0, file, number)
        yield _log(name.strip(), terms, facts, number)


def _from_json(text: str, file: str) -> Iterator[Log]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UnusableError(f"{file}: {twice[0]} is said twice")
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise UnusableError(f"{file}:{error.lineno}: not JSON: {error.msg}; {EXAMPLE}") from error
    for number, (name, said) in enumerate(data.items(), 1):
        if not NAME.fullmatch(name):
            raise UnusableError(f"{file}: {name!r} is no server's name; {EXAMPLE}")
        facts = {"log": said} if isinstance(said, list) else said
        if not isinstance(facts, Mapping) or not isinstance(facts.get("log"), list):
            raise UnusableError(f'{file}: {name} has no log; write {{"{name}": [1, 1, 4]}}')
        if unknown := set(facts) - {"log", *FACTS}:
            raise UnusableError(
                f"{file}: {min(unknown)!r} is not known of {name}; there are log, {', '.join(FACTS)}"
            )
        terms = [_natural(t, f"an entry's term of {name}", 1, file) for t in facts["log"]]
        known: dict[str, Any] = {
            f: _natural(facts[f], f"{f} of {name}", 0, file) for f in ("term", "commit") if f in facts
        }
        if "vote" in facts:
            vote = facts["vote"]
            if not (vote is None or isinstance(vote, str)):
                raise UnusableError(f"{file}: the vote of {name} is {vote!r}, which is no server's name")
            known["vote"] = vote or NOBODY
        yield _log(name, terms, known, number)


def _log(name: str, terms: list[int], facts: Mapping[str, Any], line: int) -> Log:
    vote = facts.get("vote")
    known = None if vote in (None, NOBODY) else vote
    return Log(name, tuple(terms), facts.get("term"), vote is not None, known, facts.get("commit"), line)


def _number(word: str, what: str, least: int, file: str, line: int) -> int:
    if not re.fullmatch(r"\d{1,9}", word, re.ASCII) or int(word) < least:
        raise UnusableError(f"{file}:{line}: {what} can't be {word[:40]!r}; {EXAMPLE}")
    return int(word)


def _natural(value: Any, what: str, least: int, file: str) -> int:
    if type(value) is not int or value < least:
        raise UnusableError(f"{file}: {what} can't be {value!r:.40}; write a number from {least} on")
    return value


def _check(servers: tuple[Log, ...], file: str) -> None:
    """Refuse what isn't about one cluster, or is too large."""
    names = [log.server for log in servers]
    if not servers:
        raise UnusableError(f"{file}: no logs; {EXAMPLE}")
    for k, log in enumerate(servers):
        where = f"{file}:{log.line}: " if log.line else f"{file}: "
        if log.server in names[:k]:
            raise UnusableError(f"{where}{log.server} is there twice")
        if log.votes and log.term is None:
            raise UnusableError(f"{where}the vote of {log.server} is one in its term; add term=…")
        if log.vote is not None and log.vote not in names:
            raise UnusableError(f"{where}{log.server} votes for {log.vote}; there are {', '.join(names)}")
        if log.commit is not None and log.commit > len(log.terms):
            raise UnusableError(
                f"{where}{log.server} has commit={log.commit}, and {len(log.terms)} entries only"
            )
        if len(log.terms) > MOST_ENTRIES:
            raise UnusableError(f"{where}{log.server} has {len(log.terms)} entries; at most {MOST_ENTRIES}")
        if max((*log.terms, log.term or 0), default=0) > MOST_TERM:
            raise UnusableError(f"{where}a term of {log.server} is over {MOST_TERM}; number terms from 1")
    if len(servers) > MOST_SERVERS:
        raise UnusableError(f"{file}: {len(servers)} servers; at most {MOST_SERVERS}")
