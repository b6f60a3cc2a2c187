"""Find and kill all processes of one contestant in the local runner.

A process that forks and exits over and over has a new pid in every scan, so one slow scan can miss it.
Here a scan is fast (it reads the kernel's own list of children), kills each process as soon as it is
found, and the tree counts as dead only after many empty scans in a row. Orphans become children of the
contestant's guardian, and of the judge where the guardian has ended: both are subreapers.
Not covered: a process that the judge may not signal (a set-user-id program).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import psutil

EMPTY_SCANS = 50
"""Number of empty scans in a row after which the tree counts as dead. A chain of forks escapes a single scan
now and then, but not this many."""
ENDED_STATUSES = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


class ProcessTree:
    """All descendants of this process, except those of children that existed when the tree was created."""

    def __init__(self) -> None:
        self.older_children = set(children(os.getpid()))
        self.dead = False
        """Whether `kill` has left none; a tree without a living process cannot grow again."""
        self.peak_maxrss = 0
        """The largest `ru_maxrss` of the processes reaped here, each with those that it waited for."""

    def living(self) -> Iterator[psutil.Process]:
        """The processes that are alive now, parents first."""
        pending = self._new_children()
        for pid in pending:
            try:
                process = psutil.Process(pid)
                if process.status() not in ENDED_STATUSES:
                    yield process
            except psutil.NoSuchProcess:
                pass
            pending += children(pid)

    def cpu_seconds(self) -> float:
        """CPU seconds that all processes took so far, and those that ended and were waited for by a parent.

        Not covered: processes whose parent ignores their end (SIGCHLD), for the kernel forgets their time.
        """
        total, pending = 0.0, self._new_children()
        for pid in pending:
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
            pending += children(pid)
        return total

    def kill(self, popen_pid: int, seconds: float) -> bool:
        """Kills all processes, trying for at most `seconds`; returns whether none is left.

        `popen_pid`: the child that its Popen object waits for, so it must not be reaped here.
        """
        deadline, empty = time.monotonic() + seconds, 0
        while not self.dead and time.monotonic() < deadline:
            found = self._scan_and_kill(popen_pid)
            empty = 0 if found else empty + 1
            self.dead = empty >= EMPTY_SCANS
            if not found:
                time.sleep(0.001)
        return self.dead

    def _scan_and_kill(self, popen_pid: int) -> bool:
        """One scan; returns whether it met a process that had not ended. Kills each pid right
        after finding it.
        """
        pending = [(pid, True) for pid in self._new_children()]
        living = False
        for pid, is_our_child in pending:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            pending += [(child, False) for child in children(pid)]
            living |= not (self._reaped(pid) if is_our_child and pid != popen_pid else _ended(pid))
        return living

    def _reaped(self, pid: int) -> bool:
        """Whether a child has ended. Removes its zombie, for orphans that this process adopted."""
        try:
            ended, _, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            return True
        self.peak_maxrss = max(self.peak_maxrss, usage.ru_maxrss if ended else 0)
        return ended == pid

    def _new_children(self) -> list[int]:
        return [pid for pid in children(os.getpid()) if pid not in self.older_children]


KERNEL_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def children(pid: int) -> list[int]:
    """Pids of a process's children, from the kernel's list if it has one; empty once the
    process has ended.
    """
    found: list[int] = []
    try:
        if not KERNEL_LISTS_CHILDREN:
            return [child.pid for child in psutil.Process(pid).children()]
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        pass  # the process or one of its threads has just ended: the next scan sees what is left
    return found


def _ended(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() in ENDED_STATUSES
    except psutil.NoSuchProcess:
        return True
