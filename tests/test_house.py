"""The rules of the house that a machine can check: who imports whom, what documents name, what help says."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App

from raftd.faults import BREAKS
from raftd.killing import KILL_POINTS
from raftd.serve import _parser as server_options
from raftd.simulated_faults import FAULT_NAMES
from raftspec.extensions import WHOLE
from raftspec.properties import raft
from raftworthy.cli import app
from raftworthy.schema import schema

ROOT = Path(__file__).parent.parent
PACKAGES = {"raftspec": ROOT / "spec", "raftd": ROOT / "impl", "raftworthy": ROOT / "checker"}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

# docs/architecture.md: these need a server to work on. What checks traces knows a server by its trace only.
SEE_THE_SERVER = {
    "campaign",
    "cli",
    "demo",
    "lockstep",
    "measure",
    "measure_clients",
    "measure_holes",
    "measure_bugs",
    "measure_byzantine",
    "measure_reads",
    "measure_server",
    "measure_timing",
    "torture",
}

# Written with a dot like a rule, and none.
FILE_ENDINGS = ("py", "md", "toml", "json", "ndjson", "txt", "gz", "zst")


# --- arrows ------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, within functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add((node.module or "").partition(".")[0])
    return found


def modules(package: str) -> Iterator[Path]:
    yield from sorted((PACKAGES[package] / package).rglob("*.py"))


def test_the_specification_stands_on_the_standard_library_alone() -> None:
    for path in modules("raftspec"):
        others = imported(path) - {"raftspec"} - set(sys.stdlib_module_names)
        assert not others, f"{path} imports {others}"


def test_the_server_never_sees_the_specification_or_the_checker() -> None:
    """Otherwise the checker would compare a thing with itself."""
    for path in modules("raftd"):
        assert not imported(path) & {"raftspec", "raftworthy"}, path


def test_what_checks_traces_never_sees_the_server() -> None:
    """Anybody's server is on the same footing as ours."""
    for path in modules("raftworthy"):
        if (
            path.relative_to(PACKAGES["raftworthy"] / "raftworthy").parts[0].removesuffix(".py")
            not in SEE_THE_SERVER
        ):
            assert "raftd" not in imported(path), path


# --- the command line --------------------------------------------------------


def commands(of: App, above: str = "raftworthy") -> Iterator[tuple[str, App]]:
    """All commands that do something, by their full names."""
    for name in of:
        if not name.startswith("-"):
            if of[name].default_command is not None:
                yield f"{above} {name}", of[name]
            yield from commands(of[name], f"{above} {name}")


COMMANDS = dict(commands(app))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raftworthy", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={"PYTHONPATH": ":".join(map(str, PACKAGES.values())), "COLUMNS": "120"},
    )  # fmt: skip


def test_every_command_has_an_example_in_its_help_and_data_for_machines() -> None:
    """Also of one that prints its own help. In one process: starting Python for each takes seconds."""
    program = (
        "import sys; from raftworthy.cli import app, show_examples; show_examples(app)\n"
        "for command in sys.argv[1:]:\n"
        "    print('=====', command)\n"
        "    try: app([*command.split()[1:], '--help'])\n"
        "    except SystemExit: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *COMMANDS],
        capture_output=True, text=True, timeout=300, check=True,
        env={"PYTHONPATH": ":".join(map(str, PACKAGES.values())), "COLUMNS": "120"},
    )  # fmt: skip
    texts = done.stdout.split("===== ")[1:]
    assert len(texts) == len(COMMANDS)
    for text in texts:
        command, _, help = text.partition("\n")
        assert re.search(rf"\n?Examples?:\s+{command}\b", help), f"{command} --help has no example of itself"
        assert "--json" in help or command == "raftworthy serve", f"{command} has no data for machines"


def test_help_loads_nothing_that_it_does_not_need() -> None:
    """`raftworthy --help` is what people try first, so it must be quick."""
    program = (
        "import sys\nfrom raftworthy.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=300, check=True,
        env={"PYTHONPATH": ":".join(map(str, PACKAGES.values()))},
    )  # fmt: skip
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    heavy = {"raftd", "raftspec", "asyncio", "msgspec", "sqlite3", "z3", "networkx", "llvmlite", "numpy"}
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("replay traces/figure_8.ndjson --json", 0),
        ("replay traces/rules/vote.up_to_date.ndjson --json", 1),
        ("replay traces/unusable/no_header.ndjson --json", 2),
        ("rules --json", 0),
        ("schema --json", 0),
        ("show traces/figure_8.ndjson --json", 0),
        ("show traces/rules/vote.up_to_date.ndjson --json", 1),
        ("explore --servers 2 --max-term 1 --json", 0),
        ("explore --servers 30 --json", 2),
        ("lockstep --servers 1 --json", 0),
        ("bench replay --events 500 --json", 0),
        ("bench replay traces/rules/vote.up_to_date.ndjson --json", 2),
        ("bench conformance --seeds 1 --steps 50 --json", 0),
        ("bench detection --changes 5 --json", 0),
        ("bench explore --max-messages 2 --json", 0),
        ("put colour green --cluster n1=1 --timeout 0.2 --json", 2),
        ("get colour --cluster n1=1 --timeout 0.2 --json", 2),
        ("status --cluster n1=1 --timeout 0.2 --json", 2),
        ("simulate --steps 500 --json", 0),
    ],
)
def test_data_for_machines_is_json(arguments: str, code: int) -> None:
    done = run(*arguments.split())
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)


