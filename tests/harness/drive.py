"""Runs a submission of a test contestant in a process of its own, so that tests can interrupt and kill it.

    python -m tests.harness.drive SUBMISSION DATASET RUNS RUNNER PACKAGE [SEEDS]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness import cli, command_run, verdict
from harness.progress import Progress


def drive() -> None:
    submission, dataset, runs, runner, package = sys.argv[1:6]
    seeds = [int(seed) for seed in sys.argv[6].split(",")] if len(sys.argv) > 6 else None
    with Progress() as progress:
        judged = command_run.run_submission(Path(submission), "pocket", seeds, Path(dataset), runner, Path(runs), False,
                                            progress, Path(package))
    print(json.dumps(judged))
    raise SystemExit(verdict.exit_code(judged))


if __name__ == "__main__":
    cli.app = drive  # type: ignore[assignment]  # the same handling of errors and signals as the console script
    cli.main()
