"""Answers of `why` as text, as rows of a table, as a page of the documentation, and as data.

A step's sentence is its action's own, from the specification, with the names filled in.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.text import Text

from raftspec.extensions import EXTENSIONS, WHOLE
from raftworthy.diagram import changes, explain, shown
from raftworthy.explore.broken_steps import Counterexample, title
from raftworthy.explore.broken_steps import as_data as step_data
from raftworthy.explore.broken_steps import table as step_table
from raftworthy.explore.needless import LIVELOCKS
from raftworthy.explore.paths import Move, Path
from raftworthy.explore.running import as_data
from raftworthy.explore.unkept import extensions_of
from raftworthy.explore.why import Answer, Disaster, Prevented
from raftworthy.generated import World

FIRST = re.compile(r"^(.*?)[.;](?= |$)")
COMMAND = "raftworthy why"

# --- steps as sentences ------------------------------------------------------


def sentence(move: Move, before: World) -> str:
    """What a step does, in the specification's words, and what came of it."""
    action = WHOLE.actions[move.action]
    i = move.server
    values = dict(zip(action.params, map(_said, move.params), strict=False))

    def filled(match: re.Match[str]) -> str:
        name, _, field = match[0].partition(".")
        return str(getattr(move.message, field)) if field else values[name]

    words = "|".join([*action.params, *(f"{p}\\.\\w+" for p in action.params if action.message)][::-1])
    first = FIRST.match(" ".join(action.doc.split()))
    assert first is not None, f"{move.action} has no sentence"
    text = re.sub(rf"\b({words})\b", filled, first[1].replace("`", ""))
    role = before.variables[i].role.capitalize()
    # Without a rule it may be somebody else who acts.
    text = re.sub(rf"^(Leader|Candidate|Server) (?={re.escape(i)}\b)", f"{role} ", text)
    became = [shown(changes(before.variables[i], move.world.variables[i]))]
    became += [
        f"{f} {'true' if getattr(m, f) else 'false'}"
        for m in move.sent
        for f in m.__struct_fields__
        if isinstance(getattr(m, f), bool)
    ]
    outcome = ", ".join(filter(None, became)) or ("" if move.sent else "nothing changes")
    return f"{text}: {plain(outcome)}." if outcome else f"{text}."


def _said(param: Any) -> str:
    return " and ".join(sorted(param)) if isinstance(param, frozenset) else str(param)


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def sentences(path: Path) -> list[str]:
    """A sentence for each step."""
    return [sentence(move, before) for move, before in zip(path.moves, path.worlds(), strict=False)]


# --- an answer ---------------------------------------------------------------


def section(text: str) -> str:
    return text if text.startswith("Figure") else f"section {text}"


def headline(a: Answer) -> str:
    if a.mutant is not None:
        return f"{a.name}, {a.mutant.source}: {a.mutant.story}"
    assert a.rule is not None
    return f"{a.name} ({section(a.rule.section)}), {a.rule.kind}: {a.rule.why}"


def found(a: Answer) -> str:
    """What came of it, in a sentence or two."""
    missing = "with this bug" if a.mutant else "without it"
    match a:
        case Answer(disaster=Disaster() as d):
            begun = "" if not d.beginning else f", of which {d.beginning} are the beginning {d.case.start}"
            return (
                f"{missing}, {d.property} is violated after {_steps(len(d.path))}{begun}; "
                f"no fewer do within {d.case.bounds}"
            )
        case Answer(waits=w) if w is not None:
            return (
                f"{missing} nothing goes wrong, but something never happens: {w.wait.what}. "
                f"Otherwise that takes {_steps(w.steps)}. "
                f"All {w.distinct:,} states were explored: {w.wait.case.bounds}"
                + (f". {a.mutant.harmless.rstrip('.')}" if a.mutant else "")
            )
        case Answer(needless=n) if n is not None:
            parts = [
                f"{e.distinct:,} states, the same number as with it ({e.bounds})"
                if e.with_rule
                else f"{e.distinct:,} states ({e.bounds})"
                for e in a.explored
            ]
            return f"{missing} nothing goes wrong: {n.why} Explored to the end: {'; '.join(parts)}"
    return f"{missing} nothing was found: undecided"


