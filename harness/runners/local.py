"""The `local` runner: the contestant is a child process. It is limited, not isolated.

For newcomers without a container engine, and for tests. The clocks, the byte caps and the socket are the same
as in a container, but a child can read what its user can read and talk to the network: a verdict from here
says "isolation: none" and can never be a record. Not covered: hiding anything from a contestant that looks.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil

from harness.base.errors import Violation
from harness.edition import Limits
from harness.runners.base import LogPump, StageSpec, Staging, environment
from harness.runners.collect import MAX_DEPTH, collect, walk_folder
from harness.runners.process_tree import ProcessTree

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MEASURE_SECONDS = 0.5
KILL_SECONDS = 5.0
HOME_DEPTH, HOME_FILES = 32, 100_000
"""What a contestant's scratch may hold beside its bytes, so that measuring it stays cheap."""


class LocalRunner:
    name = "local"
    isolation = "none: a child process of this user, with the user's files and network in reach"
    isolated = False
    image = None

    def __init__(self) -> None:
        if (
            sys.platform == "linux"
        ):  # orphans of a contestant become our children, so that none survives its stage
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, spec: StageSpec) -> LocalStage:
        return LocalStage(spec)

    def clear_channels(self, limits: Limits) -> str:
        """Nothing: scorer and witness share this machine's files, and nothing here can prevent it."""
        return "nothing: scorer and witness share this machine's files"

    def close(self) -> None:
        """Nothing outlives a stage."""


class LocalStage:
    """One contestant as a process group, with a scrubbed environment and rlimits."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.staging = Staging(spec)
        self.listener = self.staging.listener
        self.out_folder, self.home = self.staging.root / "out", self.staging.root / "home"
        self.out = str(self.out_folder)
        self.measured = 0.0
        self.family = ProcessTree()
        try:
            self._begin()
        except BaseException:  # nobody else would end what has begun
            self.family.end(0, KILL_SECONDS)
            self.staging.remove()
            raise

    def _begin(self) -> None:
        spec = self.spec
        self.out_folder.mkdir()
        self.home.mkdir()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        given = {**environment(spec, str(self.listener.path), str(self.home), cores), "PATH": os.defpath}
        arguments = spec.argv(sys.executable, self.inside)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            arguments,
            env=given,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_limit_child(spec.out_bytes),
        )
        assert self.process.stdout is not None
        self.pump = LogPump(self.process.stdout, spec.log, spec.limits.log_bytes)
        self.pump.start()

    def inside(self, name: str) -> str:
        return str(self.staging.inputs / name)

    def watch(self) -> None:
        self.pump.check()
        code = self.process.poll()
        if code is not None:
            raise Violation(
                "contestant",
                f"the contestant ended in stage {self.spec.stage} with {_status(code)}",
                hint=f"{self.spec.log.name} in the run folder ends with the reason",
            )
        if time.monotonic() - self.measured >= MEASURE_SECONDS:
            self._measure()
            self.measured = time.monotonic()

    def freeze(self) -> None:
        """Ends the contestant: nothing here is gone with it, unlike a container's /out."""
        if not self.family.end(self.process.pid, KILL_SECONDS):
            raise Violation(
                "contestant",
                f"processes of stage {self.spec.stage} could not be ended",
                hint="nothing may go on once a stage's clock has stopped",
            )

    def collect(self, destination: Path) -> None:
        collect(walk_folder(self.out_folder), destination, self.spec.out_bytes, self.spec.limits.out_files)

    def wait(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass  # leaving the context kills it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.family.end(self.process.pid, KILL_SECONDS)
        self.process.wait()
        self.pump.join(KILL_SECONDS)
        self.pump.stream.close()
        self.staging.remove()

    def _measure(self) -> None:
        limits = self.spec.limits
        memory = sum(_resident(process) for process in self.family.living())
        if memory > limits.memory_bytes:
            raise Violation(
                "memory",
                f"{memory} bytes resident in stage {self.spec.stage}, at most {limits.memory_bytes}",
                limit=True,
                hint="smaller micro-batches, or a profile with more memory",
            )
        _bounded(
            self.out_folder,
            f"/out of stage {self.spec.stage}",
            self.spec.out_bytes,
            4 * limits.out_files,
            MAX_DEPTH,
        )
        _bounded(self.home, f"HOME of stage {self.spec.stage}", limits.scratch_bytes, HOME_FILES, HOME_DEPTH)


def _limit_child(out_bytes: int):  # type: ignore[no-untyped-def]
    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (out_bytes, out_bytes))
        if sys.platform == "linux":  # a judge killed with -9 takes its contestant along
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return apply


def _status(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _bounded(folder: Path, name: str, max_bytes: int, max_files: int, max_depth: int) -> None:
    """Raises Violation when a folder holds more than it may."""
    written = count = 0
    try:
        for entry in walk_folder(folder, max_depth):
            count += 1
            written += entry.n_bytes if entry.kind == "file" else 0
            if count > max_files or entry.path.count("/") >= max_depth:
                raise Violation(
                    "output",
                    f"{name} holds more than {max_files} files or {max_depth} levels of folders",
                    limit=True,
                    hint="only the checkpoint or the artifact belongs there",
                )
    except FileNotFoundError:  # something that went away while we looked; the next look counts again
        return
    if written > max_bytes:
        raise Violation(
            "output",
            f"{written} bytes in {name}, at most {max_bytes}",
            limit=True,
            hint="only the checkpoint or the artifact belongs there",
        )


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
