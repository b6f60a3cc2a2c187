"""What a container's stage took above its limits: memory, processes, and space in /out and /tmp.

Memory and processes come from the kernel's counters (control_group.py) and from the engine, which alone knows
where the counters are another machine's. A folder is full when its tmpfs has no free block or inode.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import docker
from docker.models.containers import Container

from harness.base.errors import HarnessError, MachineFault, Violation
from harness.base.text import count
from harness.runners.base import SCRATCH_FILES, StageSpec, too_many_processes
from harness.runners.control_group import Counts
from harness.runners.docker_engine import engine_faults

OUT, SCRATCH = "/out", "/tmp"
HELD_SCRATCH = "/scratch"
"""Where the idle container has the contestant's /tmp."""


def over_limit(spec: StageSpec, counts: Counts | None, oom_killed: bool) -> HarnessError | None:
    """The error of a stage that took too much memory or too many processes; None where it did not.

    `counts`: None where the kernel's counters cannot be read. `oom_killed`: whether the engine says that
    the container ran out of memory.
    """
    limits, stage = spec.limits, spec.stage
    counts = counts or Counts(0, False, None, 0)
    if counts.memory_kills and not counts.reached_limit:
        return MachineFault(
            f"this machine's memory ran out, and the kernel killed {counts.memory_kills} of the processes of "
            f"stage {stage}, which was below its own limit of {limits.memory_bytes:,} bytes",
            hint="end other programs, or use a machine with more memory",
        )
    if counts.memory_kills or oom_killed:
        killed = counts.memory_kills or "at least 1"
        peak = "" if counts.peak_bytes is None else f"; {counts.peak_bytes:,} at the peak"
        return Violation(
            "memory",
            f"the kernel killed {killed} of the processes of stage {stage}, which together wanted more than "
            f"{limits.memory_bytes:,} bytes of memory (tmpfs included){peak}",
            limit=True,
            hint="smaller micro-batches, or less scratch",
        )
    if counts.refused_processes:
        return too_many_processes(
            f"stage {stage} tried {count(counts.refused_processes, 'time')} to start one more", limits.pids
        )
    return None


def full_folder(spec: StageSpec, holder: Container) -> Violation | None:
    """The violation for a full /out or /tmp. Asks the idle container, which keeps both mounted."""
    with engine_faults("measuring /out and /tmp"):
        code, output = holder.exec_run(["stat", "-f", "-c", "%f %d", OUT, HELD_SCRATCH])
    lines = output.decode("ascii", "replace").splitlines() if code == 0 else []
    out_files = 4 * spec.limits.out_files
    folders = (
        (OUT, spec.out_bytes, out_files, "only the checkpoint or the artifact belongs there"),
        (SCRATCH, spec.limits.scratch_bytes, SCRATCH_FILES, "delete what is no longer needed"),
    )
    for line, (folder, n_bytes, n_files, hint) in zip(lines, folders, strict=False):
        if "0" in line.split():
            return Violation(
                "output",
                f"{folder} of stage {spec.stage} is full: at most {n_bytes} bytes and {n_files} files",
                limit=True,
                hint=hint,
            )
    return None


def has_oom_event(client: docker.DockerClient, container_id: str, state: dict[str, Any]) -> bool:
    """Whether the engine noted that a container ran out of memory. `state`: the container's, at its end."""
    since, until = (datetime.fromisoformat(state[key]).timestamp() for key in ("StartedAt", "FinishedAt"))
    filters = {"container": container_id, "event": "oom"}
    return any(client.api.events(since=f"{since:.6f}", until=f"{until:.6f}", filters=filters))
