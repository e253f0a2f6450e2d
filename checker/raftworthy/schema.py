"""The JSON Schema of a trace's lines, for other people's tools: `traces/schema.json` is generated from it."""

from __future__ import annotations

from typing import Any

import msgspec

from raftspec.extensions import EXTENSIONS
from raftworthy.linearize.reading import client_event
from raftworthy.replay.format import Header, trace_format


def schema() -> dict[str, Any]:
    """The JSON Schema of a trace's lines: a header, then events of servers, and of clients."""
    (header, *events), components = msgspec.json.schema_components(
        [Header, trace_format((), frozenset(EXTENSIONS)).event, client_event()],
        ref_template="#/$defs/{name}",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of a raftworthy trace, version 1",
        "description": "The first line of a file is a Header, every other line an Event, or a ClientEvent. "
        "See docs/traces.md and docs/linearize.md.",
        "anyOf": [header, *events],
        "$defs": components,
    }
