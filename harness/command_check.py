"""`pgolf check`: what can be known of a submission in seconds, without data or GPU.

Manifest, image lock and recipe are read, the contestant builds its model once (stage `describe`) and says how many
parameters it has and how large it expects to be. Not covered: the true size, which only packing shows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import bundle, manifest, plan as plans, setup, stages
from harness.data import fineweb, pocket
from harness.edition import PROFILES
from harness.errors import UsageError, Violation
from harness.frames import quote
from harness.paths import ROOT
from harness.progress import Progress
from harness.setup import RunnerName

NEAR_THE_CAP = 0.03
"""Within this share of the cap an estimate decides nothing."""


def check_submission(folder: Path, profile: str, wanted: RunnerName | None, progress: Progress) -> dict[str, Any]:
    """Manifest, lock, recipe, parameter count and size estimate, without data or GPU, in seconds.

    The estimate is the contestant's own and decides nothing within 3 % of the cap: it is `unknown` there.
    """
    submission = manifest.load(folder)
    limits = plans.limits_of(profile)
    anywhere = PROFILES["pocket"]  # describing needs no GPU
    ground = setup.choose_runner(wanted, submission.manifest, anywhere, progress)
    code_bundle = bundle.build(ROOT / "golf")
    with tempfile.TemporaryDirectory(prefix="pgolf-check-") as scratch:
        code, config = Path(scratch, "code.pyz"), Path(scratch, "config.yaml")
        code.write_bytes(code_bundle.pyz)
        config.write_bytes(submission.config)
        vocabulary = fineweb.VARIANTS[submission.manifest.dataset].vocab_size if profile != "pocket" else pocket.VOCAB_SIZE
        tokenizer = config  # a file that is there: describing reads no tokenizer
        job = stages.Job(ground.runner, anywhere, profile, submission.manifest.track, code, config, tokenizer, vocabulary,
                         f"check-{submission.manifest.name}")
        log = Path(scratch, "describe.log")
        try:
            with progress.stage("describe") as say:
                described = stages.describe(job, log, say)
        except Violation as violation:
            raise UsageError(f"{folder}: {violation.message}", hint=_last_words(log) or violation.hint) from violation
        finally:
            ground.runner.close()
    counted = described.estimated_bytes
    near = abs(counted - limits.counted_bytes) <= NEAR_THE_CAP * limits.counted_bytes
    size = "unknown" if near else "pass" if counted < limits.counted_bytes else "fail"
    return {"schema": 1, "submission": submission.manifest.name, "profile": profile, "parameters": described.parameters,
            "techniques": described.techniques, "estimated_bytes": counted, "code_bytes": len(code_bundle.pyz),
            "config_bytes": len(submission.config), "counted_bytes_limit": limits.counted_bytes, "size": size,
            "variants": [variant.name for variant in described.variants]}


def _last_words(log: Path) -> str:
    """The end of the contestant's log, which vanishes with the scratch folder; empty where it said nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return f"its last words: {quote(said[-1])}" if said else ""
