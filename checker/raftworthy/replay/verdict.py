"""The verdict on traces: conforms, violates, or undecided, as text and as data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raftworthy.files import Unusable
from raftworthy.replay.explain import Explanation, explain, render
from raftworthy.replay.reading import is_history
from raftworthy.replay.replay import Report, Violation, replay_files

if TYPE_CHECKING:
    from raftworthy.witness.verdict import Clients

EXIT_CODES = {"conforms": 0, "violates": 1, "undecided": 2, "unusable": 2}
OF_CLIENTS = {"linearizable": "conforms", "not linearizable": "violates", "undecided": "undecided"}


@dataclass(frozen=True)
class Verdict:
    """What came out of checking traces: `report` if they conform, `explanation` if not, or `error`."""

    verdict: str
    files: list[str]
    seconds: float
    report: Report | None = None
    explanation: Explanation | None = None
    error: str | None = None
    clients: Clients | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def as_data(self) -> dict[str, Any]:
        """For JSON. `dataclasses.asdict` would make nonsense of a Counter."""
        import msgspec

        plain = {k: v for k, v in vars(self).items() if v is not None}
        if self.clients is not None:
            plain["clients"] = self.clients.as_data()
        data: dict[str, Any] = msgspec.to_builtins(plain, str_keys=True)
        return data


def check(paths: Sequence[Path], progress: Callable[[int], None] | None = None) -> Verdict:
    """Replay trace files and say what came out. Raises nothing on bad input: it is a verdict, too.

    Events of clients, among those of the servers or in files of their own, are checked against the log.
    """
    files = [str(p) for p in paths]
    start = time.perf_counter()
    clients = None
    try:
        traces, histories = split(paths)
        replay = replay_files(traces, progress)
        if seen := [*replay.with_clients, *histories]:
            from raftworthy.witness.verdict import check_clients

            clients = check_clients(seen, replay, traces, progress or (lambda done: None))
    except Violation as v:
        return Verdict("violates", files, time.perf_counter() - start, explanation=explain(v, traces))
    except Unusable as error:
        return Verdict("unusable", files, time.perf_counter() - start, error=str(error))
    verdict = "conforms" if clients is None else OF_CLIENTS[clients.verdict]
    return Verdict(verdict, files, time.perf_counter() - start, replay.report(files), clients=clients)


def split(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files that are traces of servers, and those with clients' events alone.

    Raises:
        Unusable: a file can't be opened, or there is none of a server.
    """
    histories = [path for path in paths if is_history(path)]
    traces = [path for path in paths if path not in histories]
    if histories and not traces:
        raise Unusable(
            str(histories[0]),
            f"no server's trace beside it; raftworthy linearize {histories[0]} checks what clients saw alone",
        )
    return traces, histories


def print_verdict(verdict: Verdict) -> None:
    """Print a verdict for people."""
    if verdict.explanation is not None:
        print(render(verdict.explanation))
        print("violates")
    elif verdict.error is not None:
        print(f"{verdict.error}\nunusable: nothing is said about the servers")
    else:
        assert verdict.report is not None
        seconds = verdict.seconds - (verdict.clients.seconds if verdict.clients else 0)
        print(summary(verdict.report, seconds))
        if verdict.clients is not None:
            print(verdict.clients)
            if verdict.verdict != "conforms":
                print(f"{verdict.verdict}: the servers' traces conform, what clients saw doesn't")


def summary(r: Report, seconds: float) -> str:
    """A conforming replay in a few lines: what was checked, what was not."""
    rate = f", {r.events / seconds:,.0f} a second" if r.events >= 10_000 else ""
    lines = [
        f"conforms: {r.events:,} events of {len(r.servers)} servers ({seconds:.2f} s{rate})",
        f"  {r.elections:,} elections, {len(r.leaders):,} of {r.terms:,} terms with a leader, "
        f"{r.committed:,} entries committed, {r.restarts:,} starts",
    ]
    if r.lost_steps or r.hidden_steps:
        lines.append(
            f"  at kills, {r.lost_steps} logged steps were not on the disk, "
            f"{r.hidden_steps} on the disk were not logged"
        )
    asked = len(r.exercised) + len(r.not_exercised)
    lines.append(
        f"  rules exercised: {len(r.exercised)} of {asked}; {r.policy} more are policy, not asked of a trace"
    )
    if r.not_exercised:
        lines.append(f"  not exercised: {', '.join(r.not_exercised)}")
    lines += [f"  less than Figure 2 says, and safe: {what}" for what in r.leeway]
    lines += [f"  not checked: {what}" for what in r.unchecked]
    return "\n".join(lines)
