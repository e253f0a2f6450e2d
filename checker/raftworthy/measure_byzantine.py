"""What replay makes of a message that was changed on the way: each field of each kind, many times over.

A simulated cluster under every fault that Raft tolerates runs with one message changed; everything before its
arrival is as it would have been. That a change is overlooked is no fault of replay where a right network and
right servers could have brought the same about; which of the reasons holds is looked up in the trace.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from raftd.core import Config
from raftd.lying import FIELDS, Lie, Told
from raftd.messages import Message
from raftd.simulated_faults import ALL_FAULTS
from raftd.simulator import SIMULATED, Summary, server_names, simulate
from raftd.state import chosen_extensions
from raftd.trace import traced_message
from raftworthy.measure import FORMS, Progress, named
from raftworthy.replay.verdict import check

STEPS = 400
SERVERS = 3
# Without a slow disk an event stands in the trace where the step was taken, so that its line is known.
FAULTS = replace(ALL_FAULTS, disk=0.0)

AT_ITS_LINE, ELSEWHERE, STOPPED = "at its line", "elsewhere", "stopped"
NOT_LOGGED, SENT_TOO, COULD_BE = "unlogged", "sent too", "possible"
MEANS = {
    AT_ITS_LINE: "replay names the line that receives the message",
    ELSEWHERE: "replay finds a violation, and names another line",
    STOPPED: "the server that received it found it impossible, and stopped",
    NOT_LOGGED: "overlooked: the trace doesn't have what was changed",
    SENT_TOO: "overlooked: the very same message had been sent, and may be received at any time",
    COULD_BE: "overlooked: a right server could have sent it, and sends aren't logged in this form",
}
WIDTH = max(map(len, MEANS)) + 2


@dataclass(frozen=True)
class Change:
    """One field changed in one run, and how to see it again."""

    seed: int
    lie: str
    form: str
    outcome: str | None  # None: the changed message reached nobody

    @property
    def command(self) -> str:
        without = "" if self.form == "full" else " --figure-2"
        return (
            f"raftworthy simulate --seed {self.seed} --servers {SERVERS} --steps {STEPS} --faults {FAULTS}"
            f"{without} --byzantine {self.lie} --out FILE && raftworthy replay FILE"
        )


def config_of(form: str) -> Config:
    """Servers as they are served, but the least that is useful is the least of Figure 2."""
    return SIMULATED.having(chosen_extensions(None, figure_2=form != "full"))


@dataclass(frozen=True)
class Byzantine:
    """What became of all changes, by field."""

    form: str
    changes: list[Change]

    def count(self, field: str) -> Counter[str | None]:
        """How often each outcome was, for one field."""
        return Counter(c.outcome for c in self.changes if c.lie.partition(":")[0] == field)

    @property
    def wrong(self) -> list[Change]:
        """Where all is logged: what should have been found at its line, and was not."""
        return [c for c in self.changes if self.form == "full" and c.outcome in (ELSEWHERE, COULD_BE)]

    def __str__(self) -> str:
        received = [c for c in self.changes if c.outcome is not None]
        found = [c for c in received if c.outcome in (AT_ITS_LINE, ELSEWHERE, STOPPED)]
        lines = [
            f"{len(self.changes):,} changes of a field, {len(received):,} received; traces of the "
            f"{self.form} form: {len(found):,} found ({len(found) / max(1, len(received)):.1%})",
            f"{'':34}{'received':>{WIDTH}}" + "".join(f"{what:>{WIDTH}}" for what in MEANS),
        ]
        for field in FIELDS:
            count = self.count(field)
            total = sum(n for outcome, n in count.items() if outcome is not None)
            if not count:
                continue
            shown = "".join(f"{count[what] or '':>{WIDTH}}" for what in MEANS)
            lines.append(f"{field:34}{total:>{WIDTH}}{shown}".rstrip())
        examples = {c.outcome: c for c in reversed(received)}
        for what, means in MEANS.items():
            if what in examples:
                lines += [f"\n{what}: {means}, as in", f"  {examples[what].command}"]
        return "\n".join(lines)


def measure_byzantine(times: int, seed: int, form: str, progress: Progress) -> Byzantine:
    """Change each field of each kind so many times, in a run of its own each time, and replay its trace."""
    changes: list[Change] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.ndjson"
        for number, of in enumerate(range(seed, seed + times)):
            carried = simulate(of, server_names(SERVERS), STEPS, FAULTS, config=config_of(form)).carried
            for field in FIELDS:
                kind = field.partition(".")[0]
                if carried[kind]:
                    nth = random.Random(f"{of}/{field}").randint(1, carried[kind])
                    changes += _change(of, Lie(field, nth), form, path)
            progress(number + 1, times)
    return Byzantine(form, changes)


def _change(seed: int, lie: Lie, form: str, path: Path) -> list[Change]:
    """One run with a lie in it, replayed; nothing if that message has no other value there."""
    with path.open("wb") as out:
        summary: Summary = simulate(
            seed, server_names(SERVERS), STEPS, FAULTS, out, lie=lie, config=config_of(form)
        )
    return [Change(seed, str(lie), form, _outcome(told, form, path)) for told in summary.lies]


def _outcome(told: Told, form: str, path: Path) -> str | None:
    if told.stopped:
        return STOPPED
    if told.line is None:
        return None
    lines: Sequence[bytes] = path.read_bytes().splitlines()
    logged: int | None = told.line
    if form != "full":
        before, upto = (FORMS[form](lines[:end]) for end in (told.line - 1, told.line))
        logged = len(upto) if len(upto) > len(before) else None
        lines = FORMS[form](lines)
        path.write_bytes(b"\n".join([*lines, b""]))
    verdict = check([path])
    if verdict.verdict != "conforms":
        return AT_ITS_LINE if logged and named(verdict.explanation, logged) == "first" else ELSEWHERE
    assert isinstance(told.sent, Message), "a step receives it, so a trace may have it"
    assert isinstance(told.said, Message)
    said = traced_message(told.said)
    if logged is None or said == traced_message(told.sent):
        return NOT_LOGGED
    return SENT_TOO if any(said in _sends(line) for line in lines[1:]) else COULD_BE


def _sends(line: bytes) -> list[object]:
    return msgspec.json.decode(line).get("sends", [])  # type: ignore[no-any-return]
