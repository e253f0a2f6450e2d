"""What an exploration made use of: actions, guards, and which rules decided anything.

In each state every action is tried with all parameters. A guard is asked if those before it hold. A rule
decides where the action would come out otherwise without it: refused instead of taken, or to another end.

    s  a state
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from raftspec.graph import postorder
from raftspec.rules import RULES
from raftspec.tracing import Transition
from raftworthy.explore.model import Model
from raftworthy.generated import Generated, World, Writer, generate, scope_of


class Coverage:
    """Counts for a model, state by state."""

    def __init__(self, model: Model) -> None:
        self.model = model
        made = model.generated
        self.fired: Counter[str] = Counter()
        self.held: Counter[tuple[str, int]] = Counter()  # by action and the guard's number
        self.failed: Counter[tuple[str, int]] = Counter()
        self.decided: Counter[str] = Counter()
        self.guards = {name: [g.text for g in t.guards] for name, t in made.transitions.items()}
        self._refuses = {name: _first_refusal(made, t) for name, t in made.transitions.items()}
        # By action: its rules, and how it goes without each.
        self.rules: dict[str, dict[str, Callable[..., Any]]] = {name: {} for name in made.transitions}
        for rule in [name for name in RULES if name in made.tracer.rules and name not in model.without]:
            other = _without(model, rule)
            for name, t in made.transitions.items():
                if _comes_by(made, t, rule):
                    self.rules[name][rule] = other[name]

    def note(self, s: World) -> None:
        """Count what there is to be tried in a state."""
        for action, params in self.model.choices(s):
            refused = self._refuses[action](s, *params)
            last = refused or len(self.guards[action]) + 1
            self.held.update((action, k) for k in range(1, last))
            self.failed[action, refused] += bool(refused)
            self.fired[action] += self.model.take(s, action, params) is not None
            outcome = _outcome(self.model.generated.actions[action](s, *params))
            for rule, other in self.rules[action].items():
                self.decided[rule] += _outcome(other(s, *params)) != outcome

    @property
    def idle(self) -> list[str]:
        """The rules that never decided anything."""
        known = dict.fromkeys(rule for rules in self.rules.values() for rule in rules)
        return [rule for rule in known if not self.decided[rule]]

    def as_data(self) -> dict[str, Any]:
        """The counts for machines."""
        return {
            "actions": {name: self.fired[name] for name in self.guards},
            "guards": [
                {"action": name, "guard": text, "held": self.held[name, k], "failed": self.failed[name, k]}
                for name, texts in self.guards.items()
                for k, text in enumerate(texts, 1)
            ],
            "rules": {rule: self.decided[rule] for rules in self.rules.values() for rule in rules},
            "never_decided": self.idle,
        }

    def __str__(self) -> str:
        lines = ["action and its guards                              taken or held      refused"]
        for name, texts in self.guards.items():
            lines.append(f"  {name:<46} {self.fired[name]:>15,}")
            for k, text in enumerate(texts, 1):
                lines.append(f"    {text:<44} {self.held[name, k]:>15,} {self.failed[name, k]:>12,}")
        lines.append("rule                                             decided a step")
        lines += [f"  {rule:<46} {n:>15,}" for rule, n in self.as_data()["rules"].items() if n]
        if self.idle:
            lines.append(f"never decided anything within these bounds: {', '.join(self.idle)}")
        return "\n".join(lines)


def _first_refusal(made: Generated, t: Transition) -> Callable[..., int]:
    """A function that says which guard refuses first, from 1; 0 if none does."""
    guards = [made.tracer.graph.without_rules(g.condition) for g in t.guards]
    w = Writer(guards)
    for number, n in enumerate(guards, 1):
        w.line(f"if not {w.expr(n)}: return {number}")
    params = ", ".join(["m"] if t.action.message else t.action.params)
    scope = scope_of(made.structs)
    exec("\n".join([f"def refusal(S, {params}):", *w.lines, "    return 0"]), scope)
    found: Callable[..., int] = scope["refusal"]
    return found


def _without(model: Model, rule: str) -> dict[str, Callable[..., Any]]:
    """The actions without one more rule, with the same bounds."""
    made = model.generated
    other = generate(
        model.spec, made.servers, made.structs, model.without | {rule}, model.bounds.guards(), pure=True,
        properties=False,
    )  # fmt: skip
    return dict(other.actions)


def _comes_by(made: Generated, t: Transition, rule: str) -> bool:
    """Whether an action comes by a rule."""
    conditions = {n.attr for n in postorder(*t.roots()) if n.op == "rule"}
    return rule in conditions or rule in made.tracer.followed.get(t.name, ())


def _outcome(result: Any) -> Any:
    """What an action comes to: nothing, or other variables and messages."""
    if result is None:
        return None
    t, sent = result
    return tuple(v.key() for v in t.variables.values()), t.past.key(), frozenset(sent)
