"""`pgolf check`: what can be known of a submission in seconds, without data or GPU.

Manifest, image lock and recipe are read, the contestant builds its model once (stage `describe`) and says how
many parameters it has and how large it expects to be. Not covered: the true size, which only packing shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.data import fineweb, pocket
from harness.edition import PROFILES, TOLERANCES
from harness.run import bundle, describe, plan as plans, preflight, submission as manifest
from harness.run.preflight import RunnerName


def check_submission(
    folder: Path, profile: str, wanted: RunnerName | None, progress: ProgressDisplay
) -> dict[str, Any]:
    """Manifest, lock, recipe, parameter count and size estimate, without data or GPU, in seconds.

    The estimate is the contestant's own and decides nothing within 3 % of the cap: it is `unknown` there.
    """
    submission = manifest.load(folder)
    limits = plans.profile_limits(profile)
    anywhere = PROFILES["pocket"]  # describing needs no GPU
    ground = preflight.choose_runner(wanted, submission.manifest, anywhere, progress)
    code_bundle = bundle.build(ROOT / "golf")
    vocabulary = (
        fineweb.VARIANTS[submission.manifest.dataset].vocab_size if profile != "pocket" else pocket.VOCAB_SIZE
    )
    try:
        with progress.stage("describe") as report:
            described = describe.describe_submission(
                submission, code_bundle.pyz, profile, anywhere, vocabulary, ground.runner, report
            )
    finally:
        ground.runner.close()
    counted = described.estimated_bytes
    near = abs(counted - limits.counted_bytes) <= TOLERANCES.size_share * limits.counted_bytes
    size = "unknown" if near else "pass" if counted < limits.counted_bytes else "fail"
    return {
        "schema": 1,
        "submission": submission.manifest.name,
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
