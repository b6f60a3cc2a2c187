"""The judge's end of the socket: frames and payloads under absolute deadlines, in both directions.

One contestant connects once to a Unix stream socket. Every read and write ends at a deadline that was fixed
before it began, so one byte a second and a peer that never reads both run out; `watch` is called several
times a second, and raises when the contestant died or took more than its share. Not covered: the meaning of
frames (referee.py)."""

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
POLL_SECONDS = 0.2
PROGRESS_BURST = 50
PROGRESS_PER_SECOND = 10.0
MAX_DESCRIPTORS = 200

F = TypeVar("F", bound=Frame)


class ContestantLeft(Violation):
    """The contestant closed its end; how its process ended may say why."""

    def __init__(self) -> None:
        super().__init__(
            "protocol",
            "the contestant closed the socket in the middle of a stage",
            hint="its log (train.log, pack.log, score.log in the run folder) ends with the reason",
        )


class DeadlineExpired(Exception):
    """A deadline passed; the referee turns it into the finding of the clock that ran out."""


class Listener:
    """A Unix socket that waits for one contestant; connecting twice is a violation, seen at the next
    frame."""

    def __init__(self, path: Path) -> None:
        if len(str(path).encode()) > PATH_LIMIT:
            raise UsageError(
                f"socket path of {len(str(path).encode())} bytes, at most {PATH_LIMIT}: {path}",
                hint="set TMPDIR to a folder with a shorter path",
            )
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        path.chmod(0o666)  # the contestant runs as another user; the folder above is the fence
        self.socket.listen(2)
        self.socket.setblocking(False)
        self.accepted: socket.socket | None = None

    def accept(self, deadline: float, watch: Callable[[], None]) -> Connection:
        """The contestant's connection. Raises Expired at `deadline` (time.monotonic seconds)."""
        _wait(self.socket, "read", deadline, watch)
        self.accepted, _ = self.socket.accept()
        return Connection(self.accepted, watch, self.socket)

    def close(self) -> None:
        """Ends the conversation too, if there is one."""
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
        """One frame, its payload, and descriptors on its first byte. Raises Expired, or Violation if the peer
        left."""
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
        """The next frame, which must be one of `expected`; progress frames on the way go to `on_progress`."""
        while True:
            frame = parse(self._line(deadline), (*expected, Progress))
            if not isinstance(frame, Progress) or Progress in expected:
                return frame  # type: ignore[return-value]
            self._ration_progress()
            self.on_progress(frame)

    def payload(self, n_bytes: int, declared: int, what: str, deadline: float) -> bytes:
        """Exactly `n_bytes` raw bytes, the count that both sides knew beforehand."""
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
        self._watch_now_and_then()
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
            self._watch_now_and_then()
            _wait(self.socket, "write", deadline, self.watch)
            piece = view[: 1 << 20]
            view = view[self._guard(functools.partial(self.socket.send, piece)) :]

    def _watch_now_and_then(self) -> None:
        """A contestant that talks without a pause is watched as well as a silent one."""
        if time.monotonic() - self.watched_at >= POLL_SECONDS:
            self.watched_at = time.monotonic()
            _call_watch(self.socket, self.watch)

    def _guard(self, operation: Callable[[], Any]) -> Any:
        try:
            return operation()
        except (BrokenPipeError, ConnectionError) as error:
            raise ContestantLeft from error

    def _ration_progress(self) -> None:
        now = time.monotonic()
        self.progress_allowance = (
            min(PROGRESS_BURST, self.progress_allowance + (now - self.progress_at) * PROGRESS_PER_SECOND) - 1
        )
        self.progress_at = now
        if self.progress_allowance < 0:
            raise Violation("protocol", "progress frames flood the socket", hint="at most ten a second")


def _wait(sock: socket.socket, direction: str, deadline: float, watch: Callable[[], None]) -> None:
    """Until `sock` can be read or written. Raises Expired at `deadline`, or whatever `watch` raises."""
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
    """Calls `watch`; the last words of a contestant that has just ended are read before its end counts."""
    try:
        watch()
    except Violation as violation:
        if violation.rule != "contestant" or not select.select([sock], [], [], 0)[0]:
            raise
