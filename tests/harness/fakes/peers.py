"""A contestant in a thread on the other end of a real socket, which follows a script."""

from __future__ import annotations

import array
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.protocol.wire import Connection

SOON = 60.0
"""Seconds, far more than any test needs even on a busy machine; a test that hangs fails after them."""
PROMPT = 20.0
"""Seconds within which the judge must have noticed what it notices at once; what a test guards against
takes longer."""


class Peer:
    """The contestant's side of the socket, for scripts of tests. It counts the bytes that it receives."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SOON)
        self.socket = sock
        self.buffer = b""
        self.descriptors: list[int] = []
        self.first_descriptor_at: list[int] = []
        """For each batch of descriptors, how many bytes had been received before it."""
        self.received = 0
        self.closing = threading.Event()

    def stall(self) -> None:
        """Neither read nor write until the test is over."""
        self.closing.wait(SOON)

    def say(self, payload: bytes = b"", **frame: Any) -> None:
        self.raw(json.dumps(frame).encode() + b"\n" + payload)

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> dict[str, Any]:
        """The next frame; its payload, if it has one, under the key `payload`."""
        while b"\n" not in self.buffer:
            self._fill()
        line, _, self.buffer = self.buffer.partition(b"\n")
        frame: dict[str, Any] = json.loads(line)
        size = frame.get("bytes", 0)
        while len(self.buffer) < size:
            self._fill()
        frame["payload"], self.buffer = self.buffer[:size], self.buffer[size:]
        return frame

    def _fill(self) -> None:
        item = array.array("i").itemsize
        piece, ancillary, _, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(250 * item))
        for _, _, data in ancillary:
            self.descriptors += array.array("i", data[: len(data) - len(data) % item])
            self.first_descriptor_at.append(self.received)
        if not piece:
            raise EOFError
        self.received += len(piece)
        self.buffer += piece


@contextmanager
def talking(script: Callable[[Peer], None], sock: socket.socket) -> Iterator[Peer]:
    """Run `script` on `sock` in a thread. The judge may close first; any other error fails the test."""
    errors: list[BaseException] = []
    peer = Peer(sock)

    def run() -> None:
        try:
            script(peer)
        except (OSError, EOFError):
            pass  # the judge closed the socket, as it may
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.closing.set()
        with suppress(OSError):  # the script may have closed it
            sock.shutdown(socket.SHUT_RDWR)
        thread.join(SOON)
        sock.close()
        assert not thread.is_alive(), "the peer's script hangs"
    if errors:
        raise errors[0]


@contextmanager
def conversation(
    script: Callable[[Peer], None], watch: Callable[[], None] = lambda: None
) -> Iterator[Connection]:
    """The judge's end of a socket pair whose other end follows `script`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = Connection(ours, watch)
    with talking(script, theirs):
        try:
            yield connection
        finally:
            connection.close()


def soon(seconds: float = SOON) -> float:
    """A deadline by the judge's clock."""
    return time.monotonic() + seconds


def no_watch() -> None:
    """A watch that never raises."""


def connect(path: Path) -> socket.socket:
    """A contestant's connection to a Listener."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    return sock
