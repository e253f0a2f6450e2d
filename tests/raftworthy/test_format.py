"""The published trace format: its schema is the reader's own, and what is recorded or documented is valid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from raftworthy.files import open_trace
from raftworthy.replay.verdict import check
from raftworthy.schema import schema

ROOT = Path(__file__).parent.parent.parent
SCHEMA = ROOT / "traces/schema.json"
RECORDED = sorted(
    path for path in (ROOT / "traces").rglob("*.ndjson*")
    if not {"unusable", "histories"} & set(path.parts) and path.suffix in (".ndjson", ".gz", ".zst")
)  # fmt: skip
EXAMPLES = re.findall(r"```json\n(.*?)```", (ROOT / "docs/traces.md").read_text(), re.S)


def validator() -> Any:
    kind = jsonschema.validators.validator_for(schema())
    kind.check_schema(schema())
    return kind(schema())


def lines(path: Path) -> Iterator[Any]:
    with open_trace(path) as file:
        yield from (json.loads(line) for line in islice(file, 1000))


def test_the_schema_is_up_to_date() -> None:
    """If not: raftworthy schema > traces/schema.json."""
    assert json.loads(SCHEMA.read_text()) == schema()


def test_recorded_lines_are_valid() -> None:
    valid = validator()
    assert RECORDED
    for path in RECORDED:
        for number, line in enumerate(lines(path), 1):
            error = jsonschema.exceptions.best_match(valid.iter_errors(line))
            assert error is None, f"{path}:{number}: {error.message}"


@pytest.mark.parametrize(
    "line",
    [
        {"server": "n1"},
        {"server": "n1", "event": "vote"},
        {"server": "n1", "event": "timeout", "state": {"current_term": -1}},
        {"server": "n1", "event": "timeout", "state": {"role": "chief"}},
        {"server": "n1", "event": "timeout", "seq": 0},
        {"server": "n1", "event": "handle_request_vote", "message": {"kind": "request_vote", "source": "n2"}},
        {"server": "n1", "event": "client_request", "entries": [[1]]},
    ],
    ids=["no event", "unknown event", "negative term", "unknown role", "seq 0", "half message", "half entry"],
)
def test_other_lines_are_not_valid(line: dict[str, Any]) -> None:
    assert not validator().is_valid(line)


@pytest.mark.parametrize("text", EXAMPLES, ids=["a file", "the least"])
def test_examples_of_the_documentation_replay(text: str, tmp_path: Path) -> None:
    path = tmp_path / "example.ndjson"
    path.write_text(text)
    verdict = check([path])
    assert verdict.verdict == "conforms", verdict.error or verdict.explanation
    valid = validator()
    for line in text.splitlines():
        valid.validate(json.loads(line))


def test_the_least_example_commits_an_entry(tmp_path: Path) -> None:
    """Replies aren't logged, so the vote and the acknowledgement are inferred."""
    path = tmp_path / "least.ndjson"
    path.write_text(EXAMPLES[-1])
    report = check([path]).report
    assert report is not None
    assert (report.leaders, report.committed) == ({1: "a"}, 1)
    assert report.unchecked
