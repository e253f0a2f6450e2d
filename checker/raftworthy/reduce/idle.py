"""Messages that can do nothing any more, though they are of their receiver's own term.

A message is idle if handling it changes nothing and sends nothing, now and after whatever else its receiver
does. Of kinds that say nothing to a server of a higher clock, it is idle at least if the receiver's clock is
the message's, handling it does nothing, and the receiver is in a role in which that stays so: the largest set
of roles for which Z3 finds no step that leads out of it. A vote that was counted is idle, and one for who
leads already; to a candidate who has yet to be elected, an acknowledgement is not.
"""

from __future__ import annotations

from raftspec.types import Message
from raftworthy.prove.logic import Truth
from raftworthy.prove.terms import Variables
from raftworthy.reduce.order import Clock
from raftworthy.reduce.questions import Questions, Taking


class Idle:
    """Questions about one kind of message."""

    def __init__(self, q: Questions, clock: Clock, kind: type[Message], role: str) -> None:
        self.q, self.clock, self.kind, self.role = q, clock, kind, role

    def roles(self) -> tuple[int, ...]:
        """In which roles a message that does nothing stays so."""
        q = self.q
        a = q.steps[q.handler[self.kind]]
        kept = set(range(q.machine.shapes.largest(q.model.spec.server.types()[self.role]) + 1))
        again = True
        while again and kept:
            again = False
            for action in q.transitions:
                with q.apart():
                    b = q.take(action, q.s, q.parameters(action))
                    later = q.take(a.action, b.taken.after, a.p)
                    if self._stays(a, b, later, kept, kept):
                        continue
                    leave = {r for r in kept if not self._stays(a, b, later, {r}, kept)}
                    again, kept = again or bool(leave), kept - leave
        return tuple(sorted(kept))

    def _does_nothing(self, a: Taking, s: Variables) -> Truth:
        q = self.q
        return q.logic.both(a.sized, q.changes_nothing(a, s), q.sends_nothing(a))

    def _stays(self, a: Taking, b: Taking, later: Taking, roles: set[int], kept: set[int]) -> bool:
        """Whether a message that does nothing in these roles does nothing after step b, or is old then."""
        q, logic, clock = self.q, self.q.logic, self.clock
        now, then = clock.of(q.s, a.i), clock.after(b)
        here = [
            logic.same(clock.carried(a), now),
            logic.either(*(logic.same(q.own(q.s, a.i, self.role), r) for r in sorted(roles))),
            self._does_nothing(a, q.s),
            b.possible,
            logic.same(a.i, b.i),
            logic.same(then, now),
        ]
        new_role = q.own(b.taken.after, b.i, self.role)
        inside = logic.both(
            logic.either(*(logic.same(new_role, r) for r in sorted(kept))),
            self._does_nothing(later, b.taken.after),
        )
        return q.never(*here, logic.no(inside))
