"""Ask a contestant what its recipe is, before anything is spent on it (stage `describe`).

A recipe that the contestant cannot read is the user's mistake: the error repeats the contestant's lines about
it (docs/protocol.md, describe), and no seed is tried. The description is the contestant's claim.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from harness.base.errors import UsageError, Violation
from harness.base.files import last_lines
from harness.base.progress import ProgressCallback
from harness.base.temporary import temporary_folder
from harness.base.text import cut, plain
from harness.protocol.frames import Description
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.plan import StageTerms
from harness.run.submission import Submission
from harness.runners.base import Runner

MISTAKE = re.compile(r"config\.yaml(:[1-9][0-9]{0,8}:[1-9][0-9]{0,8}: .+)")
"""A line about a recipe: `config.yaml:LINE:COLUMN: TEXT`."""
MAX_MISTAKES = 20
MAX_MISTAKE_CHARACTERS = 300


def describe_submission(
    submission: Submission, code: bytes, terms: StageTerms, runner: Runner, on_progress: ProgressCallback
) -> Description:
    """What the program `code` says of the submission's recipe.

    Raises UsageError where it gives no description: with the mistakes that it found in the recipe, or with
    its own last error.
    """
    with temporary_folder() as scratch:
        folder = SeedFolder(scratch)
        folder.code.write_bytes(code)
        folder.config.write_bytes(submission.config)
        # describing reads no tokenizer, but every stage is given a file
        terms = replace(terms, run_id=f"describe-{submission.manifest.name}", tokenizer=folder.config)
        try:
            job = stages.StageJob(runner, terms, 0, folder, keeps_logs=False)
            return stages.describe(job, on_progress)
        except Violation as violation:
            log = folder.log("describe")
            recipe = submission.folder / submission.manifest.config
            if violation.rule == "contestant" and (mistakes := recipe_mistakes(last_lines(log), recipe)):
                raise UsageError("\n".join(mistakes), hint="correct the recipe") from violation
            raise UsageError(f"{submission.folder}: {violation.message}", hint=violation.hint) from violation


def recipe_mistakes(log: list[str], recipe: Path) -> list[str]:
    """The lines of a contestant's log that name a place in its recipe, with the recipe's path in front.

    At most MAX_MISTAKES lines of MAX_MISTAKE_CHARACTERS characters, safe to print.
    """
    mistakes = [plain(match[1]) for line in log if (match := MISTAKE.fullmatch(line.strip()))]
    found = [f"{recipe}{cut(mistake, MAX_MISTAKE_CHARACTERS)}" for mistake in mistakes]
    if len(found) > MAX_MISTAKES:
        return [*found[:MAX_MISTAKES], f"{recipe}: {len(found) - MAX_MISTAKES} more mistakes are not shown"]
    return found
