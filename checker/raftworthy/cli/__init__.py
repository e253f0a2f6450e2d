"""The command line. Each command imports what it needs, so that `raftworthy --help` is quick."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["HOMES", "app", "load", "main", "show_examples"]

# Which module adds which commands. Of `bench` there are some in several.
HOMES = {
    "asking": ("ask",),
    "checking": ("replay", "show", "rules", "schema"),
    "exploring": ("explore", "why", "live", "lockstep"),
    "exporting": ("export",),
    "linearizing": ("linearize",),
    "managing": ("members",),
    "measuring": ("demo", "torture"),
    "proving": ("prove",),
    "serving": ("serve", "put", "get", "transfer", "status", "simulate"),
    "simulating": ("campaign",),
}


def load(words: Sequence[str] = ()) -> App:
    """The commands: all, or only those beside the one that the words name."""
    from raftworthy.cli.common import app

    named = [home for home, commands in HOMES.items() if words and words[0] in commands]
    for home in named or HOMES:
        import_module(f"raftworthy.cli.{home}")
    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return load()
    raise AttributeError(name)


def show_examples(commands: App) -> None:
    """Put each command's examples into its help: cyclopts takes them for notes and leaves them out."""
    import inspect

    for name in commands:
        if name.startswith("-"):
            continue
        command = commands[name]
        _, mark, examples = (inspect.getdoc(command.default_command) or "").partition("\nExample")
        if mark:
            command.help_epilogue = "Example" + examples
        show_examples(command)


def main() -> None:
    """The command `raftworthy`."""
    from raftworthy.cli.common import UNUSABLE, fail, reason

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # signs that a terminal doesn't know come out as ?
            stream.reconfigure(errors="replace")
    if os.environ.get("COLUMNS") == "0":  # "unknown" to some terminals, and to rich a width
        del os.environ["COLUMNS"]
    app = load(sys.argv[1:])
    show_examples(app)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        # Python's own exit code is 1, and would say that the servers violate.
        if isinstance(error, OSError) or type(error).__name__ in ("Unusable", "UnusableError"):
            sys.exit(fail(reason(error) if isinstance(error, OSError) else str(error)))
        import traceback

        traceback.print_exc()
        print("error: a bug in raftworthy; nothing is said about the servers", file=sys.stderr)
        sys.exit(UNUSABLE)
