"""The rows of the first and the second call, in the order of their timetables (timetable.py beside this)."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from golf.bench import script
from golf.bench.gpu import (
    attention,
    card,
    golf_model,
    judged,
    opponent,
    pieces,
    quantised_model,
    race,
    record_model,
)
from golf.bench.gpu.call import Call, Run
from golf.bench.gpu.results import Failed, Found, Skipped
from golf.bench.gpu.settings import Settings
from golf.bench.gpu.timetable import FIRST, SECOND, Entry
from golf.bench.gpu.worker import Absent, Process

CACHES = "caches"
"""Folder of the compilers' caches, and the name of its pieces."""
EXPECTED = 1.3
"""The race's schedules expect so many times the steps of #586: a faster golf must not pass their end."""


def install_wheels(settings: Settings, seconds: float) -> Found:
    """Install the carried wheels into this interpreter's own packages, without an index.

    A rehearsal only lets pip find out what it would install.
    """
    folder = settings.carried / "wheels"
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise Skipped(f"{folder} holds no wheel")
    options = () if settings.device.type == "cuda" else ("--dry-run", "--ignore-installed")
    names = sorted({wheel.name.split("-")[0].replace("_", "-") for wheel in wheels})
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--upgrade",
                "--no-index",
                "--no-deps",
                "--no-compile",
            ),
            *("--disable-pip-version-check", "--find-links", str(folder), *options, *names),
        ],
        env={**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1"},  # a distribution's own Python refuses otherwise
        capture_output=True,
        text=True,
        timeout=max(seconds, 1.0),
        check=False,
    )
    if done.returncode:
        raise Failed(f"pip ended with {done.returncode}: {(done.stderr.strip() or '?').splitlines()[-1]}")
    how = "not installed, only resolved: " if options else ""
    return Found(f"{how}{len(names)} packages: {', '.join(names)}")


def _asking(process: Process, request: str, **arguments: Any) -> Run:
    """A row that is one question to a process."""
    return lambda seconds: process.ask(request, seconds, **arguments)


def _opponent(call: Call, settings: Settings, steps: int) -> Process:
    """#586's process, or the reason that there is none."""
    try:
        script.read(settings.script, opponent.SHA256)
    except script.Skip as reason:
        return Absent("#586", str(reason))
    return call.worker("#586", opponent.serve, settings, steps)


def expected_steps(settings: Settings) -> int:
    """Steps of each contestant that the race's schedules expect."""
    return max(8, round(EXPECTED * settings.race_seconds / 2 / settings.step_seconds))


def _race(call: Call, settings: Settings, golf: Process, other: Process, seconds: float) -> Found:
    """As many rounds of turns as fit, from equal weights: rates, losses, memory, shares of the peak.

    golf alone if the opponent is missing.
    """
    if isinstance(other, Absent) or isinstance(golf, Absent) or other.ended:
        found: Found = golf.ask("steps", seconds)
        return Found(f"no race: {other.ended}; golf alone: {found.seen}", found.numbers)
    end = time.monotonic() + min(seconds, settings.race_seconds)
    race.start_equal(other, golf, settings.work / "initial.npz", seconds)
    turns = race.run((golf, other), settings.turn_seconds, end - time.monotonic())
    tokens = settings.hadamard.train.batch_tokens
    ours, theirs = (race.rates(each, tokens) for each in turns)
    found, shares = race.found(ours, theirs, tokens), list[str]()
    flops = call.found("compilation of golf", "flops_per_token") or math.nan
    parameters = call.found("compilation of golf", "parameters") or math.nan
    for process, rates in ((golf, ours), (other, theirs)):
        peak = process.ask("peak_bytes", race.LATE_SECONDS)
        shares.append(
            f"{process.name} {card.share_of_peak(settings.device, rates.median * flops)} counting causal "
            f"attention, {card.share_of_peak(settings.device, rates.median * 6 * parameters)} by 6 N, "
            f"{peak / 2**30:.1f} GiB at most"
        )
    return Found("; ".join([found.seen, *shares]), found.numbers)


