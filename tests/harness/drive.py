"""Runs or ablates a submission of a test contestant in a process of its own, so that tests can interrupt and
kill it.

python -m tests.harness.drive run|ablate SUBMISSION DATASET RUNS RUNNER PACKAGE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness import cli
from harness.base.progress import ProgressDisplay
from harness.commands import ablate, run
from harness.verdict import decide


def drive() -> None:
    what, submission, dataset, runs, runner, package = sys.argv[1:7]
    with ProgressDisplay() as display:
        if what == "ablate":
            options = ablate.AblationOptions(
                submission=Path(submission),
                seeds=[1, 2],
                steps=3,
                data=Path(dataset),
                runner=runner,  # type: ignore[arg-type]
                runs=Path(runs),
                package=Path(package),
            )
            found = ablate.ablate_submission(options, display)
        else:
            asked = run.RunOptions(
                submission=Path(submission),
                data=Path(dataset),
                runner=runner,  # type: ignore[arg-type]
                runs=Path(runs),
                package=Path(package),
            )
            found = run.run_submission(asked, display)
    print(json.dumps(found))
    raise SystemExit(found["exit_code"] if what == "ablate" else decide.exit_code(found))


if __name__ == "__main__":
    # the same handling of errors and signals as the console script
    cli.app = drive  # type: ignore[assignment]
    cli.main()
