"""Read what the kernel counted for a container: processes killed for memory, and processes that it refused.

The kernel counts in the container's control group (cgroup), version 1 or 2. The engine removes the group soon
after the container's first process has ended. `wait_for_end` returns before that, in time to read the
counters once more.
A limit of a group above, or of the machine, also makes the kernel kill and refuse processes of the container.
`reached_limit` and `reached_process_limit` tell whether its own limit can have been the reason.
Not covered: a container that was refused a process, ended at once and was gone before the judge, on a busy
machine, read its counters; it counts as one that ended by itself. And engines on another machine or in
a virtual machine: their groups are not in this machine's /sys/fs/cgroup, and then only the engine says
whether memory ran out (docker_limits.py).
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import NamedTuple

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
NEAR_LIMIT = 0.9
"""A group that had this share of its limit counts as having reached it: the kernel takes memory in steps, and
where it keeps no peak of processes, the judge only knows how many there were when it read the counters."""


class Counts(NamedTuple):
    """What a control group has counted since the container's start."""

    memory_kills: int
    """Processes that the kernel killed because memory ran out: the group's own, or the machine's."""
    reached_limit: bool | None
    """Whether memory ran out at the group's own limit, and not at the machine's. None in version 1, where the
    engine must tell: the peak counts the files that were read, too."""
    peak_bytes: int | None
    """The most memory at once; None where this kernel does not keep it."""
    refused_processes: int
    """Processes and threads that were not started because this or a group above had too many."""
    reached_process_limit: bool
    """Whether the group came to its own limit of processes."""


class ControlGroup:
    """The counters of one running container, and the pid of its first process."""

    def __init__(self, memory: Path, pids: Path, version: int, pid: int) -> None:
        self.memory, self.pids, self.version, self.pid = memory, pids, version, pid
        self.most_processes = 0
        """The most processes and threads that were seen at once."""

    def wait_for_end(self) -> None:
        """Blocks until the container's first process has ended, and with it all others."""
        try:
            process = os.pidfd_open(self.pid)
        except OSError:  # it has ended, or the kernel is older than 5.3
            return
        try:
            select.select([process], [], [])
        finally:
            os.close(process)

    def counts(self) -> Counts | None:
        """The counts of now; None once the group is gone."""
        try:
            return self._counts_1() if self.version == 1 else self._counts_2()
        except (OSError, ValueError):
            return None

    def _counts_1(self) -> Counts:
        kills = _table(self.memory / "memory.oom_control").get("oom_kill", 0)
        # The engine is told when memory runs out here or in a group above, never when the machine's does
        reached = False if kills and any(map(_was_full, self.memory.parents)) else None
        peak = int((self.memory / "memory.max_usage_in_bytes").read_text())
        return Counts(kills, reached, peak, *self._processes())

    def _counts_2(self) -> Counts:
        events = _table(self.memory / "memory.events")
        peak = self.memory / "memory.peak"
        return Counts(
            events.get("oom_kill", 0),
            events.get("oom", 0) > 0,
            int(peak.read_text()) if peak.exists() else None,
            *self._processes(),
        )

    def _processes(self) -> tuple[int, bool]:
        """The processes that were refused, and whether the group came to its own limit of them."""
        refused = _table(self.pids / "pids.events").get("max", 0)
        peak = self.pids / "pids.peak"  # since Linux 6.6
        now = int((peak if peak.exists() else self.pids / "pids.current").read_text())
        self.most_processes = max(self.most_processes, now)
        limit = (self.pids / "pids.max").read_text().strip()
        if limit == "max":
            return refused, False
        reached = self.most_processes >= NEAR_LIMIT * int(limit)
        no_other_limit = not peak.exists() and not any(map(_may_limit_processes, self.pids.parents))
        return refused, reached or (refused > 0 and no_other_limit)


def _may_limit_processes(folder: Path) -> bool:
    """Whether a group above limits processes, or hides that one above it does; False for other folders.

    The machine's topmost group has no such file. Where the topmost that is seen has one, others are above it.
    """
    limit = folder / "pids.max"
    return limit.exists() and (limit.read_text().strip() != "max" or not _is_group(folder.parent))


def _is_group(folder: Path) -> bool:
    return (folder / "cgroup.procs").exists()


def _was_full(folder: Path) -> bool:
    """Whether a memory group of version 1 ever had most of its limit; False for a folder that is none."""
    try:
        peak, limit = (
            int((folder / f"memory.{name}_in_bytes").read_text()) for name in ("max_usage", "limit")
        )
    except OSError:
        return False
    return peak >= NEAR_LIMIT * limit


def _table(path: Path) -> dict[str, int]:
    """A file of lines `NAME NUMBER`."""
    return {name: int(number) for name, number in (line.split() for line in path.read_text().splitlines())}


def of_container(
    pid: int, container_id: str, proc: Path = PROC, cgroups: Path = CGROUPS
) -> ControlGroup | None:
    """The control group of a container whose first process has this pid; None where it cannot be read here.

    A pid of another machine's engine may belong to any process of this one, so the group must name the
    container.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    paths = {
        controller: path.lstrip("/")
        for _, controllers, path in (line.split(":", 2) for line in lines)
        for controller in controllers.split(",")  # version 2 names none
    }
    if "memory" in paths and "pids" in paths:
        group = ControlGroup(cgroups / "memory" / paths["memory"], cgroups / "pids" / paths["pids"], 1, pid)
    elif "" in paths:
        group = ControlGroup(cgroups / paths[""], cgroups / paths[""], 2, pid)
    else:
        return None
    return group if container_id in str(group.memory) and group.counts() is not None else None
