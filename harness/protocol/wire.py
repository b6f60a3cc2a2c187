"""The judge's end of the socket: send and receive frames and payloads under absolute deadlines.

One contestant connects once to a Unix stream socket. Every read and write has a deadline that is fixed before
it begins, so a peer that sends one byte a second or never reads cannot stall the judge. `watch` is called
several times a second; it raises when the contestant has died or exceeded a limit. See conversation.py for
what the frames mean.
"""

from __future__ import annotations

import array
import functools
import json
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.base.errors import UsageError, Violation
from harness.base.text import quote
from harness.protocol.frames import MAX_LINE, Frame, Progress, parse

PATH_LIMIT = 100
"""Bytes of a socket's path; Linux allows 107."""
POLL_SECONDS = 0.2
PROGRESS_BURST = 50
PROGRESS_PER_SECOND = 10.0
MAX_DESCRIPTORS = 200
"""In one frame; Linux allows 253."""

F = TypeVar("F", bound=Frame)


class ContestantLeft(Violation):
    """The contestant closed its end of the socket; the exit of its process may say why."""

    def __init__(self) -> None:
        super().__init__("protocol", "the contestant closed the socket in the middle of a stage")


class DeadlineExpired(Exception):
    """A deadline passed; conversation.py turns this into a violation of the clock that ran out."""


class Listener:
    """A Unix socket for one contestant; after a second connection the next read raises Violation."""

    def __init__(self, path: Path) -> None:
        if len(str(path).encode()) > PATH_LIMIT:
            raise UsageError(
                f"socket path of {len(str(path).encode())} bytes, at most {PATH_LIMIT}: {path}",
                hint="set TMPDIR to a folder with a shorter path",
            )
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        path.chmod(0o666)  # the contestant has another uid; the parent folder restricts access
        self.socket.listen(2)
        self.socket.setblocking(False)
        self.accepted: socket.socket | None = None

    def accept(self, deadline: float, watch: Callable[[], None]) -> Connection:
        """The contestant's connection. Raises DeadlineExpired at `deadline` (time.monotonic seconds)."""
        _wait(self.socket, "read", deadline, watch)
        self.accepted, _ = self.socket.accept()
        return Connection(self.accepted, watch, self.socket)

    def close(self) -> None:
        """Close the socket, and the accepted connection if there is one."""
        if self.accepted is not None:
            self.accepted.close()
        self.socket.close()
        self.path.unlink(missing_ok=True)


class Connection:
    """Frames to and from one contestant."""

    def __init__(
        self, connection: socket.socket, watch: Callable[[], None], listener: socket.socket | None = None
    ) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.watch = watch
        self.listener = listener
        self.on_progress: Callable[[Progress], None] = lambda progress: None
        self.buffer = bytearray()
        self.progress_allowance, self.progress_at = float(PROGRESS_BURST), time.monotonic()
        self.watched_at = time.monotonic()

    def send(
        self,
        frame: dict[str, Any],
        deadline: float,
        payload: bytes | memoryview = b"",
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send a frame with its payload; file descriptors travel with the frame's first byte.

        Raises DeadlineExpired, or ContestantLeft.
        """
        assert len(descriptors) <= MAX_DESCRIPTORS, f"{len(descriptors)} descriptors in one frame"
        line = json.dumps(frame, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        assert len(line) <= MAX_LINE, f"frame {frame.get('op')} of {len(line)} bytes"
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
            _wait(self.socket, "write", deadline, self.watch)
            self._guard(lambda: self.socket.sendmsg([line[:1]], ancillary))
            line = line[1:]
        self._send_all(line, deadline)
        self._send_all(payload, deadline)

    def receive(self, deadline: float, *expected: type[F]) -> F:
        """The next frame, which must be one of `expected`; progress frames before it go to `on_progress`."""
        while True:
            frame = parse(self._line(deadline), (*expected, Progress))
            if not isinstance(frame, Progress) or Progress in expected:
                return frame  # type: ignore[return-value]
            self._limit_progress_rate()
            self.on_progress(frame)

    def payload(self, n_bytes: int, declared: int, what: str, deadline: float) -> bytes:
        """Exactly `n_bytes` raw bytes. Raises Violation if the frame `declared` another number."""
        if declared != n_bytes:
            raise Violation(
                "protocol",
                f"{what}: expected a payload of {n_bytes} bytes, the frame declares {declared}",
                hint="float32 numbers, one a token; docs/protocol.md gives the sizes",
            )
        while len(self.buffer) < n_bytes:
            self._fill(deadline, n_bytes - len(self.buffer))
        taken = bytes(self.buffer[:n_bytes])
        del self.buffer[:n_bytes]
        return taken

    def close(self) -> None:
        self.socket.close()

    def _line(self, deadline: float) -> bytes:
        searched = 0
        while (end := self.buffer.find(b"\n", searched)) < 0:
            if len(self.buffer) >= MAX_LINE:
                raise Violation(
                    "protocol",
                    f"a line of more than {MAX_LINE} bytes: {quote(bytes(self.buffer[:200]))}",
                    hint="raw numbers follow a frame as its payload, not inside it",
                )
            searched = len(self.buffer)
            self._fill(deadline, MAX_LINE - searched)
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line

    def _fill(self, deadline: float, limit: int) -> None:
        self._watch_when_due()
        _wait(self.socket, "read", deadline, self.watch)
        received = self._guard(lambda: self.socket.recv(min(limit, 1 << 20)))
        if not received:
            raise ContestantLeft
        self.buffer += received
        if self.listener is not None and select.select([self.listener], [], [], 0)[0]:
            raise Violation("protocol", "a second connection to the socket", hint="rank 0 connects, once")

    def _send_all(self, data: bytes | memoryview, deadline: float) -> None:
        view = memoryview(data)
        while len(view):
            self._watch_when_due()
            _wait(self.socket, "write", deadline, self.watch)
            piece = view[: 1 << 20]
            view = view[self._guard(functools.partial(self.socket.send, piece)) :]

    def _watch_when_due(self) -> None:
        """Call `watch` every POLL_SECONDS even if the socket is always ready and `_wait` never calls it."""
        if time.monotonic() - self.watched_at >= POLL_SECONDS:
            self.watched_at = time.monotonic()
            _call_watch(self.socket, self.watch)

    def _guard(self, operation: Callable[[], Any]) -> Any:
        try:
            return operation()
        except (BrokenPipeError, ConnectionError) as error:
            raise ContestantLeft from error

    def _limit_progress_rate(self) -> None:
        now = time.monotonic()
        self.progress_allowance = (
            min(PROGRESS_BURST, self.progress_allowance + (now - self.progress_at) * PROGRESS_PER_SECOND) - 1
        )
        self.progress_at = now
        if self.progress_allowance < 0:
            raise Violation("protocol", "progress frames flood the socket", hint="at most ten a second")


def _wait(sock: socket.socket, direction: str, deadline: float, watch: Callable[[], None]) -> None:
    """Wait until `sock` is ready. Raises DeadlineExpired at `deadline`, or whatever `watch` raises."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExpired
        readers, writers = ([sock], []) if direction == "read" else ([], [sock])
        ready = select.select(readers, writers, [], min(left, POLL_SECONDS))
        if ready[0] or ready[1]:
            return
        _call_watch(sock, watch)


def _call_watch(sock: socket.socket, watch: Callable[[], None]) -> None:
    """Call `watch`, but ignore the contestant's exit while there is still data from it to read."""
    try:
        watch()
    except Violation as violation:
        if violation.rule != "contestant" or not select.select([sock], [], [], 0)[0]:
            raise