def test_a_failure_of_the_checker_is_no_verdict_on_the_servers() -> None:
    """Python's own exit code for an exception is 1, which would say that the traces violate."""
    program = (
        "import raftworthy.replay.verdict, sys\n"
        "def fail(*rest): raise RuntimeError('a bug of ours')\n"
        "raftworthy.replay.verdict.check = fail\n"
        "from raftworthy.cli import main\n"
        "sys.argv = ['raftworthy', 'replay', 'traces/figure_8.ndjson']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={"PYTHONPATH": ":".join(map(str, PACKAGES.values()))},
    )  # fmt: skip
    assert done.returncode == 2
    assert "a bug of ours" in done.stderr


def test_a_reader_that_stops_early_is_no_failure() -> None:
    """As in `raftworthy rules | head -1`."""
    command = f"{sys.executable} -m raftworthy rules | head -1"
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={"PYTHONPATH": ":".join(map(str, PACKAGES.values())), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert done.stderr == ""


# --- documents ---------------------------------------------------------------


def quoted(text: str) -> Iterator[str]:
    """What stands in backquotes, and the lines of shell blocks."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_commands_and_options_that_exist(path: Path) -> None:
    top = {name.split()[1] for name in COMMANDS}
    for text in quoted(path.read_text()):
        for words in re.findall(r"(?<![\w/.-])raftworthy ((?:[a-z]+ ?)*)", text):
            name = words.split()[0] if words.split() else ""
            assert not name or name in top, f"{path.name}: there is no command {name!r} ({text})"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text) if text.startswith("raftworthy ") else ():
            command = next(c for c in sorted(COMMANDS, key=len, reverse=True) if text.startswith(c))
            assert option in options(command), f"{path.name}: {command} has no option {option}"


@cache
def options(command: str) -> str:
    """All that a command's help says."""
    if command == "raftworthy serve":
        return server_options().format_help()
    return run(*command.split()[1:], "--help").stdout


def test_the_readme_has_every_command_in_its_table() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        last = command.split()[-1]
        assert f"| `{command}" in readme or f"`{last}`" in readme, f"README's table has no {command}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_files_that_exist(path: Path) -> None:
    """Links, and files with a folder in their names."""
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / link).exists(), f"{path.name} links to {link}"
    for name in quoted(text):
        for word in name.split():
            if re.match(r"(spec|impl|checker|traces|tests|docs)/", word):
                assert list(ROOT.glob(word)), f"{path.name} names {word}"
            elif re.fullmatch(r"[a-z_]+\.(py|md|toml)", word):
                assert list(ROOT.glob(f"**/{word}")), f"{path.name} names {word}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_rules_that_exist(path: Path) -> None:
    """A rule is written as two words with a dot; so are modules and fields, whose first words are others."""
    rules = {*WHOLE.rules, *BREAKS}
    families = {rule.partition(".")[0] for rule in rules}
    for name in re.findall(r"(?<![\w./])([a-z]+\.[a-z_]+)(?![\w/(])", path.read_text()):
        first, _, last = name.partition(".")
        if first in families and last not in FILE_ENDINGS:
            assert name in rules, f"{path.name} names {name}"


def test_kinds_of_rules_are_explained_where_they_are_listed() -> None:
    said = options("raftworthy rules")
    for kind in {rule.kind for rule in WHOLE.rules.values()}:
        assert f"{kind}:" in said, f"raftworthy rules --help doesn't say what {kind} means"


def test_the_trace_format_is_described_in_full() -> None:
    types = schema()["$defs"]
    of_clients = set(types.pop("ClientEvent")["properties"])
    of_servers = {name for struct in types.values() for name in struct.get("properties", ())}
    for document, names in (
        ("docs/traces.md", {*raft.actions, *of_servers - {"raftworthy"}}),
        ("docs/linearize.md", of_clients),
    ):
        text = (ROOT / document).read_text()
        for name in names:
            assert f"`{name}`" in text, f"{document} doesn't say what {name} is"


def test_the_server_is_described_in_full() -> None:
    text = (ROOT / "docs/server.md").read_text()
    for option in re.findall(r"--[a-z][a-z-]+", server_options().format_usage()):
        assert f"`{option}" in text, f"docs/server.md doesn't describe {option}"
    for name in (*KILL_POINTS, *FAULT_NAMES):
        assert f"`{name}`" in text, f"docs/server.md doesn't describe {name}"


def test_the_readme_opens_on_what_the_checker_says() -> None:
    """To bring it up to date, copy the command's output into README.md."""
    block = re.search(r"```text\n\$ raftworthy (.*)\n((?:.*\n)*?)```", (ROOT / "README.md").read_text())
    assert block is not None
    done = run(*block[1].split())
    assert done.returncode == 1, done.stderr
    assert done.stdout == block[2]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_lines_of_documents_are_not_endless(path: Path) -> None:
    """Prose only: tables, blocks and copied output are as wide as they are."""
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for line in prose.splitlines():
        assert len(line) <= 160 or line.startswith("|"), f"{path.name}: {line}"
