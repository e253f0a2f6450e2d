"""What later lines of a server say about what an earlier one leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from raftworthy.holes.appends import Wanted
from raftworthy.holes.lines import Line, Lines, known
from raftworthy.holes.trial import Hints
from raftworthy.holes.values import UNKNOWN

GAP = 8  # how far after a log entries are taken to begin that were refused
SOON = 8  # how far after a line the next AppendEntries is looked for
WAYS = 5  # how many other numbers of entries are tried where none is known
LEADERS = (
    "client_request", "append_entries", "advance_commit_index",
    "lose_quorum", "transfer_leadership", "begin_read", "serve_read",
)  # fmt: skip


class LaterLines(Hints):
    """Looks ahead along a server's lines. What it says are guesses; the search may do without them."""

    def __init__(self, lines: Lines) -> None:
        self.index = {line: (i, k) for i, own in lines.of.items() for k, line in enumerate(own)}
        self.lines = lines
        self.most = _most(lines, lambda line: line.told("commit_index"))
        self.most_applied = _most(lines, lambda line: line.told("last_applied"), _answered_first)
        self.values: dict[tuple[int, int], str] = {}
        self.places: dict[tuple[int, str], int] = {}  # where an entry stands, by its term and value
        for line in sorted(lines.all(), key=lambda x: x.number):
            for m in (line.e.message, *(line.e.sends or ())):
                if m is not UNSET:
                    self._note_values(known(m))
            if line.e.event == "restart" and line.e.after is not UNSET:
                self._note_values({"prev_log_index": line.e.after, "entries": line.e.entries or ()})

        told = (line.told("configured") for line in lines.all() if "membership" in lines.extensions)
        self.configured = {n for n in told if n}  # entries that are configurations, by what lines say
        self._note_sessions()
        self._note_voters()

    def _note_voters(self) -> None:
        """Which configurations entries are, as servers say that start with them."""
        self.voters_of: dict[str, frozenset[str]] = {}
        at = {k: value for (_, k), value in sorted(self.values.items())}
        for line in self.lines.all():
            voters = next((x for f in ("voters", "joint") if (x := getattr(line.e, f, None))), None)
            value = at.get(self._configured(line))
            if line.e.event == "restart" and voters and value:
                self.voters_of[value] = frozenset(voters)
        self.votes: dict[int, list[frozenset[str]]] = {}
        for own in self.lines.of.values() if self.configured else ():
            self._note_elected(own)

    def _note_elected(self, own: Sequence[Line]) -> None:
        """Whose votes a server had that stood, or led, with a configuration."""
        last: dict[str, Any] = {}
        for line in own:
            told = {f: x for f in ("configured", "votes", "pre_votes") if (x := _get(line, f)) is not None}
            last |= told
            which = "pre_votes" if line.e.event == "timeout" else "votes"
            if (line.e.event == "timeout" or line.told("role") == "leader") and last.get(which):
                self.votes.setdefault(last.get("configured", 0), []).append(frozenset(last[which]))
            if line.e.event in ("timeout", "restart"):
                last["pre_votes"] = None

    def elected(self, n: int) -> Sequence[frozenset[str]]:
        """Whose votes those had who stood or led while entry n was the newest configuration."""
        return self.votes.get(n, ())

    def voters(self, value: str) -> frozenset[str] | None:
        """Who votes in a configuration, if some line says so that didn't append it."""
        return self.voters_of.get(value)

    def _note_sessions(self) -> None:
        """Which entries opened a session, or were executed first, as requests and answers show."""
        self.meanings: dict[int, dict[str, int]] = {}
        self.told: dict[str, dict[str, int]] = {}
        requests: dict[int, dict[str, int]] = {}
        for line in self.lines.all():
            for entry in line.e.entries or ():
                meaning = getattr(entry, "meaning", None)
                told = {} if meaning is None else msgspec.to_builtins(meaning)
                if told:
                    self.told[entry.value] = told
                if "client" not in told:
                    continue
                opened = self.meanings.setdefault(told["client"], {"registered": told["time"]})
                opened["registered"] = min(opened["registered"], told["time"])
                requests[self.places.get((entry.term, entry.value), 0)] = told
        for line in self.lines.all():
            for n, first in (getattr(line.e, "answers", None) or {}).items():
                if first not in (0, n) and n in requests:
                    self.meanings.setdefault(first, requests[n])
        self._note_forgotten()

    def _note_forgotten(self) -> None:
        """Which entries say that their client has had the response that another asks for in vain."""
        at = {k: self.told.get(value, {}) for (_, k), value in sorted(self.values.items())}
        answers: dict[int, int] = {}
        for line in self.lines.all():
            answers |= getattr(line.e, "answers", None) or {}
        before: dict[tuple[int, int], int] = {}  # where a request stands
        for n, told in sorted(at.items()):
            if "client" not in told:
                continue
            sequence = told["sequence"]
            request = told["client"], sequence
            first, before[request] = before.get(request), n
            if first is None or answers.get(n) != 0:
                continue
            client, lowest = told["client"], sequence + 1
            between = (at.get(k, {}) for k in range(first, n))
            if any(x.get("client") == client and x["lowest"] >= lowest for x in between) or any(
                x.get("client") == client and x["sequence"] == lowest for x in self.told.values()
            ):
                continue  # a line tells of what made it forgotten, or it isn't this
            newer = (k for k in range(n - 1, first, -1) if answers.get(k) == k)
            k = next((k for k in newer if not at.get(k) and k not in self.meanings), None)
            if k is not None:
                self.meanings[k] = {**told, "sequence": lowest, "lowest": lowest}

    def meaning(self, value: str, n: int) -> dict[str, int]:
        """What entry n's command means: as some line says, or as far as other entries show it."""
        return self.told.get(value) or self.meanings.get(n, {})

    def _note_values(self, m: dict[str, Any]) -> None:
        if "prev_log_index" in m:
            for k, entry in enumerate(m.get("entries", ()), m["prev_log_index"] + 1):
                self.values.setdefault((entry.term, k), entry.value)
                self.places.setdefault((entry.term, entry.value), k)

    def _after(self, line: Line) -> Sequence[Line]:
        i, k = self.index[line]
        return self.lines.of[i][k + 1 : k + 200]

    def leads(self, line: Line, me: Any) -> bool:
        if line.entries_unknown or line.e.entries:
            return True
        if any(type(x).__name__ == "AppendEntries" for x in line.e.sends or ()):
            return True
        for later in self._after(line):
            if later.e.event in ("become_leader", "restart"):
                return False
            if later.e.event in LEADERS or later.e.entries:
                return True
            role = later.told("role")
            if role is not None:
                return bool(role == "leader")
        return True

    def commit_at_most(self, line: Line) -> int | None:
        return self.most[line]

    def commit_at_least(self, line: Line) -> int:
        least = line.told("last_applied") or 0
        for x in line.e.sends or ():
            m = known(x)
            least = max(least, m.get("leader_commit", 0))
        return least

    def entries(self, line: Line, me: Any, way: int) -> Sequence[str]:
        """What an event appended whose line doesn't say: as much as makes the log as long as it says."""
        if me.role != "leader":
            return ()
        length, number = line.told("log_length"), 0
        if length is not None:
            number = max(0, length - len(me.log)) + way
        else:
            least = int(line.e.event == "client_request")
            likely = max(self._until_told(line, me), least)
            number = (
                likely if way == 0 else [n for n in range(least, least + WAYS + 1) if n != likely][way - 1]
            )
        start, term = len(me.log), me.current_term
        return [self.value(term, n) for n in range(start + 1, start + number + 1)]

    def snapshot(self, line: Line) -> int | None:
        """Up to where a snapshot goes that is taken at a line, if that or a later one says so."""
        told: int | None = line.told("snapshot_index")
        for later in self._after(line):
            if told is not None or later.e.event in ("take_snapshot", "handle_install_snapshot"):
                break
            told = later.told("snapshot_index")
        return told

    def applied(self, line: Line, me: Any) -> int:
        """Up to where a server has applied its log, if its line doesn't say it: as far as others let it."""
        most = self.most_applied[line]
        return int(me.commit_index) if most is None else min(most, me.commit_index)

    def value(self, term: int, n: int) -> str:
        """An entry's value as some message shows it, or one that stands for any."""
        return self.values.get((term, n)) or f"{UNKNOWN}{term}.{n}"

    def _configured(self, line: Line) -> int:
        return (line.told("configured") or 0) if self.configured else 0

    def _until_told(self, line: Line, me: Any) -> int:
        """How many entries later lines speak for."""
        top, has = len(me.log), {x.value for x in me.log[-20:]}
        for x in line.e.sends or ():
            m = known(x)
            if "entries" in m and "prev_log_index" in m:
                top = max(top, m["prev_log_index"] + len(m["entries"]))
            elif "entries" in m:
                top = max(top, len(me.log) + len([x for x in m["entries"] if x.value not in has]))
        if top > len(me.log):
            return top - len(me.log)
        least = max(self._held(line) - len(me.log), 0)
        own = unknown = 0
        for later in self._after(line):
            if later.e.event == "restart":
                break
            entries = later.e.entries or ()
            length = self._place(entries) - 1 if self._place(entries) else None
            if length is None:
                unknown += later.entries_unknown
                own += len(entries)
                length = later.told("log_length")
            if length is not None:
                number = length - own - len(me.log)
                return max(least, number if not unknown else least or -(-number // (unknown + 1)))
        return least

    def _place(self, entries: Sequence[Any]) -> int:
        """Where the first of some entries stands, as some message shows it; 0 if none does."""
        return self.places.get((entries[0].term, entries[0].value), 0) if entries else 0

    def _held(self, line: Line) -> int:
        """How long a server's log is at least, after a line."""
        told = (line.told("commit_index"), line.told("last_applied"), self._configured(line))
        return max(n or 0 for n in told)

    def _then(self, line: Line) -> int:
        """How long a follower's log was before its next AppendEntries, if that joined and tells it; or 0."""
        for later in self._after(line)[:SOON]:
            m = {} if later.e.message is UNSET else known(later.e.message)
            if later.e.event == "handle_append_entries":
                if any(_refuses(known(x)) for x in later.e.sends or ()):
                    return 0
                return int(m.get("prev_log_index", 0))
            if later.e.event in ("restart", "timeout", "handle_install_snapshot"):
                break
        return 0

    def wanted(self, line: Line, me: Any, likely: bool = False) -> Wanted:
        """Which AppendEntries a receiver's line speaks for."""
        length, commit = line.told("log_length"), line.told("commit_index")
        ends: list[int] = []
        for x in line.e.sends or ():
            m = known(x)
            if m.get("success", m.get("match_index")) and "match_index" in m:
                ends.append(m["match_index"])
        sure = bool(ends)
        if length is not None:
            ends.append(length)
        applied = line.told("last_applied")
        if length is None and not sure and (held := max(self._held(line), self._then(line))) > len(me.log):
            ends.append(held)
        ends.append(len(me.log))
        commits = [n for n in (commit, applied) if n is not None and n > me.commit_index]
        entries = () if line.e.message is UNSET else known(line.e.message).get("entries", ())
        before = [max(0, n - len(entries)) for n in ends] if entries else []
        if place := self._place(entries):
            before.insert(0, place - 1)
        if any(_refuses(known(x)) for x in line.e.sends or ()):  # they follow what it lacks
            gap = [n for n in before if n > len(me.log)]
            return Wanted((*gap, *range(len(me.log) + 1, len(me.log) + GAP)), (), (), False, likely)
        return Wanted((*before, len(me.log), *ends), tuple(ends), tuple(commits), sure, likely)


def _refuses(m: Mapping[str, Any]) -> bool:
    """Whether a reply is a refusal, by what is known of it: who acknowledges something says how much."""
    return m.get("success") is False or ("success" not in m and m.get("match_index") == 0)


def _answered_first(line: Line) -> int | None:
    """The last entry that was applied before a line, by which clients it says were answered."""
    answers = getattr(line.e, "answers", None)
    return min(answers) - 1 if answers else None


def _most(
    lines: Lines, told: Callable[[Line], int | None], before: Callable[[Line], int | None] | None = None
) -> dict[Line, int | None]:
    """How far what never goes back has come at each line at most, by the next line that tells it."""
    most: dict[Line, int | None] = {}
    for own in lines.of.values():
        bound: int | None = None
        for line in reversed(own):
            bound = _or(told(line), bound)
            most[line] = bound
            bound = None if line.e.event == "restart" else _or(before(line) if before else None, bound)
    return most


def _or(n: int | None, other: int | None) -> int | None:
    return other if n is None else n


def answered(line: Line, me: Any) -> dict[str, Any]:
    """What is likely of the message that a line received, by what came of it."""
    likely: dict[str, Any] = {}
    if line.e.event == "handle_read_index_reply":
        likely["round"] = me.read_round
    term = line.told("current_term")
    if term is not None and term > me.current_term:
        likely["term"] = term
    for x in line.e.sends or ():
        m = known(x)
        if m.get("round"):
            likely["round"] = m["round"]
        if m.get("granted"):
            likely |= {"term": m[f]} if (f := "asked_term") in m or (f := "term") in m else {}
    return likely


def _get(line: Line, variable: str) -> Any:
    """What a line says of a variable that its server may not have."""
    x = getattr(line.e.state, variable, None)
    return None if x is UNSET else x
