"""Which engine explores, and what it may leave out: the quickest that will do.

A handful of states is Python's. What sending eagerly leaves few of, machine code explores, and nothing has to
be proved. Only for what is larger is Z3 asked what else may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from raftworthy.explore.cases import Case
from raftworthy.explore.coverage import Coverage
from raftworthy.explore.means import FALSE, Means, Workers, refuted
from raftworthy.explore.reference import (
    WITNESSED,
    Model,
    Path,
    Result,
    UnusableError,
    Violation,
    explore_model,
)
from raftworthy.explore.symbolic import FOUND, UntraceableError, looking_for
from raftworthy.native import NEEDS, NoPlaceError, available
from raftworthy.reduce.permits import Permits, nothing

ENGINES = ("auto", "native", "python", "ray")
FEW_STATES = 200  # are explored before the native engine is compiled,
FEW_KEPT = 20_000  # before it pays to have anything proved,
MANY_KEPT = 200_000  # before more is explored than was asked, as that has fewer states


def explore_with(
    case: Case,
    engine: str,
    *,
    text: str | None,
    find: Callable[..., bool] | None,
    limit_states: int | None,
    counts: list[Coverage] | None,
    means: Means,
    unwanted: Iterable[str] | None = None,
    usual: int | None = None,
    **question: Any,
) -> tuple[Result, str, str]:
    """Explore with an engine; say which one it was, and why not the native one if that couldn't.

    `counts` takes what was made use of, if it is asked for.

    Raises:
        UnusableError: this engine can't answer this question.
    """
    if engine not in ENGINES:
        raise UnusableError(f"no engine is called {engine}; there are {', '.join(ENGINES)}")

    def reference(limit: int | None) -> Result:
        if counts is None:
            return case.explore(find=find, limit_states=limit, **question)

        def counting(model: Model, **more: Any) -> Result:
            counts[:] = [Coverage(model)]
            return explore_model(model, visit=counts[0].note, **more)

        return case.explore(explorer=counting, find=find, limit_states=limit, **question)

    if engine == "ray":
        means = replace(means, workers=means.workers or Workers())
    elif means.workers is not None:
        raise UnusableError(f"the engine {engine} has no workers; add --engine ray")
    if engine == "python":
        if means.asked_for:
            raise UnusableError("the Python engine has no threads, no limits of memory, and no checkpoints")
        case = bounded(case, usual)
        return reference(limit_states), "python", ""
    spec, refused = case.spec, ""
    if not available():
        refused = NEEDS
    elif counts is not None:
        refused = "only Python counts what was made use of"
    elif text is not None:
        try:
            spec = looking_for(text, case.bounds, spec)
        except UntraceableError as error:
            refused = str(error)
    if means.asked_for and engine == "auto":
        engine = "native"
    if engine in ("native", "ray") and refused:
        raise UnusableError(f"the native engine can't be used: {refused}; try: --engine python")
    if engine == "auto":
        if refused or unwanted is None:
            case = bounded(case, usual)
        enough = limit_states if refused else min(FEW_STATES, limit_states or FEW_STATES)
        result = reference(enough)
        if refused or not result.stopped.startswith("stopped") or enough == limit_states:
            return result, "python", refused
    asked = case if text is None or case.properties is None else case.checking(FOUND)
    made = asked.begun(spec, question["without"], question["mutant"])
    try:
        result = _natively(
            asked, made, unwanted, usual, means, limit_states=limit_states, spec=spec, **question
        )
    except NoPlaceError as error:
        if engine != "auto":
            raise
        case = bounded(case, usual)
        return reference(limit_states), "python", str(error)
    found = result.violation
    used = "ray" if engine == "ray" else "native"
    if found is None or found.property != FOUND or find is None:
        return result, used, ""
    # Python has the last word, also if it is that the expression can't be evaluated here.
    assert find(found.path.world), f"the two back ends disagree: {text}"
    return replace(result, stopped=WITNESSED, violation=None, witness=found.path), used, ""


def _natively(
    case: Case,
    made: tuple[Model, Path],
    unwanted: Iterable[str] | None,
    usual: int | None,
    means: Means,
    *,
    limit_states: int | None,
    **question: Any,
) -> Result:
    """Explore natively, with what may be left out; `made` is the case's model and beginning."""
    from raftworthy.native.engine import HOPELESS, explore_native  # imports llvmlite
    from raftworthy.native.search import interrupts
    from raftworthy.reduce.looking import at_sight

    model, _ = made
    names, unwanted_too = model.properties(case.properties), unwanted or ()
    # Who goes on from a checkpoint is past what is only tried.
    alone = means.workers is None and not means.resume
    refused = _whole(made, unwanted, means)
    permits = nothing(refused)
    with interrupts() as interrupted:
        question |= {"explorer": explore_native, "interrupted": interrupted}

        def tried(limit: int, permits: Permits, **more: Any) -> Result | None:
            """What comes of a search that is given up at a limit; None if it was.

            It is given up at an interruption, too: the search that is asked for then leaves a checkpoint.
            """
            options = means.options() | {"asked": None, "disk": None} | more
            least = min(limit, limit_states or limit)
            result = case.explore(limit_states=least, permits=permits, made=made, **options, **question)
            over = not result.stopped.startswith("stopped") or least == limit_states
            return result if over and result.stopped != HOPELESS else None

        if not refused and model.bounds.max_messages is None:
            sight = at_sight(model, names, unwanted_too)
            quick = sight.eager and alone
            if quick and (result := tried(FEW_KEPT, sight, threads=1, hopeless=_many)) is not None:
                return result
            permits = _permitted(model, names, unwanted_too)
            if permits.clock and "choices" not in unwanted_too and means.workers is None:
                if alone and (result := tried(MANY_KEPT, permits, hopeless=_never)) is not None:
                    return result
                found = _openly(made, names, unwanted_too, means, limit_states, **question)
                if not isinstance(found, str):
                    return found
                permits = replace(permits, off={**permits.off, "choices": found})
                if found == FALSE:
                    means = replace(means, resume=False, asked=refuted(means.asked, "choices"))
        elif not refused:
            permits = _permitted(model, names, unwanted_too)
        if permits.clock is None and (fewer := bounded(case, usual)) != case:
            permits, case = nothing(permits.off["order"]), fewer
            made = case.begun(question["spec"], question["without"], question["mutant"])
        return case.explore(
            limit_states=limit_states, permits=permits, made=made, **means.options(), **question
        )


