"""Which configuration is in force at a server, and what is a majority in it. Dissertation, section 4.

What a configuration entry says stands in history, under the entry's value, and is read only for entries that
a server has in its log: so it hides nothing. `voters` are those whose votes count, and in a joint
configuration `outgoing` are those of the old one, whose majority counts, too.

    me  a server's variables     n  the index of a configuration entry, 0 for the first configuration
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftspec.spec import State
from raftspec.values import Seq, count, ite, largest, latest, no, smallest

Who = Callable[[str], bool]  # for whom something holds


def is_configuration(s: State[Any, Any], value: Any) -> bool:
    """Whether an entry's value stands for a configuration: one has voters."""
    stands: bool = s.past.voters[value].size > 0
    return stands


def in_force(s: State[Any, Any], me: Any) -> int:
    """The entry of the configuration that a server goes by: its log's newest, committed or not."""
    if s.follows("membership.in_force_when_stored"):
        return me.configured  # type: ignore[no-any-return]
    return latest(smallest(me.commit_index, me.log.length), lambda n: is_configuration(s, me.log.at(n).value))


def votes(s: State[Any, Any], me: Any, n: int) -> Who:
    """Who votes in the configuration of entry n; of a joint one, in the new one."""
    value = me.log.at(n).value
    return lambda j: ite(n == 0, no(s.past.joining.has(j)), s.past.voters[value].has(j))


def has_left(s: State[Any, Any], me: Any, n: int, i: str) -> bool:
    """Whether server i is not in the configuration of entry n, neither the new one nor the old one."""
    return no(votes(s, me, n)(i) | s.past.outgoing[me.log.at(n).value].has(i))


def is_joint(s: State[Any, Any], me: Any, n: int) -> bool:
    """Whether the configuration of entry n is an old and a new one together. Section 6 of the paper."""
    joint: bool = s.past.outgoing[me.log.at(n).value].size > 0
    return joint


def have_majority(s: State[Any, Any], me: Any, who: Who) -> bool:
    """Whether those for whom `who` holds are a majority of the configuration in force, or of both in it."""
    n = in_force(s, me)
    old = s.past.outgoing[me.log.at(n).value]
    of_both = s.rule("membership.majority_of_both", no(is_joint(s, me, n)) | _most(s, old.has, who))
    return _most(s, votes(s, me, n), who) & of_both


def _most(s: State[Any, Any], voters: Who, who: Who) -> bool:
    """Whether `who` holds for more than half of the voters."""
    counted = [voters(j) & who(j) if s.follows("membership.count_voters") else who(j) for j in s.servers]
    yes = count(counted)
    return yes + yes > count(voters(j) for j in s.servers)


def newest_kept(s: State[Any, Any], me: Any, length: int) -> int:
    """The newest configuration entry of a log's first `length` entries: it goes back where a log is cut."""
    if type(length) is int and length == 0:  # a literal: nothing stays
        return 0
    searched = ite(me.configured > length, length, 0)  # ordinarily none
    earlier = latest(searched, lambda n: is_configuration(s, me.log.at(n).value))
    newest: int = ite(me.configured > length, earlier, me.configured)
    return newest


def newest_stored(s: State[Any, Any], me: Any, length: int, after: int, entries: Seq[Any]) -> int:
    """The newest configuration entry, when of a log `length` entries stay and others follow entry `after`."""
    new = latest(entries.length, lambda k: is_configuration(s, entries.at(k).value))
    return largest(newest_kept(s, me, length), ite(new > 0, after + new, 0))
