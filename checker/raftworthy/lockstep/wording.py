"""Values and messages of both sides, as lockstep prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import raftd.messages
from raftd.log import Log
from raftspec.raft import AppendEntries
from raftspec.snapshots import InstallSnapshot
from raftspec.types import Message
from raftworthy.lockstep.meanings import text_of
from raftworthy.structs import snake_case


def show(value: Any) -> str:
    """A value as messages print it; an entry is term:command."""
    match value:
        case None:
            return "nobody"
        case raftd.messages.Entry(term=term, command=command):
            return f"{term}:{text_of(command) or 'no-op'}"
        case raftd.messages.Snapshot(last_included_index=n, last_included_term=term):
            return f"of entries up to {n}, of term {term}"
        case (int(term), str(command)):
            return f"{term}:{command or 'no-op'}"
        case list() | tuple() | Log():
            return f"[{' '.join(map(show, value))}]"
        case dict():
            return "{" + ", ".join(f"{k}: {v}" for k, v in sorted(value.items())) + "}"
    return str(value)


def show_variables(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: show(value) for name, value in values.items()}


def describe_message(m: Message) -> str:
    """A message in one line."""
    said = {name: getattr(m, name) for name in type(m).types() if name not in ("source", "target")}
    if isinstance(m, AppendEntries):
        said["entries"] = [(e.term, e.value) for e in m.entries]
    if isinstance(m, InstallSnapshot):
        said["prefix"] = [(e.term, e.value) for e in m.prefix]
    told = ", ".join(f"{name}={show(value)}" for name, value in said.items())
    return f"{snake_case(type(m).__name__)} {m.source}→{m.target} {told}"
