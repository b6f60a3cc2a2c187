"""Copy a contestant's output into its log, up to a size limit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO

from harness.base import disk
from harness.base.errors import Violation


class LogPump(threading.Thread):
    """Reads `stream` to its end and writes at most `max_bytes` of it to `log`; the rest is dropped.

    It continues to read after the limit, because a contestant whose output nobody reads would block.
    """

    def __init__(self, stream: IO[bytes], log: Path, max_bytes: int) -> None:
        super().__init__(daemon=True, name="log pump")
        self.stream, self.log, self.max_bytes = stream, log, max_bytes
        self.truncated = False
        self.write_error: OSError | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)

    def run(self) -> None:
        try:
            with self.log.open("wb", buffering=0) as log:
                self._pump(log)
        except OSError as error:  # `check` reports it: without a reader the contestant would seem to stall
            self.write_error = error

    def _pump(self, log: IO[bytes]) -> None:
        remaining = self.max_bytes
        while piece := self.stream.read(65_536):
            if remaining > 0:
                log.write(piece[:remaining])
            remaining -= len(piece)
            self.truncated = self.truncated or remaining < 0

    def check(self) -> None:
        """Raises MachineFault if the log could not be written, Violation if the contestant wrote too much."""
        if self.write_error is not None:
            raise disk.machine_fault(self.write_error, self.log, "the log cannot be written")
        if self.truncated:
            raise Violation(
                "log",
                f"the contestant wrote more than {self.max_bytes} bytes to its log",
                limit=True,
                hint="progress belongs in progress frames",
            )
