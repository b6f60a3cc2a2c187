"""Progress for people, on stderr: a bar for whatever runs; nothing but lines where stdout or stderr is no
terminal.

stdout is for results alone. Not covered: evidence; what a contestant says of its progress is only shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress as Bars, SpinnerColumn, TextColumn, TimeElapsedColumn

ProgressCallback = Callable[[float, str], None]
"""Called with the fraction done (0..1) and a short text."""


def no_progress(fraction: float, text: str) -> None:
    """For callers who watch nothing."""


class ProgressDisplay:
    """Bars and messages of one command; to be used as a context."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.watched = self.console.is_terminal and sys.stdout.isatty()
        self.bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.watched,
        )

    def __enter__(self) -> ProgressDisplay:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    @contextmanager
    def stage(self, title: str) -> Iterator[ProgressCallback]:
        """A bar that takes (fraction in 0..1, short text); what a contestant wrote is shown without
        markup."""
        task = self.bars.add_task(escape(title), total=1.0, note="")
        if not self.watched:
            self.say(f"{title} ...")
        yield lambda fraction, text: self.bars.update(task, completed=fraction, note=_printable(text))
        self.bars.update(task, completed=1.0)

    def say(self, text: str) -> None:
        """One message for people."""
        self.console.print(escape(text), soft_wrap=True)


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:60]
