"""Commands for whoever changes the protocol: the specification is explored, and raftd held to it."""

from __future__ import annotations

import builtins
import gc
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Annotated, Any

from cyclopts import Parameter

from raftworthy.cli.common import (
    CONFORMS,
    UNUSABLE,
    Json,
    UnwritableError,
    With,
    app,
    check_writable,
    fail,
    print_json,
    progress_bar,
)

SELDOM = 200_000, 50, 100  # for gc: expressions and states stay, and few of them are garbage


@app.command
def explore(
    *,
    servers: int = 3,
    max_term: int = 2,
    max_log: int = 1,
    max_messages: Annotated[
        int | None, Parameter(help="different messages ever sent; else any number, 8 if nothing is left out")
    ] = None,
    crashes: int = 0,
    commands: int | None = None,
    entries: int = 1,
    applies: bool = False,
    changes: Annotated[int, Parameter(help="with membership: configurations that are proposed")] = 1,
    requests: Annotated[int, Parameter(help="with sessions: a client's different requests")] = 1,
    clients: Annotated[int, Parameter(help="with sessions: clients that ask")] = 1,
    max_time: Annotated[int, Parameter(help="with sessions: what a leader's clock can say")] = 1,
    reads: Annotated[int, Parameter(help="with reads: in so many rounds")] = 1,
    with_: With = None,
    snapshots: Annotated[int, Parameter(help="with snapshots: so many are taken")] = 1,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="explore a known bug, by its id")] = None,
    any_policy: Annotated[bool, Parameter(help="let servers do what is safe, not only Figure 2")] = False,
    property: Annotated[list[str] | None, Parameter(help="check these only", negative="")] = None,
    find: Annotated[str | None, Parameter(help="look for a state, by an expression")] = None,
    symmetry: Annotated[bool, Parameter(help="states that differ in names only are one")] = True,
    limit_states: Annotated[int | None, Parameter(help="stop at so many distinct states")] = None,
    begin: Annotated[str, Parameter(help="where to begin: initial, figure_8, …")] = "initial",
    save: Annotated[Path | None, Parameter(help="write the path found as a trace")] = None,
    engine: Annotated[
        str, Parameter(help="python, native, auto: native where it can and pays, or ray: in a cluster")
    ] = "auto",
    coverage: Annotated[bool, Parameter(help="count what decided anything, in Python", negative="")] = False,
    random: Annotated[bool, Parameter(help="walk at random instead", negative="")] = False,
    seed: Annotated[int, Parameter(help="with --random: the same seed, the same walks")] = 1,
    depth: Annotated[int, Parameter(help="with --random: steps of a walk")] = 100,
    walks: Annotated[int | None, Parameter(help="with --random: stop after so many")] = None,
    seconds: Annotated[float | None, Parameter(help="with --random: stop then; else after 10")] = None,
    threads: Annotated[int | None, Parameter(help="else as many as there are cores")] = None,
    memory: Annotated[str | None, Parameter(help="as 4G: what is more goes to disk")] = None,
    disk: Annotated[Path | None, Parameter(help="a folder for that, and for checkpoints")] = None,
    checkpoint_minutes: Annotated[float, Parameter(help="with --disk: between checkpoints")] = 5.0,
    resume: Annotated[Path | None, Parameter(help="go on from the checkpoint in this folder")] = None,
    workers: Annotated[int | None, Parameter(help="with ray; else as many as there are cores")] = None,
    address: Annotated[str | None, Parameter(help="with ray: a cluster to join; else it is here")] = None,
    exact: Annotated[bool, Parameter(help="compare whole states, not fingerprints", negative="")] = False,
    reduction: Annotated[bool, Parameter(help="leave out what Z3 proves to change no answer")] = True,
    without_reduction: Annotated[list[str] | None, Parameter(help="but not these", negative="")] = None,
    json: Json = False,
) -> int:
    """Explore every behaviour of the specification within bounds, breadth first, and check its properties.

    Ctrl-C leaves a checkpoint. --resume takes the question from it, and more memory or a limit, if given.
    With --random, walk through what is too large for that; each walk prefers other actions.
    Exit code: 0 nothing violated within the bounds, or found; 1 violated; 2 undecided or unusable.

    Examples:
        raftworthy explore --max-term 2 --max-log 1 --max-messages 7
        raftworthy explore --without restart.keep_vote --crashes 1 --save vote.ndjson
        raftworthy explore --mutant R01 --begin figure_8 --max-term 4 --commands 2 --max-messages 20
        raftworthy explore --find "len(leaders()) == 2" --max-term 2
        raftworthy explore --coverage --servers 2
        raftworthy explore --with check_quorum --max-messages 7
        raftworthy explore --with membership --without membership.majority_of_both --max-messages 6
        raftworthy explore --max-messages 17 --memory 2G --disk states
        raftworthy explore --resume states
        raftworthy explore --max-messages 13 --engine ray --workers 3
        raftworthy explore --random --max-term 4 --commands 2 --without commit.current_term
    """
    gc.set_threshold(*SELDOM)
    from raftworthy.explore.bounds import Bounds, UnusableError
    from raftworthy.explore.cases import with_extensions
    from raftworthy.explore.means import Means, Workers, resumed
    from raftworthy.explore.running import run_explore
    from raftworthy.reduce.permits import REDUCTIONS

    means = Means(threads, memory, disk, exact=exact, checkpoint_minutes=checkpoint_minutes)

    if not random:
        given = {"--walks": walks, "--seconds": seconds}
        if unfit := [name for name, value in given.items() if value is not None]:
            return fail(f"{unfit[0]} is for random walks; add --random", json)
    elif find is not None or limit_states is not None or coverage:
        return fail(
            "random walks look for violations only; leave out --find, --limit-states and --coverage", json
        )
    if random and (means.asked_for or resume is not None):
        return fail("random walks need no memory: leave out --threads, --memory, --disk and the like", json)
    try:
        limits = (servers, max_term, max_log, max_messages, crashes, commands, entries, applies)
        more: dict[str, Any] = {
            "changes": changes, "requests": requests, "max_time": max_time, "reads": reads,
            "snapshots": snapshots, "clients": clients,
        }  # fmt: skip
        bounds = Bounds(*limits, extensions=with_extensions(with_, mutant), **more)
        if save is not None:
            check_writable(save)
        if random:
            from raftworthy.explore.running_walks import Question, run_walks

            rules, checked = frozenset(without or ()), None if property is None else tuple(property)
            question = Question(
                bounds, rules, mutant, any_policy, checked, begin, seed, depth, walks, seconds, engine
            )
            return run_walks(
                question, save=save, as_json=json, progress=lambda: progress_bar("walking", "steps")
            )
    except (UnusableError, UnwritableError) as error:
        return fail(str(error), json)
    asked: dict[str, Any] = {
        "bounds": bounds.as_data(), "without": sorted(without or ()), "mutant": mutant,
        "any_policy": any_policy, "properties": property, "symmetry": symmetry, "start": begin,
        "threads": threads, "find": find, "engine": engine, "workers": workers,
        "unwanted": sorted(without_reduction or ()) if reduction else None,
    }  # fmt: skip
    try:
        if resume is not None:
            if disk not in (None, resume):
                return fail(f"what is gone on with stays in {resume}: leave out --disk", json)
            asked = resumed(resume, asked, Bounds().as_data())
            means = replace(means, disk=resume, resume=True)
        engine = asked.get("engine", engine)
        if engine == "ray" or workers is not None or address is not None:
            means = replace(means, workers=Workers(asked.get("workers"), address))
        means = means.keeping(asked)
        bounds = Bounds(**asked.pop("bounds"))
        if unknown := set(asked["unwanted"] or ()) - set(REDUCTIONS):
            raise UnusableError(
                f"no reduction is called {', '.join(unknown)}; there are {', '.join(REDUCTIONS)}"
            )
    except UnusableError as error:
        return fail(str(error), json)
    for name in ("threads", "workers", "engine"):
        asked.pop(name, None)
    return run_explore(
        bounds, limit_states=limit_states, save=save, engine=engine, coverage=coverage, as_json=json,
        means=means, usual_messages=8, **asked,
    )  # fmt: skip


