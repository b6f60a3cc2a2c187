"""Show progress on stderr: one bar for each stage, or plain lines where stdout or stderr is no terminal.

stdout is for results only. What a contestant reports as its progress is shown and never used as evidence.
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
    """A ProgressCallback that shows nothing."""


class ProgressDisplay:
    """The bars and messages of one command; use it as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.interactive = self.console.is_terminal and sys.stdout.isatty()
        self.bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.interactive,
        )

    def __enter__(self) -> ProgressDisplay:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    @contextmanager
    def stage(self, title: str) -> Iterator[ProgressCallback]:
        """A bar for one stage; yields the callback that moves it. Text is shown without markup."""
        task = self.bars.add_task(escape(title), total=1.0, note="")
        if not self.interactive:
            self.say(f"{title} ...")
        yield lambda fraction, text: self.bars.update(task, completed=fraction, note=_printable(text))
        self.bars.update(task, completed=1.0)

    def say(self, text: str) -> None:
        """Print one message, without markup."""
        self.console.print(escape(text), soft_wrap=True)


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:60]