def _openly(
    made: tuple[Model, Path],
    names: list[str],
    unwanted: Iterable[str],
    means: Means,
    limit_states: int | None,
    **question: Any,
) -> Result | str:
    """What a search finds that leaves choices open, if it is true of the specification; or why not."""
    from raftworthy.native.engine import explore_native
    from raftworthy.reduce.choices import opened

    model, begun = made
    choices = opened(model, names)
    if isinstance(choices, str):
        return choices
    permits = _permitted(choices.wide, choices.searched, unwanted)
    if permits.clock is None:
        return permits.off["order"]
    off = {name: why for name, why in permits.off.items() if name != "choices"}
    result = explore_native(
        choices.wide, properties=choices.searched, symmetry=question["symmetry"],
        progress=question.get("progress"), limit_states=limit_states, start=begun,
        permits=replace(permits, opened=choices.variable, off=off), interrupted=question["interrupted"],
        **means.options(),
    )  # fmt: skip
    if result.violation is not None:
        try:
            steps = ((m.action, m.params) for m in result.violation.path.moves)
            path = model.repeat(begun.start, steps)
        except ValueError:
            return FALSE
        name = result.violation.property
        if model.claim(name)(*path.worlds()[-model.spec.properties[name].states :]):
            return FALSE
        result = replace(result, violation=Violation(name, result.violation.doc, path))
    return replace(result, without=model.without, mutant=model.mutant.name if model.mutant else None)


def _many(distinct: int, newest: int) -> bool:
    """Whether a search that knows so many states, and met so many of them last, won't be over soon."""
    return distinct > 1_000 and newest > 0.4 * distinct


def _never(*_: int) -> bool:
    """A search that is over soon enough: its limit decides."""
    return False


def bounded(case: Case, messages: int | None) -> Case:
    """A case in which so many messages are sent, if it doesn't say how many."""
    if case.bounds.max_messages is not None or messages is None:
        return case
    return replace(case, bounds=replace(case.bounds, max_messages=messages))


def _whole(made: tuple[Model, Path], unwanted: Iterable[str] | None, means: Means) -> str:
    """Why nothing may be left out at all; empty if something may be."""
    if unwanted is None:
        return "no reduction is wanted"
    if means.exact:
        return "whole states are compared"
    return "the search doesn't begin in the initial state" if len(made[1]) else ""


def _permitted(model: Model, names: Iterable[str], unwanted: Iterable[str]) -> Permits:
    """What a search may leave out, asked of Z3."""
    from raftworthy.reduce.deriving import permits_for  # imports llvmlite

    return permits_for(model, names, unwanted)
