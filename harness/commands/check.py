"""`pgolf check`: what can be known of a submission in seconds, without data or GPU.

Manifest, image locks and recipe are read; then the contestant builds its model once (stage `describe`) and
claims how many parameters it has and how large it expects to be. Only packing shows the true size, so an
estimate near the cap is no error.
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
from harness.edition import PROFILES
from harness.run import bundle, plan as plans, submission as submissions
from harness.run.describe import describe_submission
from harness.run.estimated_size import estimated_size
from harness.run.plan import StageTerms
from harness.run.preflight import choose_runner, require_lock
from harness.run.remarks import remarks
from harness.runners.select import RunnerName

app = options.new_app()
IMAGES = ("cpu", "cuda")


@app.command()
def check(
    submission: options.Submission,
    profile: options.Profile = "pocket",
    runner: options.RunnerChoice = None,
    as_json: options.Json = False,
) -> None:
    """Look at a submission without training it: manifest, locks, recipe, size. No GPU, no data."""
    with ProgressDisplay() as display:
        checked = check_submission(submission, profile, runner, display)
    print(json.dumps(checked, indent=1) if as_json else _printed(checked))
    raise typer.Exit(ExitCode.LIMIT if checked["size"] == "fail" else ExitCode.VALID)


def check_submission(
    folder: Path, profile: str, wanted: RunnerName | None, display: ProgressDisplay
) -> dict[str, Any]:
    """Manifest, locks, recipe, parameter count, size estimate and remarks, JSON-ready.

    `size` is the outcome of the contestant's own estimate: `unknown` from 3 % below the cap to 20 % above it.
    """
    submission = submissions.load(folder)
    manifest = submission.manifest
    for image in IMAGES:
        require_lock(manifest, image)
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
    size, estimate = estimated_size(described.estimated_bytes, limits.counted_bytes)
    return {
        "schema": 1,
        "submission": manifest.name,
        "profile": profile,
        "parameters": described.parameters,
        "techniques": described.techniques,
        "estimated_bytes": described.estimated_bytes,
        "code_bytes": len(code_bundle.pyz),
        "config_bytes": len(submission.config),
        "counted_bytes_limit": limits.counted_bytes,
        "size": size,
        "estimate": estimate,
        "variants": [variant.name for variant in described.variants],
        "remarks": [
            *remarks(submission),
            *(f"the contestant says: {remark}" for remark in described.remarks),
        ],
    }


def _printed(checked: dict[str, Any]) -> str:
    """One line a fact, remarks last."""
    rows = [
        ("submission", checked["submission"]),
        ("profile", checked["profile"]),
        ("image locks", f"{' and '.join(IMAGES)} as the manifest names them"),
        ("parameters", f"{checked['parameters']:,}, as the contestant counts them"),
        ("estimated size", checked["estimate"]),
        ("code", f"{checked['code_bytes']:,} bytes"),
        ("recipe", f"{checked['config_bytes']:,} bytes"),
        ("techniques", ", ".join(checked["techniques"]) or "none"),
        ("variants", f"{len(checked['variants'])}, for `pgolf ablate`"),
        *(("remark", remark) for remark in checked["remarks"]),
    ]
    return "\n".join(f"{name:15} {text}" for name, text in rows)