@app.command
def why(
    name: Annotated[str | None, Parameter(help="a rule, or the id of a known bug")] = None,
    /,
    *,
    all: Annotated[bool, Parameter(help="every rule of Figure 2, as a table", negative="")] = False,
    with_: Annotated[
        list[str] | None,
        Parameter(name="--with", help="with --all: of these extensions instead", negative=""),
    ] = None,
    markdown: Annotated[bool, Parameter(help="with --all: as a page", negative="")] = False,
    save: Annotated[Path | None, Parameter(help="write the path found as a trace")] = None,
    json: Json = False,
) -> int:
    """Show what goes wrong without a rule: the shortest disaster, and the step that the rule prevents.

    Of a rule that nothing goes wrong without, it says what was explored to know that; and where a command may
    then never be decided, it shows the livelock. Where the proof for any number of servers needs the rule, it
    shows the step at which that fails first: from a state in which Raft's invariant holds, which need not be
    reachable, to one where it doesn't.
    Exit code: 0 answered, 2 undecided or unusable.

    Examples:
        raftworthy why commit.current_term
        raftworthy why R05 --save bug.ndjson
        raftworthy why --all
        raftworthy why --all --with pre_vote --markdown
    """
    if (name is None) is not all or ((markdown or with_) and not all):
        return fail("name a rule or a mutant, or write --all; --markdown and --with go with --all", json)
    gc.set_threshold(*SELDOM)
    from raftspec.extensions import EXTENSIONS
    from raftspec.rules import RULES
    from raftworthy.explore.bounds import UnusableError
    from raftworthy.explore.cases import with_extensions
    from raftworthy.explore.export import write_trace
    from raftworthy.explore.needless import LIVELOCKS
    from raftworthy.explore.telling import answer_data, as_text, page, table
    from raftworthy.explore.why import why as answer

    if name is None:
        answers = []
        try:
            extensions = with_extensions(with_, None)
        except UnusableError as error:
            return fail(str(error), json)
        rules = [rule for x in extensions for rule in EXTENSIONS[x].rules] or [*RULES]
        took: dict[str, float] = {}
        with progress_bar("exploring", "rules") as progress:
            for k, rule in enumerate(rules):
                progress(k, len(rules))
                began = process_time()
                answers.append(answer(rule))
                took[rule] = round(process_time() - began, 2)
        if json:
            print_json([answer_data(a) | {"cpu": took[a.name]} for a in answers])
        elif markdown:
            print(page(answers, extensions), end="")
        else:
            slowest = max(took, key=lambda rule: took[rule])
            print(table(answers))
            print(f"{sum(took.values()):.1f} s of CPU, at most {took[slowest]:.1f} s for one: {slowest}")
        return CONFORMS if builtins.all(a.decided for a in answers) else UNUSABLE
    try:
        if save is not None:
            check_writable(save)
        found = answer(name)
        livelock = None
        if found.name in LIVELOCKS:
            from raftworthy.explore import livelocks  # imports what draws

            with progress_bar("looking for a livelock", "states") as progress:
                livelock = livelocks.livelock_of(found.name, found.mutant is not None, progress)
    except (UnusableError, UnwritableError) as error:
        return fail(str(error), json)
    if save is not None and found.disaster:
        write_trace(found.disaster.path, save)
    if json:
        print_json(answer_data(found) | (livelocks.as_data(livelock) if livelock else {}))
        return CONFORMS if found.decided else UNUSABLE
    from rich.console import Console

    console = Console()
    console.print(as_text(found, console.width), soft_wrap=True)
    if livelock:
        console.print(livelocks.as_text(livelock, console.width), soft_wrap=True)
    if save is not None:
        print(f"written to {save}; try: raftworthy replay {save}" if found.disaster else "no path to save")
    return CONFORMS if found.decided else UNUSABLE


