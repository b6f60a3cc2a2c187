"""A judge for tests of golf alone: starts the program as the harness does, and plays the other end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
LIMITS = {
    "train_seconds": 60,
    "counted_bytes": 16_000_000,
    "checkpoint_bytes": 1 << 30,
    "chunk_tokens": 262_144,
}


def write_shard(path: Path, tokens: np.ndarray) -> Path:
    """Tokens in the challenge's shard format."""
    header = np.zeros(256, "<i4")
    header[:3] = 20_240_520, 1, len(tokens)
    path.write_bytes(header.tobytes() + np.asarray(tokens).astype("<u2").tobytes())
    return path


class Judge:
    """The judge's end of a stage."""

    def __init__(self, connection: socket.socket, stage: str, setup: dict[str, Any]) -> None:
        self.socket, self.file, self.progress = connection, connection.makefile("rb"), []
        hello, _ = self.receive()
        assert hello == {"op": "hello", "protocol": 1, "stage": stage}
        self.send({"op": "setup", **setup})

    def send(self, frame: dict[str, Any], payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        line = json.dumps(frame | ({"bytes": len(payload)} if payload else {})).encode() + b"\n"
        socket.send_fds(self.socket, [line], list(descriptors)) if descriptors else self.socket.sendall(line)
        if payload:  # an empty send would fail if the contestant closes right after this line
            self.socket.sendall(payload)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame other than `progress`, and its payload."""
        while True:
            line = self.file.readline()
            assert line.endswith(b"\n"), "the contestant closed the socket"
            frame = json.loads(line)
            if frame["op"] != "progress":
                return frame, self.file.read(frame.get("bytes", 0))
            self.progress.append(frame)

    def train(self, shards: Sequence[Path], seconds: float, **extra: Any) -> tuple[dict[str, Any], float]:
        """The train stage from `ready` on: (`trained` frame, its seconds); `extra` are fields of `train`."""
        assert self.receive()[0]["op"] == "ready"
        descriptors = [os.open(path, os.O_RDONLY) for path in shards]
        names = [{"name": path.stem, "tokens": (path.stat().st_size - 1024) // 2} for path in shards]
        began = time.monotonic()
        # One frame per shard, to test several frames.
        for i, (name, descriptor) in enumerate(zip(names, descriptors, strict=True)):
            more = {"more": True} if i < len(names) - 1 else {}
            self.send(
                {"op": "train", "shards": [name], "seconds": seconds, **extra, **more},
                descriptors=[descriptor],
            )
            os.close(descriptor)
        return self.receive()[0], time.monotonic() - began


def run_stage(stage: str, setup: dict[str, Any], script: Callable[[Judge], Any], threads: int = 1) -> Any:
    """Run `python -m golf` for a stage against `script`; it must exit with 0. Returns script's result."""
    with program(stage, threads) as (connection, contestant, log):
        judge = Judge(connection, stage, setup)
        result = script(judge)
        judge.file.close()
        status = contestant.wait(300)
        assert status == 0, log.read_text(errors="replace")[-3000:]
    return result


def fail_stage(stage: str, setup: dict[str, Any], shards: Sequence[Path] = ()) -> tuple[int, str]:
    """Run a stage that fails, after `train` if there are shards: (exit status, all that it printed)."""
    with program(stage, 1) as (connection, contestant, log):
        judge = Judge(connection, stage, setup)
        with pytest.raises(AssertionError, match="the contestant closed the socket"):
            judge.train(shards, 300.0) if shards else judge.receive()
        judge.file.close()
        return contestant.wait(300), log.read_text()


@contextmanager
def program(stage: str, threads: int) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes], Path]]:
    """`python -m golf` in a stage: (its connection, its process, the file with all that it prints)."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/judge"
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(300)
        environment = {
            "PGOLF_SOCKET": path,
            "PGOLF_STAGE": stage,
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "TMPDIR": folder,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": str(threads),
        }
        log = Path(folder) / "log"
        with (
            open(log, "wb") as output,
            subprocess.Popen(
                [sys.executable, "-m", "golf"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as contestant,
        ):
            try:
                connection, _ = listener.accept()
                connection.settimeout(300)
                with connection:
                    yield connection, contestant, log
            except BaseException as error:
                contestant.kill()
                error.add_note(log.read_text(errors="replace")[-3000:])
                raise


def setup_frame(folder: Path, config: str, **extra: Any) -> dict[str, Any]:
    """The fields of a `setup` frame, with the recipe and an output folder inside `folder`."""
    (folder / "config.yaml").write_text(config)
    (folder / "out").mkdir(exist_ok=True)
    return {
        "seed": 7,
        "profile": "record",
        "vocab_size": 97,
        "tokenizer": str(folder / "none.model"),
        "config": str(folder / "config.yaml"),
        "out": str(folder / "out"),
        "limits": LIMITS,
        **extra,
    }
