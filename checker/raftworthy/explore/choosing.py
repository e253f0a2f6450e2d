"""Which engine explores: the quickest that will do. A handful of states is Python's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from raftworthy.explore.bounds import UnusableError
from raftworthy.explore.cases import Case
from raftworthy.explore.coverage import Coverage
from raftworthy.explore.means import Means, Workers
from raftworthy.explore.model import Model
from raftworthy.explore.paths import WITNESSED, Result
from raftworthy.explore.reference import explore_model
from raftworthy.explore.symbolic import FOUND, UntraceableError, looking_for
from raftworthy.native import NEEDS, NoPlaceError, available

ENGINES = ("auto", "native", "python", "ray")
FEW_STATES = 200  # are explored before the native engine is compiled


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
        case = case.sending(usual)
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
            case = case.sending(usual)
        enough = limit_states if refused else min(FEW_STATES, limit_states or FEW_STATES)
        result = reference(enough)
        if refused or not result.stopped.startswith("stopped") or enough == limit_states:
            return result, "python", refused
    asked = case if text is None or case.properties is None else case.checking(FOUND)
    made = asked.begun(spec, question["without"], question["mutant"])
    try:
        from raftworthy.explore.natively import Natively  # imports llvmlite

        search = Natively(asked, made, unwanted, usual, means, limit_states, spec=spec, **question)
        result = search.explore()
    except NoPlaceError as error:
        if engine != "auto":
            raise
        case = case.sending(usual)
        return reference(limit_states), "python", str(error)
    found = result.violation
    used = "ray" if engine == "ray" else "native"
    if found is None or found.property != FOUND or find is None:
        return result, used, ""
    # Python has the last word, also if it is that the expression can't be evaluated here.
    assert find(found.path.world), f"the two back ends disagree: {text}"
    return replace(result, stopped=WITNESSED, violation=None, witness=found.path), used, ""