@app.command
def live(
    *,
    alone: Annotated[
        str | None, Parameter(help="in the end only this server's timeouts fire, or `some` server's")
    ] = None,
    impatient: Annotated[
        bool, Parameter(help="with --alone: at any time, not only when nothing else is left", negative="")
    ] = False,
    stopped: Annotated[list[str] | None, Parameter(help="these servers do nothing", negative="")] = None,
    servers: int = 2,
    max_term: Annotated[int, Parameter(help="the highest, after old ones were renamed")] = 2,
    max_log: int = 1,
    max_messages: Annotated[
        int | None, Parameter(help="that aren't of an older term than their receiver's; else any number")
    ] = None,
    crashes: int = 0,
    without: Annotated[list[str] | None, Parameter(help="take these rules away", negative="")] = None,
    mutant: Annotated[str | None, Parameter(help="a known bug, by its id")] = None,
    limit_states: Annotated[int, Parameter(help="stop at so many states")] = 200_000,
    save: Annotated[Path | None, Parameter(help="write the livelock as a trace, two rounds of it")] = None,
    json: Json = False,
) -> int:
    """Look for a livelock: a fair behaviour in which a command is never decided.

    Fair: what is possible all the time is done once, be it that a message is received, that a server which
    isn't leader times out, or what leader and client do. Only restarts needn't happen. The client gives its
    command to each new leader. If timeouts fire at any time, candidates can stand in each other's way for
    ever; if those of one server are alone in the end, which is up to date enough to win, they can't.
    Exit code: 0 always decided within the bounds, 1 livelock, 2 undecided or unusable.

    Examples:
        raftworthy live
        raftworthy live --alone some
        raftworthy live --alone n1 --impatient
        raftworthy live --servers 3 --stopped n3
        raftworthy live --servers 3 --max-messages 6
        raftworthy live --alone some --without term.fresh_vote --save livelock.ndjson
    """
    from raftworthy.explore.bounds import UnusableError
    from raftworthy.explore.fairness import Timing
    from raftworthy.explore.live import Question
    from raftworthy.explore.running_live import run_live

    if impatient and alone is None:
        return fail("--impatient says when the one server times out; add --alone n1", json)
    timing = Timing(alone, alone is not None and not impatient, frozenset(stopped or ()))
    question = Question(
        servers, max_term, max_log, max_messages, crashes, frozenset(without or ()), mutant, timing,
        limit_states=limit_states,
    )  # fmt: skip
    try:
        if save is not None:
            check_writable(save)
        from rich.console import Console

        console = Console()
        with progress_bar("exploring", "states") as progress:
            data, text, code = run_live(question, save, console.width, progress)
    except (UnusableError, UnwritableError) as error:
        return fail(str(error), json)
    if json:
        print_json(data)
    else:
        console.print(text, soft_wrap=True, end="")
    return code


