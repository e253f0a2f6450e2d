"""What was compared, and the first difference: as data, and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raftspec.extensions import WHOLE
from raftworthy.explore.paths import Result as Explored
from raftworthy.lockstep.comparing import Difference

AGREES, DIFFERS, UNUSABLE = 0, 1, 2


@dataclass(frozen=True)
class Disagreement:
    """A step that the core takes otherwise than the specification."""

    server: str
    input: str
    before: Mapping[str, str]
    differences: tuple[Difference, ...]
    rule: str | None
    path: tuple[str, ...] = ()  # how the state is reached: the explorer's shortest way

    def as_data(self) -> dict[str, Any]:
        return asdict(self) | {"differences": [d._asdict() for d in self.differences]}


@dataclass(frozen=True)
class Result:
    """What was compared. `agreed` counts inputs by the event they lead to; equal ones count once."""

    explored: Explored
    broken: str | None
    agreed: Mapping[str, int]
    servers_states: int
    exercised: tuple[str, ...]
    disagreement: Disagreement | None

    @property
    def agrees(self) -> bool:
        """Whether everything within the bounds was compared, and equal."""
        return self.disagreement is None and self.explored.exhausted and bool(self.agreed)

    @property
    def inputs(self) -> int:
        return sum(self.agreed.values())

    @property
    def exit_code(self) -> int:
        return DIFFERS if self.disagreement else AGREES if self.agrees else UNUSABLE

    def as_data(self) -> dict[str, Any]:
        """The result for machines."""
        return {
            "verdict": ("agrees", "differs", "unusable")[self.exit_code],
            "bounds": self.explored.bounds.as_data(),
            "broken": self.broken,
            "states": self.explored.distinct,
            "transitions": self.explored.states,
            "servers_states": self.servers_states,
            "inputs": self.inputs,
            "agreed": dict(self.agreed),
            "rules_exercised": list(self.exercised),
            "seconds": round(self.explored.seconds, 3),
            "disagreement": self.disagreement.as_data() if self.disagreement else None,
        }


def render(r: Result) -> str:
    """The result as text."""
    e = r.explored
    name = f"raftd's core, with {r.broken} broken," if r.broken else "raftd's core"
    lines = []
    if d := r.disagreement:
        lines.append(f"error: {name} takes a step otherwise than the specification")
        lines += [f"  {k:3} {step}" for k, step in enumerate(d.path, 1)]
        lines.append(f"  {d.server} is {', '.join(f'{k} = {v}' for k, v in d.before.items())}")
        lines.append(f"  given {d.input}")
        lines += [f"  {x.name}: expected {x.expected}, got {x.got}" for x in d.differences]
        if d.rule:
            rule = WHOLE.rules[d.rule]
            where = f"section {rule.section}" if rule.section[0].isdigit() else rule.section
            lines.append(f"because: rule {d.rule} ({where}): {rule.why}")
        lines.append(f"differs, after {r.inputs:,} inputs on which both agree ({e.seconds:.1f} s)")
    elif r.agrees:
        lines.append(
            f"agrees: {name} and the specification, on {r.inputs:,} different inputs ({e.seconds:.1f} s)"
        )
    else:
        lines.append(f"undecided: {e.stopped}, after {r.inputs:,} inputs on which both agree")
    lines.append("  " + ", ".join(f"{n:,} {event}" for event, n in r.agreed.items()))
    lines.append(
        f"  from {r.servers_states:,} different variables of a server, in {e.distinct:,} states "
        f"reached by {e.states:,} transitions"
    )
    lines.append(f"  rules that came out both ways: {len(r.exercised)}")
    lines.append(f"note: bounded by {e.bounds}; states that differ in servers' names only are taken once")
    if r.disagreement:
        lines.append(f"help: {_again(r)}")
    return "\n".join(lines)


OPTIONS = {"max_term": "terms", "max_log": "log", "max_messages": "messages"}  # where they differ


def _again(r: Result) -> str:
    """The command that finds this again."""
    words = ["raftworthy lockstep", *(f"--with {name}" for name in r.explored.bounds.extensions)]
    for name, value in asdict(r.explored.bounds).items():
        if name not in ("applies", "extensions") and value is not None:
            words.append(f"--{OPTIONS.get(name, name).replace('_', '-')} {value}")
    return " ".join([*words, *([f"--break {r.broken}"] if r.broken else [])])
