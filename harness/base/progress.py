"""Show progress on stderr: bars with times on a terminal, else a line where a stage begins, ends or is long.

A command that knows its stages announces them with `plan`; then the place of each stage, and the time of the
whole, are shown too. stdout is for results only, and where it is no terminal there are no bars. What a
contestant reports as its progress is shown and never used as evidence.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from harness.base.text import plain_lines
from harness.base.timing import StagePlan, seconds_left, times

ProgressCallback = Callable[[float, str], None]
"""Called with the fraction done (0..1) and a short text."""
Clock = Callable[[], float]
"""Returns seconds that never go back, such as `time.monotonic`."""
LINE_SECONDS = 30.0
"""Without bars, a stage under way gets a line no more often than this."""
MAX_NOTE = 60
"""Characters shown of a contestant's progress text."""


def no_progress(fraction: float, text: str) -> None:
    """A ProgressCallback that shows nothing."""


@dataclass
class _Stage:
    """A stage under way; times are those of the display's clock."""

    title: str
    began: float
    said: float
    """When the last line about it was printed."""
    fraction: float = 0.0


class ProgressDisplay:
    """The bars and messages of one command; use it as a context manager."""

    def __init__(self, clock: Clock = time.monotonic, console: Console | None = None) -> None:
        self.clock = clock
        self.console = console or Console(stderr=True, highlight=False)
        self.interactive = self.console.is_terminal and sys.stdout.isatty()
        self.bars = _Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            _Times(),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=self.console,
            disable=not self.interactive,
            expand=True,
            transient=True,
        )
        self.planned: StagePlan | None = None

    def __enter__(self) -> ProgressDisplay:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def plan(self, titles: Sequence[str]) -> None:
        """Announce the stages to come, by their titles; replaces an earlier plan."""
        self.planned = StagePlan(titles, self.clock())

    @contextmanager
    def stage(self, title: str) -> Iterator[ProgressCallback]:
        """A bar or lines for one stage; yields the callback that moves it. Text is shown without markup."""
        now = self.clock()
        stage = _Stage(title, began=now, said=now)
        self.bars.last_line = lambda: self._whole(stage)
        task = self.bars.add_task(title, total=1.0, note="", times=lambda: self._times(stage))
        if not self.interactive:
            self._say_with_whole(stage, f"{title} ...")

        def report(fraction: float, text: str) -> None:
            stage.fraction = min(max(fraction, 0.0), 1.0)
            self.bars.update(task, completed=stage.fraction, note=_printable(text))
            if not self.interactive and self.clock() - stage.said >= LINE_SECONDS:
                stage.said = self.clock()
                self._say_with_whole(stage, f"{title}: {stage.fraction:.0%}, {self._times(stage)}")

        ended = "stopped after "
        try:
            yield report
            ended = ""
        finally:
            self.bars.remove_task(task)
            self.bars.last_line = lambda: ""
            seconds = self.clock() - stage.began
            if self.planned and not ended:
                self.planned.end(title, seconds)
            self.say(f"{title}: {ended}{seconds:.1f} s")

    def say(self, text: str) -> None:
        """Print one message, without markup."""
        self.console.print(Text(plain_lines(text)), soft_wrap=True)

    def _times(self, stage: _Stage) -> str:
        elapsed = self.clock() - stage.began
        return times(elapsed, seconds_left(elapsed, stage.fraction))

    def _whole(self, stage: _Stage) -> str:
        """`stage 4 of 12, 1:20 elapsed, about 5:30 left`; empty for a stage that is not planned."""
        if not self.planned or stage.title not in self.planned.titles:
            return ""
        now = self.clock()
        left = self.planned.left(stage.title, now - stage.began, stage.fraction)
        return f"{self.planned.place(stage.title)}, {times(now - self.planned.began, left)}"

    def _say_with_whole(self, stage: _Stage, text: str) -> None:
        whole = self._whole(stage)
        self.say(f"{text} ({whole})" if whole else text)


class _Bars(Progress):
    """A bar for each task, and below them one line."""

    last_line: Callable[[], str] = staticmethod(lambda: "")

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if line := self.last_line():
            yield Text(line)


class _Times(ProgressColumn):
    """What elapsed and what is left, as the task's field `times` tells it now."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["times"]())


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:MAX_NOTE]
