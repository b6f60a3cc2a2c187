"""Run or ablate a test submission in a process of its own, so that tests can interrupt and kill it.

python -m tests.harness.fakes.drive run|ablate SUBMISSION DATASET RUNS RUNNER PACKAGE
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
            ablation = ablate.AblationOptions(
                submission=Path(submission),
                seeds=[1, 2],
                steps=3,
                data=Path(dataset),
                runner=runner,  # type: ignore[arg-type]
                runs=Path(runs),
                package=Path(package),
            )
            result = ablate.ablate_submission(ablation, display)
        else:
            options = run.RunOptions(
                submission=Path(submission),
                data=Path(dataset),
                runner=runner,  # type: ignore[arg-type]
                runs=Path(runs),
                package=Path(package),
            )
            result = run.run_submission(options, display)
    print(json.dumps(result))
    raise SystemExit(
        result["exit_code"]
        if what == "ablate"
        else decide.exit_code(result, stopped=result["harness"]["stopped"])
    )


if __name__ == "__main__":
    # cli.main handles errors and signals as in the console script
    cli.app = drive  # type: ignore[assignment]
    cli.main()
