"""Ask a contestant what its recipe is, before anything is spent on it (stage `describe`).

A recipe that the contestant cannot read is the user's mistake: the error quotes the end of the contestant's
log, and no seed is tried. The description is the contestant's claim.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from harness.base.errors import UsageError, Violation
from harness.base.progress import ProgressCallback
from harness.base.text import quote
from harness.protocol.frames import Description
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.plan import StageTerms
from harness.run.submission import Submission
from harness.runners.base import Runner


def describe_submission(
    submission: Submission, code: bytes, terms: StageTerms, runner: Runner, on_progress: ProgressCallback
) -> Description:
    """What the program `code` says of the submission's recipe.

    Raises UsageError where it gives no description; its hint is the last line of the contestant's log.
    """
    with tempfile.TemporaryDirectory(prefix="pgolf-describe-") as scratch:
        folder = SeedFolder(Path(scratch))
        folder.code.write_bytes(code)
        folder.config.write_bytes(submission.config)
        # describing reads no tokenizer, but every stage is given a file
        terms = replace(terms, run_id=f"describe-{submission.manifest.name}", tokenizer=folder.config)
        try:
            return stages.describe(stages.StageJob(runner, terms, 0, folder), on_progress)
        except Violation as violation:
            raise UsageError(
                f"{submission.folder}: {violation.message}",
                hint=_last_line(folder.log("describe")) or violation.hint,
            ) from violation


def _last_line(log: Path) -> str:
    """The last line of the contestant's log, quoted for a hint; empty where it printed nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    printed = [line.strip() for line in lines if line.strip()]
    return f"its last words: {quote(printed[-1])}" if printed else ""
