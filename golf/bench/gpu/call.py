"""Run the rows of a call, one after another: each under its deadline, each on record as soon as it ends.

A row that raises has failed. A row whose process is late has failed and the process is killed; rows that
need that process are skipped. Nothing stops the whole call.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from golf.bench.gpu.results import Failed, Found, Journal, Row, Skipped
from golf.bench.gpu.timetable import Timetable
from golf.bench.gpu.worker import Work, Worker
from golf.bench.interleaved import to_stderr

Run = Callable[[float], Found]
"""A row: gets the seconds that it may take."""


class Call:
    """The timetable, the journal and the processes of a call. Leaving its context ends every process."""

    def __init__(self, timetable: Timetable, journal: Journal, logs: Path) -> None:
        """`logs`: where the output of every process goes."""
        self.timetable, self.journal, self.logs, self.stack = timetable, journal, logs, ExitStack()
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def worker(self, name: str, work: Work, *arguments: object) -> Worker:
        """Start the process of a model; its output goes to NAME.log."""
        worker = Worker(name, work, arguments, self.logs / f"{name}.log")
        self.stack.callback(worker.close)
        return worker

    def found(self, name: str, number: str) -> float | None:
        """A number that a row has found; None if it has not."""
        rows = [row for row in self.journal.rows if row.name == name]
        return rows[-1].numbers.get(number) if rows else None

    def finish(self) -> None:
        """Put the rows that never began on record as skipped."""
        begun = {row.name for row in self.journal.rows}
        for entry in self.timetable.entries:
            if entry.name not in begun:
                self._keep(entry.name, "skipped", Found("the call ended before"), self.timetable.now())

    def row(self, name: str, run: Run) -> None:
        """Run a row and keep what it found."""
        timetable = self.timetable
        began = timetable.now()
        if refusal := timetable.refusal(name):
            return self._keep(name, "skipped", Found(refusal), began)
        to_stderr(f"{began:6.1f} s  {name} ...")
        return self._keep(name, *_outcome(run, timetable.left(name)), began)

    def _keep(self, name: str, outcome: str, found: Found, began: float) -> None:
        ended, decides = self.timetable.now(), self.timetable.entry(name).decides
        self.journal.add(Row(name, outcome, found.seen, found.numbers, ended - began, ended, decides))
        to_stderr(f"{ended:6.1f} s  {name}: {outcome}, {found.seen}")


def _outcome(run: Run, seconds: float) -> tuple[str, Found]:
    """Run a row: its outcome and what it found, or the first line of its error."""
    try:
        return "ok", run(seconds)
    except Skipped as reason:
        return "skipped", Found(str(reason))
    except Exception as error:
        if isinstance(error, Failed):
            return "failed", Found(str(error))
        traceback.print_exc()
        return "failed", Found(f"{type(error).__name__}: {str(error).split(chr(10))[0]}")
