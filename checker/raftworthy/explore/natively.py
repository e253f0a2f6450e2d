"""Exploring natively with as little left out as will do, in stages.

First only what is seen by looking is left out: where that leaves few states, nothing has to be proved. Then
what Z3 permits; and what is still large, or permits no order so, is explored with choices left open, more
than was asked. What is only tried is given up at a limit. A signal leaves a checkpoint of the search that is
asked for, at any stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from raftworthy.explore.cases import Case
from raftworthy.explore.means import FALSE, Means, refuted
from raftworthy.explore.model import Model
from raftworthy.explore.paths import Path, Result
from raftworthy.native.engine import HOPELESS, explore_native
from raftworthy.native.narrowing import narrowed
from raftworthy.native.search import interrupts
from raftworthy.reduce.choices import opened
from raftworthy.reduce.deriving import permits_for
from raftworthy.reduce.looking import at_sight
from raftworthy.reduce.permits import Permits, nothing
from raftworthy.reduce.recorded import recorded

FEW_KEPT = 20_000  # states are explored before it pays to have anything proved,
MANY_KEPT = 200_000  # before more is explored than was asked, as that has fewer states


class Natively:
    """A question for the native engine. `made` is the case's model and beginning."""

    def __init__(
        self,
        case: Case,
        made: tuple[Model, Path],
        unwanted: Iterable[str] | None,
        usual: int | None,
        means: Means,
        limit_states: int | None,
        **question: Any,
    ) -> None:
        self.case, self.made, self.means, self.limit_states = case, made, means, limit_states
        self.model, self.question, self.usual = made[0], question, usual
        self.names = self.model.properties(case.properties)
        self.refused = _refused(made, unwanted, means)
        self.unwanted = tuple(unwanted or ())
        # Who goes on from a checkpoint is past what is only tried.
        self.alone = means.workers is None and not means.resume
        self.interrupted = Event()

    def explore(self) -> Result:
        """Explore; Ctrl-C and SIGTERM leave a checkpoint."""
        with interrupts() as self.interrupted:
            if self.refused:
                return self._in_full(nothing(self.refused))
            if self.model.bounds.max_messages is not None:
                return self._in_full(permits_for(self.model, self.names, self.unwanted))
            return self._reduced()

    def _reduced(self) -> Result:
        """Explore with reductions. Where those are recorded, looking alone is known not to do."""
        permits = None if self.unwanted else recorded(self.model, self.names)
        if permits is None:
            sight = at_sight(self.model, self.names, self.unwanted)
            if sight.eager and (result := self._tried(FEW_KEPT, sight, threads=1, hopeless=many)):
                return result
            permits = permits_for(self.model, self.names, self.unwanted)
        if "choices" not in self.unwanted and self.means.workers is None:
            # Policy is left open last: with it, more of what is found is none of the specification's.
            tried = self._tried(MANY_KEPT, permits) if permits.clock else self._openly(MANY_KEPT)
            found = tried or self._openly()
            assert found is not None
            if not isinstance(found, str):
                return found
            permits = replace(permits, off={**permits.off, "choices": found})
            if found == FALSE:
                self.means = replace(self.means, resume=False, asked=refuted(self.means.asked, "choices"))
        return self._in_full(permits)

    def _tried(self, limit: int, permits: Permits, **more: Any) -> Result | None:
        """What comes of trying to search what is asked; None if that was given up."""
        return self._given_up(partial(self._search, self.case, self.made, permits=permits), limit, **more)

    def _given_up(self, search: Callable[..., Result], limit: int, **more: Any) -> Result | None:
        """What comes of a search that is given up at a limit or a signal; None if it was."""
        if not self.alone:
            return None
        options = self.means.options() | {"asked": None, "disk": None, "hopeless": never} | more
        least = min(limit, self.limit_states or limit)
        result = search(limit_states=least, **options)
        return result if is_over(result, least == self.limit_states) else None

    def _in_full(self, permits: Permits) -> Result:
        """The search that is asked for; messages are counted where steps can't be sorted."""
        case, made = self.case, self.made
        if permits.clock is None and (fewer := case.sending(self.usual)) != case:
            permits, case = nothing(permits.off["order"]), fewer
            made = case.begun(self.question["spec"], self.question["without"], self.question["mutant"])
        options = self.means.options()
        return self._search(case, made, limit_states=self.limit_states, permits=permits, **options)

    def _search(self, case: Case, made: tuple[Model, Path], **options: Any) -> Result:
        return case.explore(
            made=made, explorer=explore_native, interrupted=self.interrupted, **options, **self.question
        )

    def _openly(self, limit: int | None = None) -> Result | str | None:
        """What a search finds that leaves choices open, if it is true of the specification; or why not.

        With a limit it is only tried, and policy isn't left open; None if that was given up.
        """
        model, (_, begun) = self.model, self.made
        choices = opened(model, self.names, policy=limit is None)
        if isinstance(choices, str):
            return choices
        permits = permits_for(choices.wide, choices.searched, self.unwanted)
        if permits.clock is None:
            return permits.off["order"]
        off = {name: why for name, why in permits.off.items() if name != "choices"}
        search = partial(
            explore_native, choices.wide, properties=choices.searched, symmetry=self.question["symmetry"],
            progress=self.question.get("progress"), start=begun, interrupted=self.interrupted,
            permits=replace(permits, opened=", ".join(choices.rules), off=off),
        )  # fmt: skip
        result: Result | None
        if limit is None:
            result = search(limit_states=self.limit_states, **self.means.options())
        else:
            result = self._given_up(search, limit)
        if result is None:
            return None
        if (found := result.violation) is not None:
            path = narrowed(model, choices.needs, begun.start, found.path, found.property)
            if path is None:
                return FALSE
            result = replace(result, violation=found._replace(path=path))
        return replace(result, without=model.without, mutant=model.mutant.name if model.mutant else None)


def is_enough_to_look(model: Model) -> bool:
    """Whether nothing has to be proved to explore a model soon."""
    sight = at_sight(model, model.properties(), ())
    if not sight.eager:
        return False
    return is_over(explore_native(model, permits=sight, limit_states=FEW_KEPT, hopeless=many))


def is_over(result: Result, limited: bool = False) -> bool:
    """Whether a search that was tried says all there is; `limited` if its limit is the one asked for."""
    return result.stopped != HOPELESS and (limited or not result.stopped.startswith("stopped"))


def many(distinct: int, newest: int) -> bool:
    """Whether a search that knows so many states, and met so many of them last, won't be over soon."""
    return distinct > 1_000 and newest > 0.4 * distinct


def never(*_: int) -> bool:
    """A search that is over soon enough: its limit decides."""
    return False


def _refused(made: tuple[Model, Path], unwanted: Iterable[str] | None, means: Means) -> str:
    """Why nothing may be left out at all; empty if something may be."""
    if unwanted is None:
        return "no reduction is wanted"
    if means.exact:
        return "whole states are compared"
    return "the search doesn't begin in the initial state" if len(made[1]) else ""
