"""The `local` runner: the contestant is a child process. It is limited, not isolated.

For newcomers without a container engine, and for tests. Clocks, limits and socket are the same as in a
container, but the child can read every file that its user can read, and can use the network. A verdict from
this runner says "isolation: none" and can never be a record.

Memory, processes and folders are measured twice a second and at the end. The peak of a single process is
known however short it was, because the kernel keeps it for the parent that waits for the process's end.
Not covered: a shorter peak of several processes together, of their number, or of a process whose parent
ignores its end (SIGCHLD); /dev/shm, which the contestant shares with this machine; memory that is no
process's, such as files in memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil

from harness.base import host
from harness.base.errors import Violation
from harness.edition import Limits
from harness.runners import guardian
from harness.runners.base import (
    GPU_LIBRARIES,
    OUT_HINT,
    SCRATCH_FILES,
    SCRATCH_HINT,
    StageSpec,
    contestant_environment,
    ended_by_contestant,
    exit_text,
    too_many_processes,
)
from harness.runners.collect import MAX_DEPTH, collect, walk_folder
from harness.runners.folder_usage import FolderLimits, check_folder, stored_bytes, stored_pages, whole_pages
from harness.runners.log_pump import LogPump
from harness.runners.process_tree import ProcessTree
from harness.runners.staging import Staging, make_folder

LIMIT_CHECK_SECONDS = 0.5
KILL_SECONDS = 5.0
MAXRSS_BYTES = 1024 if sys.platform == "linux" else 1
"""The unit of `ru_maxrss`."""
HOME_DEPTH = 32
"""Levels of folders in a contestant's HOME: a limit of this runner alone, which keeps measuring it cheap."""


class LocalRunner:
    name = "local"
    isolated = False
    image = None
    image_lacks = ()

    def __init__(self, why: str = "") -> None:
        """`why`: the reason that nothing isolates this run, for its verdict."""
        reason = f"; {why}" if why else ""
        self.isolation = (
            f"none: a child process of this user, with the user's files and network in reach{reason}"
        )
        guardian.adopt_orphans()  # of a guardian that has ended, by itself or killed by its contestant

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
        self.peak_bytes = self.peak_processes = 0
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
        cores = host.usable_cores() or 1
        variables = contestant_environment(spec, str(self.listener.path), str(self.home), cores)
        if spec.gpus and GPU_LIBRARIES in os.environ:
            variables[GPU_LIBRARIES] = os.environ[GPU_LIBRARIES]
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
                preexec_fn=_limit_child,
            )
        assert self.process.stdout is not None
        self.pump = LogPump(self.process.stdout, spec.log, spec.limits.log_bytes)
        self.pump.start()

    def inside(self, name: str) -> str:
        return str(self.staging.inputs / name)

    def watch(self) -> None:
        self.pump.check()
        code = self._reap(os.WNOHANG)
        if code is not None:  # waits for the contestant too, whose peak of memory is known then
            self.processes.kill(self.process.pid, KILL_SECONDS)
        if code is not None or time.monotonic() - self.checked_at >= LIMIT_CHECK_SECONDS:
            self._measure_processes()
            self._check_limits()
            self.checked_at = time.monotonic()
        if code is not None:
            raise Violation(
                "contestant", f"the contestant ended in stage {self.spec.stage} with {exit_text(code)}"
            )

    def cpu_seconds(self) -> float | None:
        return self.processes.cpu_seconds() if self.process.returncode is None else None

    def freeze(self) -> None:
        """Kills the contestant. /out is an ordinary folder here, so it stays."""
        self._measure_processes()
        if not self.processes.kill(self.process.pid, KILL_SECONDS):
            raise Violation(
                "contestant",
                f"processes of stage {self.spec.stage} could not be killed",
                hint="nothing may go on running once a stage's clock has stopped",
            )

    def collect(self, destination: Path) -> None:
        collect(walk_folder(self.out_folder), destination, self.spec.out_bytes, self.spec.limits.out_files)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._reap(os.WNOHANG) is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._measure_processes()
        self.processes.kill(self.process.pid, KILL_SECONDS)
        self._reap(0)
        self._measure_processes()
        try:
            if ended_by_contestant(error[1]):
                self._check_limits()
        finally:
            self.pump.join(KILL_SECONDS)
            self.pump.stream.close()
            self.judge_alive.close()
            self.staging.remove()
        if error[0] is None:
            self.pump.check()

    def _reap(self, flags: int) -> int | None:
        """The guardian's exit code, which is the contestant's; None while it runs."""
        if self.process.returncode is None:
            pid, status = os.waitpid(self.process.pid, flags)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode

    def _measure_processes(self) -> None:
        """Updates the peaks by the processes that are alive now, and by those that were waited for."""
        living = [each for each in self.processes.living() if each.pid != self.process.pid]
        peaks = [_status(process.pid) for process in living]
        resident = sum(status.get("VmRSS", 0) for status in peaks) * 1024
        if resident > self.spec.limits.memory_bytes:  # it counts shared pages once for each process
            resident = sum(
                _share_bytes(process, status.get("VmRSS", 0) * 1024)
                for process, status in zip(living, peaks, strict=True)
            )
        alone = max((status.get("VmHWM", 0) for status in peaks), default=0) * 1024
        ended = self.processes.peak_maxrss * MAXRSS_BYTES
        self.peak_bytes = max(self.peak_bytes, resident, alone, ended)
        self.peak_processes = max(self.peak_processes, sum(status.get("Threads", 0) for status in peaks))

    def _check_limits(self) -> None:
        """Raises Violation for memory, processes or a folder over the limit."""
        limits, stage, memory = self.spec.limits, self.spec.stage, self.peak_bytes
        if memory > limits.memory_bytes:
            raise Violation(
                "memory",
                f"{memory:,} bytes resident at the peak of stage {stage}, at most {limits.memory_bytes:,}",
                limit=True,
                hint="smaller micro-batches, or a profile with more memory",
            )
        if self.peak_processes > limits.pids:
            raise too_many_processes(f"{self.peak_processes:,} in stage {stage}", limits.pids)
        check_folder(
            self.out_folder,
            FolderLimits(
                f"/out of stage {stage}",
                self.spec.out_bytes,
                4 * limits.out_files,
                MAX_DEPTH,
                stored_bytes,
                OUT_HINT,
            ),
        )
        check_folder(
            self.home,
            FolderLimits(
                f"HOME of stage {stage}",
                whole_pages(limits.scratch_bytes),
                SCRATCH_FILES,
                HOME_DEPTH,
                stored_pages,
                SCRATCH_HINT,
            ),
        )


def _limit_child() -> None:
    """Called in the child before it starts the contestant's program."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # as an engine gives; a shell gives 1,024
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))


def _status(pid: int) -> dict[str, int]:
    """The numbers of a process by name, such as VmHWM, the most kB that it had resident; none at its end."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {each[0].rstrip(":"): int(each[1]) for each in words if len(each) > 1 and each[1].isdecimal()}


def _share_bytes(process: psutil.Process, resident: int) -> int:
    """A process's share of resident memory: a page that several have counts in equal parts; 0 at its end.

    `resident`: what counts where the process keeps its share from the judge (PR_SET_DUMPABLE).
    """
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return resident
    except psutil.Error:
        return 0