@app.command(name="lockstep")
def lockstep_command(
    *,
    servers: Annotated[int | None, Parameter(help="3, with all extensions 2")] = None,
    terms: Annotated[int | None, Parameter(help="2, with all extensions 1")] = None,
    log: Annotated[int | None, Parameter(help="entries in one: 1, with all extensions 2")] = None,
    commands: Annotated[int | None, Parameter(help="entries that are appended: 2")] = None,
    crashes: Annotated[
        int | None, Parameter(help="1, with all extensions 0; each restart is compared")
    ] = None,
    entries: Annotated[int | None, Parameter(help="in one message: 1")] = None,
    messages: Annotated[int | None, Parameter(help="ever sent: 8, with all extensions 7")] = None,
    changes: Annotated[int | None, Parameter(help="with membership: configurations proposed: 1")] = None,
    requests: Annotated[int | None, Parameter(help="with sessions: different requests: 1")] = None,
    clients: Annotated[int | None, Parameter(help="with sessions: clients that ask: 1")] = None,
    max_time: Annotated[int | None, Parameter(help="with sessions: what a clock can say: 1")] = None,
    reads: Annotated[int | None, Parameter(help="with reads: rounds of readers: 1")] = None,
    snapshots: Annotated[int | None, Parameter(help="with snapshots: how many are taken: 1")] = None,
    broken: Annotated[str | None, Parameter(name="--break", help="leave out this rule in the server")] = None,
    with_: Annotated[
        list[str] | None,
        Parameter(name="--with", help="extensions of Raft: pre_vote, …, or all", negative=""),
    ] = None,
    json: Json = False,
) -> int:
    """Put the core of raftd into every state that the specification reaches, and compare each step.

    Exit code: 0 they agree, 1 they differ, 2 unusable.

    Examples:
        raftworthy lockstep
        raftworthy lockstep --break vote.up_to_date
        raftworthy lockstep --with all
        raftworthy lockstep --with pre_vote --with leadership_transfer --servers 2 --messages 10
    """
    from raftworthy.explore.bounds import UnusableError
    from raftworthy.explore.cases import with_extensions
    from raftworthy.lockstep import lockstep, render, usual_bounds

    wanted: dict[str, Any] = {
        "servers": servers, "max_term": terms, "max_log": log, "commands": commands, "crashes": crashes,
        "entries": entries, "max_messages": messages, "changes": changes, "requests": requests,
        "clients": clients, "max_time": max_time, "reads": reads, "snapshots": snapshots,
    }  # fmt: skip
    try:
        bounds = usual_bounds(with_extensions(with_, None))
        bounds = replace(bounds, **{name: n for name, n in wanted.items() if n is not None})
        with progress_bar("lockstep", "states") as progress:
            result = lockstep(bounds, broken=broken, progress=lambda p: progress(p.distinct, None))
    except UnusableError as error:
        return fail(str(error), json)
    if json:
        print_json(result.as_data())
    else:
        print(render(result))
    return result.exit_code
