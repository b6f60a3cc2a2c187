"""What a container's stage took above its limits of memory and processes.

The kernel's counters tell (control_group.py), and the engine, which alone knows where the counters are
another machine's. Where neither shows that the stage came to its own limit, the machine was at fault.
"""

from __future__ import annotations

import time
from datetime import datetime

import psutil
from docker.models.containers import Container

from harness.base.errors import HarnessError, MachineFault, Violation
from harness.base.text import count
from harness.runners.base import StageSpec, too_many_processes
from harness.runners.control_group import Counts

NOTHING = Counts(0, None, None, 0, False)


def memory_limit(spec: StageSpec) -> int:
    """Bytes that a stage's container may take: no more than this machine has."""
    return min(spec.limits.memory_bytes, int(psutil.virtual_memory().total))


def over_limit(
    spec: StageSpec, counts: Counts | None, oom_killed: bool, engine_tells: bool
) -> HarnessError | None:
    """The error of a stage that took too much memory or too many processes; None where it did not.

    `counts`: None where the kernel's counters cannot be read. `oom_killed`: whether the engine says that
    memory ran out in the container. `engine_tells`: whether it says so for the container's own limit alone.
    """
    counts = counts or NOTHING
    if counts.memory_kills or oom_killed:
        own = counts.reached_limit if counts.reached_limit is not None else oom_killed and engine_tells
        return _out_of_memory(spec, counts, bool(own) and memory_limit(spec) == spec.limits.memory_bytes)
    if counts.refused_processes:
        refused = f"stage {spec.stage} tried {count(counts.refused_processes, 'time')} to start one more"
        if counts.reached_process_limit:
            return too_many_processes(refused, spec.limits.pids)
        return MachineFault(
            f"{refused} process or thread and was refused, though it was below its own limit of "
            f"{spec.limits.pids:,}",
            hint="a limit above the container's was reached: see pids.max of the engine's control groups, "
            "TasksMax of its service, and the limits of its user",
        )
    return None


def _out_of_memory(spec: StageSpec, counts: Counts, own: bool) -> HarnessError:
    """The error of a stage whose processes were killed for memory; `own`: at its own limit."""
    stage, limit = spec.stage, spec.limits.memory_bytes
    killed = counts.memory_kills or "at least 1"
    peak = "" if counts.peak_bytes is None else f"; {counts.peak_bytes:,} at the peak"
    if own:
        return Violation(
            "memory",
            f"the kernel killed {killed} of the processes of stage {stage}, which together wanted more than "
            f"{limit:,} bytes of memory (tmpfs included){peak}",
            limit=True,
            hint="smaller micro-batches, or less scratch",
        )
    return MachineFault(
        f"this machine's memory ran out, and the kernel killed {killed} of the processes of stage {stage}: "
        f"nothing shows that it came to its own limit of {limit:,} bytes{peak}",
        hint="end other programs, or use a machine with more memory, whose own kernel runs the engine",
    )


def has_oom_event(container: Container) -> bool:
    """Whether the engine noted that memory ran out in a container, until its end, or until now if it runs."""
    state = container.attrs["State"]
    since, end = (datetime.fromisoformat(state[key]).timestamp() for key in ("StartedAt", "FinishedAt"))
    until = time.time() if state["Running"] else end
    filters = {"container": container.id, "event": "oom"}
    return any(container.client.api.events(since=f"{since:.6f}", until=f"{until:.6f}", filters=filters))