def livelock(a: Answer) -> str:
    """How to see the livelock that comes of it, if one is known."""
    if a.name not in LIVELOCKS:
        return ""
    option = "mutant" if a.mutant else "without"
    missing = "With this bug" if a.mutant else "Without it"
    command = f"raftworthy live --alone some --{option} {a.name}"
    return f"{missing} a command may never be decided: `{command}` shows it."


def unkept(a: Answer, c: Counterexample) -> str:
    """What fails first where the safety of Raft is proved by induction."""
    missing = "With this bug" if a.mutant else "Without it"
    return (
        f"{missing} the proof for any number of servers fails first at {c.question.action} / "
        f"{title(c.question.claim)}: there is a state in which the whole invariant holds, which need not be "
        f"reachable, and a step that leaves it."
    )


def proving(a: Answer) -> str:
    """The command that asks Z3 for what fails first."""
    extensions = extensions_of(a.name) if a.rule else ()
    words = [*(f"--with {x}" for x in extensions), f"--{'mutant' if a.mutant else 'without'} {a.name}"]
    return f"raftworthy prove {' '.join(words)}"


def _steps(n: int) -> str:
    return "1 step" if n == 1 else f"{n} steps"


def prevention_told(p: Prevented, a: Answer) -> str:
    """Which step the rule prevents, and how."""
    with_it = "Without the bug" if a.mutant else "With the rule"
    if p.refused:
        return f"{with_it}, step {p.step} is refused: {p.refused}."
    return f"{with_it}, step {p.step} comes out otherwise: {'; '.join(p.instead)}."


def as_text(a: Answer, width: int) -> Text:
    """The whole answer, with a diagram if there is a path."""
    out = Text()
    out.append(_filled(headline(a), width), "bold")
    out.append(_filled(_capital(found(a)) + ".", width))
    if told := livelock(a):
        out.append(_filled(told, width))
    if a.disaster:
        _draw(a, a.disaster, width, out)
    if c := a.unkept:
        out.append("\n" + _filled(unkept(a, c), width))
        out.append(f"\n{step_table(c, width)}\n\nTo ask Z3 again: {proving(a)}\n")
    return out


def _draw(a: Answer, d: Disaster, width: int, out: Text) -> None:
    """The way to a disaster as a diagram, then in sentences."""
    marked = [f"▶{k}" if k == d.prevented.step else str(k) for k in range(1, len(d.path) + 1)]
    out.append("\n")
    out.append_text(explain(d.path, WHOLE.properties[d.property], a.without, width, marked))
    out.append("\nstep by step:\n", "bold")
    for number, text in zip(marked, sentences(d.path), strict=True):
        lines = textwrap.wrap(text, width - 6, break_on_hyphens=False)
        out.append(f"{number:>4}  " + "\n      ".join(lines) + "\n", "red" if "▶" in number else "")
    out.append(_filled(prevention_told(d.prevented, a), width), "bold")


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def answer_data(a: Answer) -> dict[str, Any]:
    """An answer for machines."""
    data: dict[str, Any] = {"name": a.name, "found": found(a), "decided": a.decided}
    if a.rule:
        data |= {"kind": a.rule.kind, "section": a.rule.section, "why": a.rule.why}
    if a.mutant:
        data |= {"source": a.mutant.source, "story": a.mutant.story}
    if a.disaster:
        d = a.disaster
        exploration = as_data(d.result)
        steps = [step | {"says": s} for step, s in zip(exploration["path"], sentences(d.path), strict=True)]
        prevented = d.prevented
        data |= exploration | {
            "path": steps,
            "begin": d.case.start,
            "beginning": d.beginning,
            "prevented": {
                "step": prevented.step,
                "refused": prevented.refused or None,
                "instead": list(prevented.instead),
            },
        }
    elif a.waits:
        w = a.waits
        data |= {
            "never": w.wait.what,
            "find": w.wait.good,
            "begin": w.wait.case.start,
            "distinct": w.distinct,
        }
    if a.name in LIVELOCKS:
        data["livelock"] = livelock(a)
    if a.unkept:
        data["induction"] = step_data(a.unkept)
    data["explored"] = [
        {"bounds": str(e.bounds), "distinct": e.distinct, "with_rule": e.with_rule} for e in a.explored
    ]
    return data


