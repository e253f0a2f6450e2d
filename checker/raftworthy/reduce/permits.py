"""What a search may leave out, and why it may not leave out the rest.

Data only, so that it can be kept on disk, and so that who searches needs no Z3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Permits:
    """The reductions that are permitted. `off` says of each other one why it isn't.

    `clock` is a server's variable and the messages' field by which steps are sorted.
    """

    eager: bool = False
    clock: tuple[str, str] | None = None
    silent: tuple[str, ...] = ()  # kinds of messages that say nothing to a server of a higher clock
    faded: tuple[str, ...] = ()  # kinds of which all that are older come to the same
    assumed: bool = False  # whether those are all taken to have been sent
    absorbed: tuple[str, ...] = ()  # kinds that are handled at once
    catch_up: str = ""  # the action by which a server that lags comes close to the others
    forgotten: tuple[str, ...] = ()  # variables of a server that lags
    records: tuple[str, ...] = ()  # maps of history of which what is older is forgotten
    untold: tuple[str, ...] = ()  # what of history nothing reads
    role: str = ""  # a server's variable, and for some kinds the values of it
    idle: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # in which what does nothing never will
    opened: str = ""  # the variable of a server that choices which are left open were made by
    off: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # of CPU time that the proofs took
    questions: int = 0
    recorded: bool = False  # whether they were, when the record was made

    @property
    def any(self) -> bool:
        return self.eager or self.clock is not None

    def built(self) -> str:
        """All that machine code depends on."""
        return repr(replace(self, off={}, seconds=0.0, questions=0, recorded=False))

    def names(self) -> Iterator[str]:
        """The reductions that are on."""
        for name in REDUCTIONS:
            if name not in self.off:
                yield name


UNWANTED = "it isn't wanted"
FEW_LEFT = "there are few states without it"

# What each reduction is, in words.
REDUCTIONS: Mapping[str, str] = {
    "choices": "choices that only later choices depend on, as what a leader sends next, are left open",
    "eager": "a step that only sends is taken at once",
    "order": "steps are taken in the order of terms",
    "older": "messages of older terms are dropped, or known by their sender only",
    "assumed": "what tells the sender of an old message only the term is taken to be sent to anybody",
    "absorb": "a message is handled at once if that takes nothing away",
    "idle": "messages that can do nothing any more are dropped",
    "lag": "a server in an older term is remembered by what its next step can read",
    "records": "of what happened only what a property or a bound can still tell is remembered",
}


def nothing(why: str) -> Permits:
    """No reduction, for one reason."""
    return Permits(off=dict.fromkeys(REDUCTIONS, why))
