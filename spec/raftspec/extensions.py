"""Raft with more than Figure 2: pre-vote, snapshots and the like, each in a module of its own.

Without any of them the specification is Figure 2 alone, and nothing that is left out costs anything.
"""

from __future__ import annotations

from functools import cache

from raftspec.check_quorum import check_quorum
from raftspec.leadership_transfer import leadership_transfer
from raftspec.membership import membership
from raftspec.pre_vote import pre_vote
from raftspec.properties import raft
from raftspec.reads import reads
from raftspec.sessions import sessions
from raftspec.snapshots import snapshots
from raftspec.spec import Extension, Spec
from raftspec.types import Record

EXTENSIONS: dict[str, Extension] = {
    x.name: x for x in (pre_vote, check_quorum, leadership_transfer, membership, reads, sessions, snapshots)
}


def having(*names: str) -> Spec:
    """Raft with these extensions; equal names give the same specification.

    Raises:
        KeyError: there is no such extension.
    """
    return _having(tuple(name for name in EXTENSIONS if name in {EXTENSIONS[n].name for n in names}))


@cache
def _having(names: tuple[str, ...]) -> Spec:
    if not names:
        return raft
    parts = [EXTENSIONS[name] for name in names]
    made = Spec(
        joined(raft.server, *(x.server for x in parts)),
        joined(raft.history, *(x.history for x in parts)),
        {rule: text for x in (raft, *parts) for rule, text in x.rules.items()},
        extensions=frozenset(names),
    )
    for x in (raft, *parts):
        made.actions |= x.actions
        made.properties |= x.properties
        made.goals |= x.goals
    return made


def joined(base: type[Record], *classes: type[Record]) -> type[Record]:
    """A record with the fields of all of these classes, which extend one or are extended by it."""
    known = dict.fromkeys((*classes, base))
    more = tuple(cls for cls in known if not any(issubclass(x, cls) for x in known if x is not cls))
    if len(more) < 2:
        return more[0]
    if more not in _JOINED:
        _JOINED[more] = type(base.__name__, more, {"__module__": __name__, "__doc__": base.__doc__})
    return _JOINED[more]


_JOINED: dict[tuple[type[Record], ...], type[Record]] = {}
WHOLE = having(*EXTENSIONS)
