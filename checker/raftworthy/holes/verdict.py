"""The verdict on traces with holes: explained, violates, or undecided, as text and as data."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raftworthy.files import Unusable
from raftworthy.holes.alone import Contradiction, contradiction
from raftworthy.holes.lines import Line, Lines, read_lines
from raftworthy.holes.refute import Refutation, Refuter, describe
from raftworthy.holes.search import Search
from raftworthy.holes.telling import behaviour
from raftworthy.holes.values import GivenUpError
from raftworthy.replay.provenance import Cause
from raftworthy.replay.verdict import check

EXIT_CODES = {"explained": 0, "violates": 1, "undecided": 2, "unusable": 2}
STEPS = 200_000  # that are tried before it is undecided, at most
NEAR = 1_500  # how many lines about the one where the search came no further are looked at together
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Tied:
    """A rule that ties lines which can't all be true."""

    rule: str
    section: str
    why: str
    claim: str


@dataclass(frozen=True)
class Completed:
    """What came out of completing traces: a behaviour, lines that can't all be true, or neither."""

    verdict: str
    files: list[str]
    seconds: float = 0.0  # of CPU time
    solving: float = 0.0  # without reading, writing and replaying what was found
    lines: int = 0
    lost: tuple[str, ...] = ()  # servers without lines
    supplied: int = 0  # steps that no line tells of
    claim: str | None = None
    refuted: tuple[Cause, ...] = ()  # lines that can't all be true; without any one of them, they could
    ties: tuple[Tied, ...] = ()
    causes: tuple[Cause, ...] = ()
    behaviour: tuple[dict[str, Any], ...] = ()
    tried: tuple[str, ...] = ()  # what was tried, if that didn't decide it
    error: str | None = None
    unchecked: int = 0  # clients' events

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {k: v for k, v in asdict(self).items() if v not in (None, [], ())}


def complete(paths: Sequence[Path], limit: int = STEPS, progress: Progress | None = None) -> Completed:
    """Decide whether some behaviour of the specification explains the lines of trace files.

    Of a behaviour that is found, replay is asked before it is called explained.
    """
    files, began = [str(p) for p in paths], time.process_time()
    try:
        lines = read_lines(paths)
    except Unusable as error:
        return Completed("unusable", files, error=str(error))
    if not any(lines.of.values()):
        return Completed("unusable", files, error=f"{', '.join(files)}: no events, so nothing was checked")
    made = _decide(lines, limit, progress)
    total = sum(map(len, lines.of.values()))
    return replace(
        made, files=files, lines=total, lost=lines.lost, seconds=time.process_time() - began,
        unchecked=lines.clients,
    )  # fmt: skip


