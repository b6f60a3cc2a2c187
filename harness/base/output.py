"""Standard streams that cannot change a command's exit code.

A reader that leaves early (`pgolf ... | head -1`) and a terminal that cannot show a letter say nothing about
a submission: what nobody reads is dropped, what cannot be encoded is escaped. A stdout that fails otherwise
(a full disk behind `> FILE`) is a machine fault, because the result is lost. A failing stderr is ignored:
there is no place left to report it.

Not covered: what contestants and other child processes write.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from harness.base.errors import MachineFault


def protect_streams() -> None:
    """Replace sys.stdout and sys.stderr; consoles that are made later print to the new ones."""
    sys.stdout = _protected(sys.stdout, required=True)
    sys.stderr = _protected(sys.stderr, required=False)


def _protected(stream: TextIO | None, required: bool) -> TextIO:
    """The same destination, with escapes and without broken pipes; the null device for a closed stream."""
    if stream is None:
        return open(os.devnull, "w")
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(stream.fileno(), required)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.isatty() or not required,
    )


class _Descriptor(io.FileIO):
    """An open file descriptor; after a failed write it accepts everything and writes nothing."""

    def __init__(self, descriptor: int, required: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.required = required
        self.failed = False

    def write(self, data: Any, /) -> int:
        """The number of bytes that were written or dropped.

        Raises MachineFault where a required stream fails for another reason than a reader that left.
        """
        n_bytes = memoryview(data).nbytes
        if self.failed:
            return n_bytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self.failed = True
        except OSError as error:
            self.failed = True
            if self.required:
                raise MachineFault(
                    f"stdout: cannot be written ({error.strerror})",
                    hint="send it elsewhere and repeat the command: what is finished is not run again",
                ) from error
        return n_bytes
