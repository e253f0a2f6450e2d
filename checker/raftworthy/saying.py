"""Words for a terminal or a file, without rich: to load that takes a tenth of what a small question may take.

What is drawn, such as a path, is drawn by rich.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

COLOURS = {"bold red": "1;31", "bold green": "1;32", "yellow": "33"}


class Sayer(Protocol):
    """Who prints lines: this module, or a console of rich's."""

    def print(self, *objects: Any, style: Any = None, markup: Any = None, highlight: Any = None) -> None:
        """Print a line."""


class Plain:
    """Prints as it is told, a verdict in its colour if somebody sees it."""

    def print(self, *objects: Any, style: Any = None, markup: Any = None, highlight: Any = None) -> None:
        """Print a line."""
        text = " ".join(map(str, objects))
        seen = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        print(f"\x1b[{COLOURS[style]}m{text}\x1b[0m" if style and seen else text)
