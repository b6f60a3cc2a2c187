"""The contestant's end of the protocol: frames, payloads and descriptors over a Unix stream socket.

A frame is one JSON object on a line; if it has a key `bytes`, that many raw bytes follow. File descriptors
arrive as SCM_RIGHTS with the first byte of a frame. They are queued in order, and a frame takes as many as
its `shards` list announces.

Only rank 0 talks to the judge. With several processes, rank 0 forwards every frame it receives, with payload
and descriptors, to the other ranks (`peers`), each over its own socket pair; on those, `send` does nothing.
So a stage runs the same code on every rank. The judge enforces deadlines; there are none here.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golf.runtime import strict_json

Socket = socket.socket
"""Another name for the type: inside `Wire`, `socket` is a field and not the module."""
PROTOCOL = 1
MAX_LINE = 65_536
MAX_DESCRIPTORS = 200
SECONDS_BETWEEN_PROGRESS = 0.11
MAX_PROGRESS_TEXT = 200


class WireError(ValueError):
    """The judge sent something that the protocol does not allow here."""


class Closed(ConnectionError):
    """The judge ended the stage by closing the socket, which it may do at any time; or rank 0 has ended."""


@dataclass(frozen=True)
class Frame:
    """A received frame: JSON object, payload, and descriptors, which the receiver must close."""

    fields: dict[str, Any]
    payload: bytes = b""
    descriptors: tuple[int, ...] = ()

    @property
    def op(self) -> str:
        """The kind of frame."""
        return self.fields["op"]

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """A field of exactly the type `kind` (a float may be sent as an integer); WireError otherwise."""
        value = self.fields.get(key, default)
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise WireError(f"frame {self.op}: {key} should be {kind.__name__}, not {value!r:.80}")
        return value


@dataclass(frozen=True)
class Setup:
    """What the judge sends at the start of a stage. All paths are absolute; no stage assumes any other."""

    stage: str
    seed: int
    profile: str
    vocab_size: int
    tokenizer: Path
    config: Path
    out: Path
    limits: dict[str, Any]
    checkpoint: Path | None = None
    """pack: the folder that train wrote."""
    artifact: Path | None = None
    """score: the file that pack wrote."""
    role: str = ""
    """score: scorer or witness."""
    tokens: int = 0
    """score: length of the stream in tokens."""

    @classmethod
    def from_frame(cls, frame: Frame, stage: str) -> Setup:
        """Parse a `setup` frame strictly; a WireError names the field that is missing or wrong."""
        extra: dict[str, Any] = {}
        if stage == "pack":
            extra = {"checkpoint": Path(frame.get("checkpoint", str))}
        if stage == "score":
            extra = {
                "artifact": Path(frame.get("artifact", str)),
                "role": frame.get("role", str),
                "tokens": frame.get("tokens", int),
            }
        return cls(
            stage=stage,
            seed=frame.get("seed", int),
            profile=frame.get("profile", str),
            vocab_size=frame.get("vocab_size", int),
            limits=frame.get("limits", dict),
            tokenizer=Path(frame.get("tokenizer", str)),
            config=Path(frame.get("config", str)),
            out=Path(frame.get("out", str)),
            **extra,
        )


@dataclass
class Wire:
    """A connected socket. Frames it receives are forwarded to `peers`; a muted wire sends nothing."""

    socket: Socket
    peers: tuple[Socket, ...] = ()
    muted: bool = False
    clock: Callable[[], float] = time.monotonic
    _buffer: bytearray = field(default_factory=bytearray)
    _queue: list[int] = field(default_factory=list)
    _last_progress: float = float("-inf")

    @classmethod
    def connect(cls, path: str) -> Wire:
        """Connect to the judge's socket."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        return cls(connection)

    def close(self) -> None:
        """Close the socket and those to the other ranks."""
        for each in (self.socket, *self.peers):
            each.close()

    def send(self, op: str, payload: bytes | memoryview = b"", **fields: Any) -> None:
        """Send a frame, with `bytes` added if there is a payload. Raises Closed when the judge has left."""
        if self.muted:
            return
        if len(payload):
            fields["bytes"] = len(payload)
        line = strict_json.dumps({"op": op, **fields}) + b"\n"
        if len(line) > MAX_LINE:
            raise WireError(f"frame {op} of {len(line)} bytes; a line has at most {MAX_LINE}")
        try:
            self.socket.sendall(line)
            if len(payload):  # an empty send would fail if the judge closes right after this line
                self.socket.sendall(payload)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(f"the judge left before {op} was sent") from error

    def from_first(self, op: str, **fields: Any) -> Frame:
        """Send rank 0's fields to the other ranks over their sockets; returns the same frame on every rank.

        Raises Closed on the other ranks if rank 0 has ended.
        """
        if self.muted:
            return self.receive(op)
        self._forward(strict_json.dumps({"op": op, **fields}) + b"\n", ())
        return Frame({"op": op, **fields})

    def progress(self, fraction: float, text: str) -> None:
        """Send a progress frame, unless the last one is less than SECONDS_BETWEEN_PROGRESS old."""
        now = self.clock()
        if now - self._last_progress >= SECONDS_BETWEEN_PROGRESS:
            self._last_progress = now
            self.send("progress", fraction=min(max(fraction, 0.0), 1.0), text=text[:MAX_PROGRESS_TEXT])

    def receive(self, *expected: str, max_bytes: int = 0) -> Frame:
        """The next frame, whose op must be one of `expected`, with at most `max_bytes` of payload.

        Raises WireError for anything else and Closed when the judge closes the socket.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) >= MAX_LINE:
                raise WireError(f"a line of more than {MAX_LINE} bytes")
            self._fill()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        fields = strict_json.loads(line, max_bytes=MAX_LINE)
        if type(fields) is not dict or type(fields.get("op")) is not str or fields["op"] not in expected:
            raise WireError(f"expected {' or '.join(expected)}, the judge sent {line[:120]!r}")
        n_bytes = fields.get("bytes", 0)
        if type(n_bytes) is not int or not 0 <= n_bytes <= max_bytes:
            raise WireError(f"frame {fields['op']} with {n_bytes!r:.40} bytes; at most {max_bytes} allowed")
        while len(self._buffer) < n_bytes:
            self._fill()
        payload = bytes(self._buffer[:n_bytes])
        del self._buffer[:n_bytes]
        wanted = len(fields["shards"]) if type(fields.get("shards")) is list else 0
        if wanted > len(self._queue):
            raise WireError(
                f"frame {fields['op']} announces {wanted} shards but brings {len(self._queue)} descriptors"
            )
        frame = Frame(fields, payload, tuple(self._queue[:wanted]))
        del self._queue[:wanted]
        self._forward(line + payload, frame.descriptors)
        return frame

    def descriptors(self) -> list[int]:
        """Take the descriptors that no `shards` list announced."""
        taken, self._queue = self._queue, []
        return taken

    def _fill(self) -> None:
        room = MAX_DESCRIPTORS * 4
        data, ancillary, flags, _ = self.socket.recvmsg(
            1 << 20, socket.CMSG_SPACE(room), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, body in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(body) - len(body) % 4
                self._queue += memoryview(body[:whole]).cast("i").tolist()
        if flags & socket.MSG_CTRUNC:
            raise WireError(f"more than {MAX_DESCRIPTORS} descriptors came at once")
        if not data:
            raise Closed(f"{'rank 0' if self.muted else 'the judge'} closed the socket")
        self._buffer += data

    def _forward(self, message: bytes, descriptors: tuple[int, ...]) -> None:
        for peer in self.peers:
            send_with_descriptors(peer, message, descriptors)


def send_with_descriptors(connection: socket.socket, message: bytes, descriptors: tuple[int, ...]) -> None:
    """Send a whole message, with the descriptors on its first byte.

    Nothing is sent after the last byte: the receiver may close as soon as it has everything, and then even
    an empty write fails (this broke the pipe in one of ten multi-rank starts).
    """
    sent = socket.send_fds(connection, [message], list(descriptors)) if descriptors else 0
    if sent < len(message):
        connection.sendall(message[sent:])


def open_stage(environment: Mapping[str, str]) -> tuple[Wire, Frame]:
    """Connect to the socket that the environment names, send `hello`, receive `setup`: (wire, setup)."""
    stage = environment["PGOLF_STAGE"]
    wire = Wire.connect(environment["PGOLF_SOCKET"])
    wire.send("hello", protocol=PROTOCOL, stage=stage)
    return wire, wire.receive("setup")