# --- all answers -------------------------------------------------------------


def rows(answers: Iterable[Answer]) -> Iterator[tuple[str, ...]]:
    """A row for each: name, section or source, kind, what breaks, how many steps, which is prevented."""
    for a in answers:
        kind = a.rule.kind if a.rule else "bug"
        where = a.rule.section if a.rule else a.mutant.source if a.mutant else ""
        d = a.disaster
        if d:
            yield a.name, where, kind, d.property, str(len(d.path)), str(d.prevented.step)
        elif a.waits:
            yield a.name, where, kind, f"never: {a.waits.wait.what}", "", ""
        elif a.explored:
            same = all(e.with_rule for e in a.explored)
            yield a.name, where, kind, "nothing; the same states" if same else "nothing", "", ""
        else:
            yield a.name, where, kind, "undecided", "", ""


HEAD = ("rule", "section", "kind", "breaks", "steps", "prevented at")


def table(answers: Iterable[Answer]) -> str:
    """The rows, in columns."""
    lines = [HEAD, *rows(answers)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


PAGE = """\
# Why each rule of Raft is there

What goes wrong without it, found by exploring the specification without it: the shortest way to where
a property is violated. `{command} RULE` draws it. Within the bounds named, no shorter way exists after the
beginning named; beginnings are walks as in the paper's figures (`explore/cases.py`). "Prevented at" is the
first step that comes out otherwise with the rule.

This page is generated: `{command} --all{asked}`.

{table}
"""


def page(answers: Iterable[Answer], extensions: Sequence[str] = ()) -> str:
    """All answers as a page of the documentation: of Figure 2's rules, or of those of extensions."""
    answers = list(answers)
    cells = [HEAD, ("---",) * len(HEAD), *((f"[{r[0]}](#{_anchor(r[0])})", *r[1:]) for r in rows(answers))]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    every = len(extensions) == len(EXTENSIONS)
    asked = (
        "".join(f" --with {name}" for name in (["all"] if every else extensions)) + " --markdown > docs/why"
    )
    asked += "_extensions.md" if extensions else ".md"
    return PAGE.format(command=COMMAND, asked=asked, table="\n".join(lines)) + "".join(map(_chapter, answers))


def _anchor(name: str) -> str:
    return name.replace(".", "").lower()


def _chapter(a: Answer) -> str:
    """An answer's chapter: the path in sentences, the beginning's too."""
    assert a.rule is not None
    parts = [
        f"\n## {a.name}\n",
        _paragraph(f"{_capital(section(a.rule.section))}, {a.rule.kind}. {a.rule.why}"),
    ]
    parts.append(_paragraph(_capital(found(a)) + "."))
    if told := livelock(a):
        parts.append(_paragraph(told))
    if a.disaster:
        d = a.disaster
        said = [
            textwrap.fill(f"{k}. {text}", PROSE, subsequent_indent="   ", break_on_hyphens=False)
            for k, text in enumerate(sentences(d.path), 1)
        ]
        doc = " ".join(WHOLE.properties[d.property].doc.split())
        parts.append("\n".join(said) + "\n")
        parts.append(_paragraph(f"Then `{d.property}` fails: {doc} **{prevention_told(d.prevented, a)}**"))
    if c := a.unkept:
        parts.append(_paragraph(f"{unkept(a, c)} `{proving(a)}`:"))
        parts.append(f"```text\n{step_table(c, PROSE)}\n```\n")
    return "\n".join(parts)


PROSE = 120


def _paragraph(text: str) -> str:
    return textwrap.fill(text, PROSE, break_on_hyphens=False) + "\n"
