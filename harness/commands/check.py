"""`pgolf check`: what can be known of a submission in seconds, without data or GPU.

Manifest, image lock and recipe are read; then the contestant builds its model once (stage `describe`) and
claims how many parameters it has and how large it expects to be. Only packing shows the true size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from harness.base.exit_codes import ExitCode
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.commands import options
from harness.data import fineweb, pocket
from harness.edition import PROFILES, TOLERANCES
from harness.run import bundle, plan as plans, submission as submissions
from harness.run.describe import describe_submission
from harness.run.plan import StageTerms
from harness.run.preflight import choose_runner
from harness.runners.select import RunnerName

app = options.new_app()
EXIT = {"pass": ExitCode.VALID, "fail": ExitCode.LIMIT, "unknown": ExitCode.INCONCLUSIVE}
"""By the outcome of the size estimate."""


@app.command()
def check(
    submission: options.Submission,
    profile: options.Profile = "record",
    runner: options.RunnerChoice = None,
    as_json: options.Json = False,
) -> None:
    """Look at a submission without training it: schema, lock, parameters, estimated size. No GPU, no data."""
    with ProgressDisplay() as display:
        checked = check_submission(submission, profile, runner, display)
    if as_json:
        print(json.dumps(checked, indent=1))
    else:
        for key, value in checked.items():
            print(f"{key:20} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    raise typer.Exit(EXIT[checked["size"]])


def check_submission(
    folder: Path, profile: str, wanted: RunnerName | None, display: ProgressDisplay
) -> dict[str, Any]:
    """Manifest, lock, recipe, parameter count and size estimate, JSON-ready.

    `size` is the outcome of the contestant's own estimate: `unknown` within 3 % of the cap.
    """
    submission = submissions.load(folder)
    manifest = submission.manifest
    limits = plans.profile_limits(profile)
    anywhere = PROFILES["pocket"]  # describing needs no GPU
    vocab_size = fineweb.VARIANTS[manifest.dataset].vocab_size if profile != "pocket" else pocket.VOCAB_SIZE
    code_bundle = bundle.build(ROOT / "golf")
    terms = StageTerms("check", manifest.track, profile, anywhere, Path(), vocab_size)
    runner, _ = choose_runner(wanted, manifest, anywhere, display)
    try:
        with display.stage("describe") as on_progress:
            described = describe_submission(submission, code_bundle.pyz, terms, runner, on_progress)
    finally:
        runner.close()
    counted = described.estimated_bytes
    near = abs(counted - limits.counted_bytes) <= TOLERANCES.size_share * limits.counted_bytes
    size = "unknown" if near else "pass" if counted < limits.counted_bytes else "fail"
    return {
        "schema": 1,
        "submission": manifest.name,
        "profile": profile,
        "parameters": described.parameters,
        "techniques": described.techniques,
        "estimated_bytes": counted,
        "code_bytes": len(code_bundle.pyz),
        "config_bytes": len(submission.config),
        "counted_bytes_limit": limits.counted_bytes,
        "size": size,
        "variants": [variant.name for variant in described.variants],
    }
