"""Where the conjuncts of the invariant are declared, and the lemmas that follow, by extension."""

from __future__ import annotations

from collections.abc import Callable

from raftspec.spec import Property

CONJUNCTS: dict[str, Property] = {}
# With an extension others take the place of these; one of the same name does so by itself.
REPLACED: dict[str, frozenset[str]] = {
    "membership": frozenset(
        {
            "c1_choosable_entries_are_kept",
            "c2_later_leaders_have_choosable_entries",
            "c3_voters_pass_choosable_entries_on",
            "d2_commits_were_acknowledged",
            "l3_leaders_have_what_earlier_ones_committed",
        }
    )
}
OF_EXTENSIONS: dict[str, dict[str, Property]] = {}  # what else holds with an extension
LEMMAS: dict[str, dict[str, Property]] = {}  # by extension, what follows from the conjuncts
# By lemma, what its proof goes by: parameters and numbers, compared in this order with those of others.
RANKS: dict[str, tuple[str | int, ...]] = {}


def lemma_of(extension: str = "", *rank: str | int) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Declare what follows from the invariant of Raft with an extension, and from earlier lemmas.

    It may be proved from lemmas with ranks of the same length, itself among them, where theirs are smaller.
    """

    def declare(claim: Callable[..., bool]) -> Callable[..., bool]:
        LEMMAS.setdefault(extension, {})[claim.__name__] = Property.of(claim, states=1)
        RANKS[claim.__name__] = rank
        return claim

    return declare


def conjunct_of(extension: str) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Declare a claim about every state of Raft with an extension."""

    def declare(claim: Callable[..., bool]) -> Callable[..., bool]:
        OF_EXTENSIONS.setdefault(extension, {})[claim.__name__] = Property.of(claim, states=1)
        return claim

    return declare


def conjunct(claim: Callable[..., bool]) -> Callable[..., bool]:
    """Declare a claim about every state and every value of its parameters."""
    CONJUNCTS[claim.__name__] = Property.of(claim, states=1)
    return claim
