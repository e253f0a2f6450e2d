"""The recorded traces get the verdicts, and the messages, that stand beside them.

`figure_8.ndjson.expect` says what replay has to say about `figure_8.ndjson`, and `kills.expect` about the
files in `kills/`: the verdict, then the message. After a change that is meant, write them anew and read
what has changed:

    RENEW_EXPECTED=1 pytest tests/raftworthy/test_traces.py && git diff traces
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import msgspec
import pytest
from tests.recording import cluster, files

from raftspec.rules import RULES
from raftworthy.replay.explain import render
from raftworthy.replay.verdict import check

ROOT = Path(__file__).parents[2]
TRACES = Path("traces")
RENEW = "RENEW_EXPECTED=1 pytest tests/raftworthy/test_traces.py && git diff traces"

SAFETY = sorted(name for name, rule in RULES.items() if rule.kind == "safety")
LIVENESS = sorted(name for name, rule in RULES.items() if rule.kind == "liveness")


def cases() -> list[Path]:
    """Each trace is a file, or a folder with one file for each start of a server."""
    names = {Path(name) for name in files.files()}
    return sorted({TRACES / (name.parent if name.parent.name == "kills" else name) for name in names})


def expectation(case: Path) -> Path:
    return case.with_name(case.name + ".expect")


def outcome(case: Path) -> str:
    """What replay says about a trace: the verdict, then its message."""
    verdict = check(sorted(case.iterdir()) if case.is_dir() else [case])
    text = render(verdict.explanation) if verdict.explanation else verdict.error
    if verdict.clients is not None:
        text = re.sub(r" \([0-9.]+ s\)", "", str(verdict.clients))
    return f"{verdict.verdict}\n{text}\n" if text else f"{verdict.verdict}\n"


@pytest.fixture(autouse=True)
def _paths_begin_at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_trace_gets_its_expected_verdict(case: Path) -> None:
    expect, seen = expectation(case), outcome(case)
    if os.environ.get("RENEW_EXPECTED"):
        expect.write_text(seen)
    assert expect.exists(), f"{case} has no expected verdict; write it: {RENEW}"
    expected = expect.read_text()
    if seen != expected:
        names = (str(expect), "what replay says now")
        diff = difflib.unified_diff(expected.splitlines(), seen.splitlines(), *names, lineterm="")
        pytest.fail("\n".join([*diff, f"help: if this is meant: {RENEW}"]), pytrace=False)


@pytest.mark.parametrize("folder", [".", "bad", "rules", "unusable"])
def test_folder_says_what_becomes_of_its_traces(folder: str) -> None:
    verdict = {"bad": "violates", "rules": "violates", "unusable": "unusable"}.get(folder, "conforms")
    for expect in (TRACES / folder).glob("*.expect"):
        assert expect.read_text().splitlines()[0] == verdict, expect


@pytest.mark.parametrize("rule", [*SAFETY, *LIVENESS])
def test_server_that_breaks_a_rule_is_told_which(rule: str) -> None:
    """What the others keep, a trace isn't held to: policy is Figure 2's choice among what is safe."""
    case = TRACES / "rules" / f"{rule}.ndjson"
    assert case.exists(), f"no trace breaks {rule}: record one in tests/recording"
    verdict = check([case])
    assert verdict.explanation is not None, f"{case} is not found to be wrong"
    assert verdict.explanation.rule == rule
    assert rule in render(verdict.explanation)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_violation_names_a_rule_or_says_why_none_is_concerned(case: Path) -> None:
    explanation = check(sorted(case.iterdir()) if case.is_dir() else [case]).explanation
    if explanation is not None:
        assert (explanation.rule is None) == bool(explanation.no_rule)
        assert (explanation.rule or f"no rule: {explanation.no_rule}") in render(explanation)


@pytest.mark.parametrize(
    ("name", "line"), [("heard_more_than_could_be_told", 9), ("commits_unstored", 8), ("leads_unheard", 7)]
)
def test_of_servers_that_wait_for_each_other_the_one_at_fault_is_named(name: str, line: int) -> None:
    explanation = check([TRACES / "bad" / f"{name}.ndjson"]).explanation
    assert explanation is not None
    assert explanation.line == line


@pytest.mark.parametrize("rule", SAFETY)
def test_wrong_step_is_the_last_of_its_trace(rule: str) -> None:
    """A violation is found where it happens, not where it shows."""
    case = TRACES / "rules" / f"{rule}.ndjson"
    verdict = check([case])
    assert verdict.explanation is not None
    assert verdict.explanation.line == len(case.read_bytes().splitlines())


def split(trace: bytes, folder: Path) -> list[Path]:
    """A trace of several servers as a file for each, so that their order is lost."""
    header, *lines = trace.splitlines(keepends=True)
    files: dict[str, bytes] = {}
    for line in lines:
        server = msgspec.json.decode(line)["server"]
        files[server] = files.get(server, header) + line
    for server, data in files.items():
        (folder / f"{server}.ndjson").write_bytes(data)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", cluster.GOOD)
def test_order_of_servers_in_a_trace_does_not_matter(name: str, tmp_path: Path) -> None:
    assert check(split(cluster.GOOD[name]().trace(), tmp_path)).verdict == "conforms"


@pytest.mark.parametrize("rule", SAFETY)
def test_broken_rule_is_named_from_a_file_for_each_server(rule: str, tmp_path: Path) -> None:
    verdict = check(split(cluster.RULES[rule]().trace(), tmp_path))
    assert verdict.explanation is not None
    assert verdict.explanation.rule == rule


@pytest.mark.parametrize("name", cluster.GOOD)
def test_least_that_is_useful_conforms(name: str, tmp_path: Path) -> None:
    """docs/traces.md: five kinds of events, no replies, nothing of what is sent."""
    path = tmp_path / "all.ndjson"
    path.write_bytes(files.minimal(cluster.GOOD[name]()))
    assert check([path]).verdict == "conforms"


@pytest.mark.parametrize("name", cluster.GOOD)
def test_least_that_is_useful_conforms_in_any_order(name: str, tmp_path: Path) -> None:
    assert check(split(files.minimal(cluster.GOOD[name]()), tmp_path)).verdict == "conforms"


def test_traces_are_what_the_scenarios_record() -> None:
    """Byte for byte, unpacked: the same script gives the same trace."""
    made = files.files()
    stale = [name for name, data in made.items() if not _is(TRACES / name, data)]
    assert not stale, f"{', '.join(stale)}: not up to date; run: python -m tests.recording.files traces"
    there = {str(path.relative_to(TRACES)) for path in _traces("*.ndjson*") if path.suffix != ".expect"}
    assert there == set(made), "a trace that no scenario records: remove it"


def _traces(pattern: str) -> list[Path]:
    """Files of servers' traces; clients' histories have tests of their own."""
    return [path for path in TRACES.rglob(pattern) if path.parent.name != "histories"]


def _is(path: Path, data: bytes) -> bool:
    return path.exists() and files.unpacked(path) == data


def test_no_expectation_is_left_over() -> None:
    there = set(_traces("*.expect"))
    assert there == {expectation(case) for case in cases()}
