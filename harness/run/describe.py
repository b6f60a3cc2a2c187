"""Asking a contestant what its recipe is, before anything is spent on it (stage `describe`).

A recipe that the contestant cannot read is the user's mistake: it is told with the contestant's own last
words, and no seed is tried. Not covered: whether what is described is true; it is a claim."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.base.errors import UsageError, Violation
from harness.base.progress import ProgressCallback
from harness.base.text import quote
from harness.edition import Limits
from harness.protocol.frames import Description
from harness.run import stages
from harness.run.submission import Submission
from harness.runners.base import Runner


def describe_submission(
    submission: Submission,
    code: bytes,
    profile: str,
    limits: Limits,
    vocab_size: int,
    runner: Runner,
    report: ProgressCallback,
) -> Description:
    """What the program `code` says of the submission's recipe.

    Raises UsageError, whose hint is the contestant's last words, when it says nothing of use.
    """
    with tempfile.TemporaryDirectory(prefix="pgolf-describe-") as scratch:
        code_path, config, log = (
            Path(scratch, "code.pyz"),
            Path(scratch, "config.yaml"),
            Path(scratch, "describe.log"),
        )
        code_path.write_bytes(code)
        config.write_bytes(submission.config)
        tokenizer = config  # a file that is there: describing reads no tokenizer
        job = stages.StageJob(
            runner,
            limits,
            profile,
            submission.manifest.track,
            code_path,
            config,
            tokenizer,
            vocab_size,
            f"describe-{submission.manifest.name}",
        )
        try:
            return stages.describe(job, log, report)
        except Violation as violation:
            raise UsageError(
                f"{submission.folder}: {violation.message}", hint=_last_words(log) or violation.hint
            ) from violation


def _last_words(log: Path) -> str:
    """The end of the contestant's log, which vanishes with the scratch folder; empty where it said
    nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return f"its last words: {quote(said[-1])}" if said else ""
