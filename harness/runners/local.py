"""The `local` runner: the contestant is a child process. It is limited, not isolated.

For newcomers without a container engine, and for tests. Clocks, byte caps and socket are the same as in a
container, but the child can read every file that its user can read, and can use the network. A verdict from
this runner says "isolation: none" and can never be a record.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

from harness.base.errors import Violation
from harness.edition import Limits
from harness.runners import guardian
from harness.runners.base import StageSpec, contestant_environment, exit_text
from harness.runners.collect import MAX_DEPTH, collect, walk_folder
from harness.runners.log_pump import LogPump
from harness.runners.process_tree import ProcessTree
from harness.runners.staging import Staging, make_folder

LIMIT_CHECK_SECONDS = 0.5
KILL_SECONDS = 5.0
HOME_DEPTH, HOME_FILES = 32, 100_000
"""Limits on a contestant's HOME, besides its bytes, that keep measuring it cheap."""


class LocalRunner:
    name = "local"
    isolated = False
    image = None

    def __init__(self, why: str = "") -> None:
        """`why`: the reason that nothing isolates this run, for its verdict."""
        reason = f"; {why}" if why else ""
        self.isolation = (
            f"none: a child process of this user, with the user's files and network in reach{reason}"
        )
        guardian.adopt_orphans()  # those of a contestant that killed its guardian

    def start(self, spec: StageSpec) -> LocalStage:
        return LocalStage(spec)

    def clear_channels(self, limits: Limits) -> str:
        """Does nothing: this runner cannot keep scorer and witness from sharing this machine's files."""
        return "nothing: scorer and witness share this machine's files"

    def close(self) -> None:
        """Nothing to do: nothing outlives a stage."""


class LocalStage:
    """One contestant with a minimal environment and resource limits; its guardian is `process`."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.staging = Staging(spec)
        self.listener = self.staging.listener
        self.out_folder, self.home = self.staging.root / "out", self.staging.root / "home"
        self.out = str(self.out_folder)
        self.checked_at = 0.0
        self.processes = ProcessTree()
        try:
            self._start()
        except BaseException:  # the caller has no stage to close yet
            self.processes.kill(0, KILL_SECONDS)
            self.staging.remove()
            raise

    def _start(self) -> None:
        spec = self.spec
        make_folder(self.out_folder, 0o700)
        make_folder(self.home, 0o700)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        variables = contestant_environment(spec, str(self.listener.path), str(self.home), cores)
        read_end, write_end = os.pipe()
        self.judge_alive = os.fdopen(write_end, "wb", buffering=0)
        arguments = spec.argv(sys.executable, self.inside)
        self.started = time.monotonic()
        with open(read_end, "rb"):
            self.process = subprocess.Popen(
                guardian.command(arguments, read_end, self.staging.root),
                pass_fds=[read_end],
                env={**variables, "PATH": os.defpath},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,  # as in a container, whatever the judge's is
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
                "contestant", f"the contestant ended in stage {self.spec.stage} with {exit_text(code)}"
            )
        if time.monotonic() - self.checked_at >= LIMIT_CHECK_SECONDS:
            self._check_limits()
            self.checked_at = time.monotonic()

    def cpu_seconds(self) -> float | None:
        return self.processes.cpu_seconds() if self.process.returncode is None else None

    def freeze(self) -> None:
        """Kills the contestant. /out is an ordinary folder here, so it stays."""
        if not self.processes.kill(self.process.pid, KILL_SECONDS):
            raise Violation(
                "contestant",
                f"processes of stage {self.spec.stage} could not be killed",
                hint="nothing may go on running once a stage's clock has stopped",
            )

    def collect(self, destination: Path) -> None:
        collect(walk_folder(self.out_folder), destination, self.spec.out_bytes, self.spec.limits.out_files)

    def wait(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass  # leaving the context kills the contestant

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.processes.kill(self.process.pid, KILL_SECONDS)
        self.process.wait()
        self.pump.join(KILL_SECONDS)
        self.pump.stream.close()
        self.judge_alive.close()
        self.staging.remove()
        if error[0] is None:
            self.pump.check()

    def _check_limits(self) -> None:
        limits = self.spec.limits
        contestant = (each for each in self.processes.living() if each.pid != self.process.pid)
        memory = sum(map(_resident_bytes, contestant))
        if memory > limits.memory_bytes:
            raise Violation(
                "memory",
                f"{memory:,} bytes resident in stage {self.spec.stage}, at most {limits.memory_bytes:,}",
                limit=True,
                hint="smaller micro-batches, or a profile with more memory",
            )
        _check_folder(
            self.out_folder,
            f"/out of stage {self.spec.stage}",
            self.spec.out_bytes,
            4 * limits.out_files,
            MAX_DEPTH,
        )
        _check_folder(
            self.home, f"HOME of stage {self.spec.stage}", limits.scratch_bytes, HOME_FILES, HOME_DEPTH
        )


def _limit_child(out_bytes: int) -> Callable[[], None]:
    """A function that the child calls before it starts the contestant's program."""

    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (out_bytes, out_bytes))

    return apply


def _check_folder(folder: Path, name: str, max_bytes: int, max_files: int, max_depth: int) -> None:
    """Raises Violation if a folder exceeds one of its limits."""
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
    except FileNotFoundError:  # something was deleted during the scan: the next scan counts again
        return
    if written > max_bytes:
        raise Violation(
            "output",
            f"{written} bytes in {name}, at most {max_bytes}",
            limit=True,
            hint="only the checkpoint or the artifact belongs there",
        )


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
