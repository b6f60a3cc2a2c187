"""What other processes took of this machine's cores while a stage's clock ran, measured from outside.

    with measured(process.cpu_seconds, keep) as meter:
        ...

A busy machine costs a contestant steps and seconds, and nothing else in a run shows it. The share is a fact
that changes no verdict. Other processes are all but the contestant and this one, the container engine
included: the busy time of all cores, less the contestant's and the judge's own. Time that a hypervisor gave
to other machines (steal) counts apart.

Not covered: a core that runs slower (heat, a neighbour's hyper-thread), and waiting for memory, disks and
GPUs. Where a contestant's process ended before it was read, its time is not known, and there is no share. In
the local runner the time of ended children that nobody waits for (SIGCHLD ignored) counts as that of others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from harness.base import host
from harness.base.host import CpuTimes
from harness.edition import BUSY_SHARE

LEAST_SECONDS = 1.0
"""A shorter clock has no share: the system counts in ticks of 0.01 s, each core and process by itself."""

CpuSeconds = Callable[[], float | None]
"""The CPU seconds that a contestant took so far; None where they cannot be known."""


class CpuUse(BaseModel):
    """CPU seconds of all cores together while a clock ran; sums where it ran more than once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seconds: float = Field(ge=0)
    """Wall time."""
    cores: int = Field(gt=0)
    busy_seconds: float = Field(ge=0)
    """Of all processes."""
    stolen_seconds: float = Field(ge=0)
    """What a hypervisor gave to other machines."""
    judge_seconds: float = Field(ge=0)
    contestant_seconds: float | None = Field(ge=0)
    """None where they could not be read."""

    def __add__(self, other: CpuUse) -> CpuUse:
        ours, theirs = self.contestant_seconds, other.contestant_seconds
        return CpuUse(
            seconds=self.seconds + other.seconds,
            cores=self.cores,
            busy_seconds=self.busy_seconds + other.busy_seconds,
            stolen_seconds=self.stolen_seconds + other.stolen_seconds,
            judge_seconds=self.judge_seconds + other.judge_seconds,
            contestant_seconds=None if ours is None or theirs is None else ours + theirs,
        )

    @property
    def others_share(self) -> float | None:
        """What other processes took of the cores, 0 to 1; None where it is not known."""
        if self.contestant_seconds is None:
            return None
        return self._share(self.busy_seconds - self.judge_seconds - self.contestant_seconds)

    @property
    def stolen_share(self) -> float | None:
        """What a hypervisor took of the cores, 0 to 1; None for a short clock."""
        return self._share(self.stolen_seconds)

    def _share(self, cpu_seconds: float) -> float | None:
        if self.seconds < LEAST_SECONDS:
            return None
        return round(min(max(cpu_seconds / (self.cores * self.seconds), 0.0), 1.0), 4)


class _Reading(NamedTuple):
    """All counters at one moment."""

    at: float
    machine: CpuTimes
    judge_seconds: float
    contestant_seconds: float | None

    def until(self, end: _Reading) -> CpuUse:
        """What was used from this moment to a later one."""
        before, after, contestant = self.contestant_seconds, end.contestant_seconds, None
        if before is not None and after is not None and after >= before:  # less: a process was lost
            contestant = round(after - before, 3)
        return CpuUse(
            seconds=round(end.at - self.at, 3),
            cores=host.cores(),
            busy_seconds=round(max(end.machine.busy - self.machine.busy, 0.0), 3),
            stolen_seconds=round(max(end.machine.stolen - self.machine.stolen, 0.0), 3),
            judge_seconds=round(end.judge_seconds - self.judge_seconds, 3),
            contestant_seconds=contestant,
        )


class Meter:
    """Measures from its making until `stop`, and reports once."""

    def __init__(self, contestant: CpuSeconds, report: Callable[[CpuUse], None]) -> None:
        self.contestant, self.report, self.stopped = contestant, report, False
        self.start = self._read()

    def _read(self) -> _Reading:
        return _Reading(time.monotonic(), host.cpu_times(), time.process_time(), self.contestant())

    def stop(self) -> None:
        """Report what was used. Does nothing if it was called before."""
        if not self.stopped:
            self.stopped = True
            self.report(self.start.until(self._read()))


@contextmanager
def measured(contestant: CpuSeconds, report: Callable[[CpuUse], None]) -> Iterator[Meter]:
    """Reports the use of the block also where it raises, or before its end if the meter is stopped."""
    meter = Meter(contestant, report)
    try:
        yield meter
    finally:
        meter.stop()


def unreported(use: CpuUse) -> None:
    """Ignore the use: for a stage of which nobody keeps it."""


def busy_sentence(others: dict[str, float | None], stolen: dict[str, float | None]) -> str | None:
    """The stages in which more than BUSY_SHARE of the cores was taken; None where there is none.

    Both map stages to shares; a share that is not known says nothing.
    """
    parts = [
        f"{who} took {', '.join(f'{100 * share:.0f} % in {stage}' for stage, share in large.items())}"
        for who, shares in (("other processes", others), ("the hypervisor", stolen))
        if (large := {stage: share for stage, share in shares.items() if share and share > BUSY_SHARE})
    ]
    return f"the machine was busy: of its cores {' and '.join(parts)}" if parts else None
