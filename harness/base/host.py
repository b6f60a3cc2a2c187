"""Facts of the machine that measurements depend on: processor, memory, GPUs, load, versions, CPU time.

A fact that the system does not report is null.
"""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from harness.base.text import count

SMI_SECONDS = 20


def facts() -> dict[str, Any]:
    """JSON-ready facts of this host; `load` at this moment."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": [round(value, 2) for value in os.getloadavg()],
        "gpus": gpus(),
    }


def processor(facts: dict[str, Any]) -> str:
    """Processor and cores in words: `A CPU, 2 cores`."""
    cores = facts["cores"]
    return (
        f"{facts['cpu'] or 'unknown processor'}, "
        f"{'unknown number of cores' if cores is None else count(cores, 'core')}"
    )


def gpu_names(facts: dict[str, Any]) -> str:
    """The GPUs by name, or `no GPU`."""
    return ", ".join(gpu["name"] for gpu in facts.get("gpus", ())) or "no GPU"


def description(facts: dict[str, Any]) -> str:
    """Processor, cores, GPUs and load average as one line."""
    load = " ".join(map(str, facts["load"]))
    return f"{processor(facts)}, {gpu_names(facts)}, load {load}"


class CpuTimes(NamedTuple):
    """Seconds since the machine started, of all cores together."""

    busy: float
    """Of all processes and the kernel."""
    stolen: float
    """What a hypervisor gave to other machines while processes here waited; 0 where it does not say."""


def cpu_times() -> CpuTimes:
    """What the cores of this machine have done so far. Time spent for guests is in `busy` once."""
    times = psutil.cpu_times()._asdict()
    busy = sum(times.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return CpuTimes(busy, times.get("steal", 0.0))


def cores() -> int:
    """The cores of the machine, whatever part of them this process may use."""
    return psutil.cpu_count() or 1


def usable_cores() -> int | None:
    """The cores that this process may use; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each GPU as nvidia-smi reports them; empty without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        output = subprocess.run(
            [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=SMI_SECONDS,
            check=True,
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = csv.reader(output.splitlines(), skipinitialspace=True)
    return [{"name": row[0], "driver": row[1], "memory": row[2]} for row in rows if len(row) == 3]


def _cpu_model() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor() or None,
    )
