"""One judged run through `pgolf run` in a process of its own, as a person would start it.

The local runner starts the contestant with this interpreter and a scrubbed environment, so what it needs must
be installed in this interpreter's own packages. golf never imports the judge: it reads verdict.json.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.settings import SUBMISSIONS, Settings

ROOT = SUBMISSIONS.parent
SEED = 1337
SECONDS_TO_STOP = 10.0
"""Kept for the judge to stop its contestant and to write what it knows."""
CLOCKS = ("setup", "train", "pack", "score")
KEPT = (".json", ".jsonl", ".log", ".md", ".txt")
"""Files of a run folder that come back; checkpoint, artifact and ledgers stay."""


def command(settings: Settings, runs: Path) -> list[str]:
    """The command line of the run."""
    return [
        *(sys.executable, "-m", "harness.cli", "run", str(settings.submission), "--runner", "local"),
        *(
            "--seeds",
            str(SEED),
            "--data",
            str(settings.data),
            "--runs",
            str(runs),
            "--json",
            *settings.judged,
        ),
    ]


def run(settings: Settings, seconds: float, logs: Path) -> Found:
    """Run it for at most so many seconds. Raises Failed without a score, with the last line of its log."""
    runs = settings.work / "runs"
    stderr = logs / "judged.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with stderr.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command(settings, runs),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        late = False
        try:
            status = process.wait(max(seconds - SECONDS_TO_STOP, 1.0))
        except subprocess.TimeoutExpired:
            late = True
            process.send_signal(signal.SIGINT)
            try:
                status = process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
    keep(runs, logs / "judged")
    verdicts = sorted(runs.glob("*/*/verdict.json"))
    if not verdicts:
        lines = [line for line in stderr.read_text(encoding="utf-8").splitlines() if line.strip()]
        said = lines[-1][:200] if lines else "nothing"
        raise Failed(f"{'stopped for lack of time, ' if late else ''}status {status}, no verdict; {said}")
    return summary(json.loads(verdicts[-1].read_text(encoding="utf-8")), status, late)


def summary(verdict: dict[str, Any], status: int, late: bool) -> Found:
    """A verdict in a line. Raises Failed where the seed was not scored, with the reason."""
    seed = next(each for each in verdict["seeds"] if each["seed"] == SEED)
    clocks = ", ".join(
        f"{name} {seed[f'{name}_seconds']:.1f} s" for name in CLOCKS if seed.get(f"{name}_seconds")
    )
    text = f"verdict {verdict['verdict']} (exit status {status}); {clocks}; isolation {verdict['isolation']}"
    if seed.get("bpb") is None:
        reason = f": {seed['reason'].splitlines()[0]}" if seed.get("reason") else ""
        raise Failed(f"{'stopped for lack of time; ' if late else ''}seed {seed['outcome']}{reason}; {text}")
    if late:
        text = f"stopped for lack of time after the score; {text}"
    return Found(f"{seed['bpb']:.4f} bits per byte (no measure of quality); {text}", {"verdict": verdict})


def keep(runs: Path, folder: Path) -> None:
    """Copy the small files of the run folders, whatever became of the run."""
    for path in sorted(runs.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix in KEPT:
            target = folder / path.relative_to(runs)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