def _decide(lines: Lines, limit: int, progress: Progress | None) -> Completed:
    """Try what is quick first: the likeliest behaviour, contradictions, then all behaviours."""
    began = time.process_time()
    tried: list[str] = []
    for narrow in (True, False):
        search = Search(lines, limit // 3, progress, narrow=narrow)
        if _run(search, tried):
            return _explained(search, time.process_time() - began)
    where = search.best.line if search.best is not None else None
    refuted = _refute(lines, where, tried)
    if refuted is not None:
        return _refuted(refuted)
    wrong = contradiction(lines)
    if wrong is not None:
        return _wrong_line(wrong)
    search = Search(lines, limit // 3, progress, patient=True)
    if _run(search, tried):
        return _explained(search, time.process_time() - began)
    return Completed("undecided", [], tried=tuple(tried))


def _run(search: Search, tried: list[str]) -> bool:
    how = "every message that could have been received" if search.patient else "the likeliest messages"
    try:
        if search.run():
            return True
        end = "none of them leads to the end"
    except GivenUpError:
        end = "these are all that were allowed"
    where = f" before {search.best.line.place}" if search.best is not None else ""
    furthest = max(search.furthest, sum(search.at.values()))
    tried.append(
        f"{how}: {search.steps:,} steps, at best {furthest:,} of {search.total:,} lines{where}; {end}"
    )
    return False


def _explained(search: Search, solving: float) -> Completed:
    """A behaviour was found: it is for replay to say whether it is one."""
    told = list(behaviour(search))
    refusal = _replayed(told)
    if refusal is not None:
        return Completed("undecided", [], tried=(f"a behaviour that replay does not take: {refusal}",))
    supplied = sum(t.line is None for t in search.taken)
    return Completed("explained", [], supplied=supplied, behaviour=tuple(told), solving=solving)


def _replayed(told: Sequence[dict[str, Any]]) -> str | None:
    """What ordinary replay has to say against a behaviour."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "completed.ndjson"
        write(told, path)
        verdict = check([path])
    if verdict.verdict == "conforms":
        return None
    return verdict.error or (verdict.explanation.claim if verdict.explanation else verdict.verdict)


def write(told: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a behaviour as a trace."""
    path.write_text("".join(json.dumps(x, separators=(",", ":")) + "\n" for x in told))


def _refute(lines: Lines, where: Line | None, tried: list[str]) -> Refutation | None:
    try:
        import z3  # noqa: F401
    except ImportError:
        tried.append(
            "no contradictions between lines were looked for: that needs pip install 'raftworthy[prove]'"
        )
        return None
    at = where.number if where is not None else 0
    refuter = Refuter(lines, lambda line: abs(line.number - at) <= NEAR)
    found = refuter.refute()
    if found is None:
        tried.append(
            f"{len(refuter.facts.conditions):,} claims of the invariant about the lines: no contradiction"
        )
    return found


def _refuted(r: Refutation) -> Completed:
    refuted = tuple(Cause(str(x.place), describe(x)) for x in r.lines)
    quiet = tuple(
        Cause(str(x.place) if x else "", f"{i} acknowledged no more than here in term {t}" if x else
              f"{i} acknowledged nothing in term {t}")
        for i, t, x in r.silent
    )  # fmt: skip
    ties = tuple(Tied(t.rule, t.section, t.why, t.says) for t in r.ties)
    count = {1: "this line cannot be true", 2: "these two lines cannot both be true"}
    claim = count.get(len(refuted), f"these {len(refuted)} lines cannot all be true")
    return Completed("violates", [], claim=claim, refuted=refuted, ties=ties, causes=quiet)


def _wrong_line(c: Contradiction) -> Completed:
    refuted = (Cause(str(c.line.place), describe(c.line)),)
    ties = (Tied(c.rule.name, c.rule.section, c.rule.why, c.claim),) if c.rule else ()
    causes = tuple(Cause(str(x.place), what) for x, what in c.because)
    own = f"the {len(c.before)} lines of {c.line.e.server} before it"
    claim = f"this line cannot be true with {own}, whatever the other servers did: {c.claim}"
    return Completed("violates", [], claim=claim, refuted=refuted, ties=ties, causes=causes)


def print_completed(c: Completed, out: Path | None = None) -> None:
    """Print a verdict for people."""
    if c.error:
        print(f"{c.error}\nunusable: nothing is said about the servers")
    elif c.verdict == "explained":
        lost = f", no lines of {', '.join(c.lost)}" if c.lost else ""
        for event in c.behaviour if out is None else ():
            print(json.dumps(event, separators=(",", ":")))
        took = f"({c.seconds:.2f} s{lost})"
        print(f"explained: a behaviour of the specification has these {c.lines:,} lines {took}")
        print(
            f"  {len(c.behaviour) - 1:,} steps, {c.supplied:,} of them supplied; replay says that it conforms"
        )
        if out is not None:
            print(f"  written to {out}; raftworthy replay {out} checks it")
    elif c.verdict == "violates":
        first, *rest = c.refuted
        print(f"{first.place}: error: {c.claim}")
        for x in (first, *rest):
            print(f"  {x.place}  {x.what}")
        for t in c.ties:
            where = f"section {t.section}" if t.section[0].isdigit() else t.section
            print(f"  rule {t.rule} ({where}): {t.why}")
            if t.claim not in (c.claim or ""):
                print(f"    {t.claim}")
        for x in c.causes:
            print(f"because: {x.place}  {x.what}" if x.place else f"because: {x.what}")
        print("help: correct the line that is wrong, and run the same command")
        print("violates")
    else:
        print("undecided: not explained, and not refuted")
        for what in c.tried:
            print(f"  tried: {what}")
        print("help: log more of what is missing, or allow more with --limit-steps")
    if c.unchecked:
        print(f"not checked: {c.unchecked:,} events of clients; what was committed isn't known for certain")