def _sliding(call: Call, settings: Settings, golf: Process, seconds: float) -> Found:
    """golf's sliding evaluation, and its seconds a token as a share of #586's."""
    found: Found = golf.ask("sliding", seconds, windows=settings.windows)
    theirs = call.found("sliding evaluation of #586", "seconds_per_token")
    if theirs is None:
        return found
    ratio = found.numbers["seconds_per_token"] / theirs
    return Found(f"{ratio:.3f} of #586's seconds a token; {found.seen}", {**found.numbers, "ratio": ratio})


def first(call: Call, settings: Settings) -> None:
    """The first call: #586's model, the record's training steps, a judged run."""
    call.row("card", partial(card.check, settings.device))
    call.row("wheels", partial(install_wheels, settings))
    steps = expected_steps(settings)
    other = _opponent(call, settings, steps)
    golf = call.worker("golf", golf_model.serve, settings, steps)
    kernels = call.worker("kernels", attention.serve_kernels, settings)
    call.row("attention kernels", _asking(kernels, "errors"))
    kernels.close()
    call.row("compilation of #586", _asking(other, "ready"))
    call.row("compilation of golf", _asking(golf, "ready"))
    call.row("race", partial(_race, call, settings, golf, other))
    call.row("sliding evaluation of #586", _asking(other, "sliding", windows=settings.windows))
    other.close()
    call.row("sliding evaluation of golf", partial(_sliding, call, settings, golf))
    call.row("compiled against plain", _asking(golf, "compiled_against_plain"))
    call.row("kernel times", _asking(golf, "kernel_times"))
    call.row("prefetch", _asking(golf, "prefetch"))
    call.row("profile", _asking(golf, "profile", folder=call.logs))  # last: writing the trace may be slow
    golf.close()
    record = call.worker("SP8192", record_model.serve, settings)
    call.row("compilation of SP8192", _asking(record, "ready"))
    call.row("steps of SP8192", _asking(record, "steps"))
    call.row("Hessians", _asking(record, "hessians"))
    call.row("adaptation", _asking(record, "adaptation", compiled=False))
    record.close()
    call.row("judged run", lambda seconds: judged.run(settings, seconds, call.logs))
    call.row("compile caches", lambda seconds: pieces.pack(settings.caches, settings.out, CACHES))


def second(call: Call, settings: Settings) -> None:
    """The second call: what another compilation decides, with the caches of the first."""
    call.row("card", partial(card.check, settings.device))
    call.row("caches of the first call", lambda seconds: unpack_caches(settings))
    golf = call.worker("golf", golf_model.serve, settings, 1)
    call.row("compilation of golf", _asking(golf, "ready"))
    call.row("switches of the graph", lambda seconds: golf.ask("graph_switches", seconds, within=seconds))
    golf.close()
    record = call.worker("SP8192", record_model.serve, settings)
    call.row("compilation of SP8192", _asking(record, "ready"))
    call.row("sliding evaluation of SP8192", _asking(record, "sliding", windows=settings.windows))
    call.row("compiled adaptation", _asking(record, "adaptation", compiled=True))
    record.close()
    quantised = call.worker("quantised", quantised_model.serve, settings)
    call.row("quantisation-aware training", _asking(quantised, "cost"))
    quantised.close()
    call.row("compile caches", lambda seconds: pieces.pack(settings.caches, settings.out, CACHES))


def unpack_caches(settings: Settings) -> Found:
    """Put the caches of the first call where the compilers look."""
    return pieces.unpack(settings.carried, CACHES, settings.caches.parent)


CALLS: dict[str, tuple[Callable[[Call, Settings], None], Sequence[Entry]]] = {
    "first": (first, FIRST),
    "second": (second, SECOND),
}
"""Name -> the rows and their timetable."""
