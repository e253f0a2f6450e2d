"""What goes wrong in a simulated world, and how often.

rate  a probability per message (loss, duplication, delay, reordering, corruption)
      or per step (partition, crash, restart, pause, disk, transfer); for clocks the largest drift
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often. The defaults are a quiet world."""

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.0
    reordering: float = 0.0
    partition: float = 0.0
    crash: float = 0.0
    restart: float = 0.0
    clock: float = 0.0
    pause: float = 0.0
    disk: float = 0.0
    transfer: float = 0.0
    corruption: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read `none`, `all`, or names such as `loss,crash=0.01`, each with an optional rate.

        `all` is all that Raft tolerates: corruption, a Byzantine fault, isn't among it.
        """
        if text in ("none", "all"):
            return ALL_FAULTS if text == "all" else cls()
        rates: dict[str, float] = {}
        for part in text.split(","):
            name, equals, rate = part.strip().partition("=")
            if name not in FAULT_NAMES:
                known = ", ".join(FAULT_NAMES)
                raise ValueError(f"no fault is called {name!r}: write none, all, or some of {known}")
            if name in rates:
                raise ValueError(f"{name} stands twice in {text!r}: give one rate")
            rates[name] = _rate(name, rate) if equals else USUAL_RATES[name]
        return cls(**rates)

    def __str__(self) -> str:
        if self in (Faults(), ALL_FAULTS):
            return "none" if self == Faults() else "all"
        rates = ((name, getattr(self, name)) for name in FAULT_NAMES)
        return ",".join(f"{name}={rate}" for name, rate in rates if rate)


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1:
        raise ValueError(f"{text!r} is no rate for {name}: write a number from 0 to below 1, as {name}=0.1")
    return rate


FAULT_NAMES = tuple(f.name for f in fields(Faults))
USUAL_RATES = {
    "loss": 0.05,
    "duplication": 0.05,
    "delay": 0.02,
    "reordering": 0.1,
    "partition": 0.001,
    "crash": 0.002,
    "restart": 0.0005,
    "clock": 0.3,
    "pause": 0.001,
    "disk": 0.005,
    "transfer": 0.001,
    "corruption": 0.001,
}
assert tuple(USUAL_RATES) == FAULT_NAMES
ALL_FAULTS = Faults(**{**USUAL_RATES, "corruption": 0.0})
