"""The processes of one contestant in the local runner: found again and again until none of them lives.

A process that forks and exits, over and over, is never the one that was just found: one look, or several slow
ones, miss it for ever. Here a look is fast (the kernel's own list of children), each is followed by the kill
at once, and only several empty looks in a row count as the end. Orphans belong to the judge, which is their
subreaper. Not covered: a process that the judge may not signal (a set-user-id program)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil

EMPTY_SCANS = 50
"""A chain of forks is missed by one look in a few, so by dozens in a row never."""
GONE = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


class ProcessTree:
    """Every descendant of this process but those it had before."""

    def __init__(self) -> None:
        self.others = set(_children(os.getpid()))

    def living(self) -> Iterator[psutil.Process]:
        """The members that live at this moment, parents first."""
        waiting = [pid for pid in _children(os.getpid()) if pid not in self.others]
        for pid in waiting:
            try:
                process = psutil.Process(pid)
                if process.status() not in GONE:
                    yield process
            except psutil.NoSuchProcess:
                pass
            waiting += _children(pid)

    def end(self, main: int, seconds: float) -> bool:
        """Kills all, for at most `seconds`; whether none is left. `main`: the pid that somebody else waits
        for."""
        deadline, empty = time.monotonic() + seconds, 0
        while empty < EMPTY_SCANS and time.monotonic() < deadline:
            found = self._kill(main)
            empty = 0 if found else empty + 1
            if not found:
                time.sleep(0.001)
        return empty >= EMPTY_SCANS

    def _kill(self, main: int) -> bool:
        """One look: whether anything but ended processes was there. Nothing slow comes between finding and
        killing."""
        waiting = [(pid, True) for pid in _children(os.getpid()) if pid not in self.others]
        living = False
        for pid, ours in waiting:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            waiting += [(child, False) for child in _children(pid)]
            living |= not _ended(pid, reap=ours and pid != main)
        return living


KERNEL_LISTS = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _children(pid: int) -> list[int]:
    """Children of a process, by the kernel's list where it keeps one; empty once it has ended."""
    found: list[int] = []
    try:
        if not KERNEL_LISTS:
            return [child.pid for child in psutil.Process(pid).children()]
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        pass  # it, or one of its threads, has ended meanwhile: the next look sees what is left
    return found


def _ended(pid: int, reap: bool) -> bool:
    """Whether a process has ended; an orphan that we inherited is buried too."""
    if reap:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return True
    try:
        return psutil.Process(pid).status() in GONE
    except psutil.NoSuchProcess:
        return True
