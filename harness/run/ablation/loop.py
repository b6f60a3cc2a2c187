"""What is unfinished of an ablation, pair by pair: the base of every seed first, since the variants start
from it.

Every finished pair is a file, so an interrupted ablation goes on with the pair that was under way. Not
covered: what the results mean (table.py)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.base import files
from harness.base.errors import MachineFault, UsageError, Violation
from harness.base.progress import ProgressDisplay
from harness.protocol.frames import Description
from harness.run import stages
from harness.run.ablation import pairs
from harness.run.ablation.pairs import PairResult
from harness.run.ablation.study import BASE, Arm, Study, StudyFolder, arms_of, begin, is_begun
from harness.run.describe import describe_submission
from harness.run.folder import SeedFolder
from harness.runners.base import Runner


class Pair(NamedTuple):
    arm: Arm
    seed: int


class AblationResults(NamedTuple):
    """What is known after one call, and what stopped it early, if anything."""

    description: Description
    arms: list[Arm]
    steps: int
    results: dict[tuple[str, int], PairResult]
    """By variant and seed; finished ones only."""
    fault: MachineFault | None
    interrupted: bool


def describe(study: Study, folder: StudyFolder, runner: Runner, display: ProgressDisplay) -> Description:
    """What the contestant says of the recipe, asked once a folder. Raises UsageError for one that it cannot
    read."""
    if (earlier := is_begun(study, folder)) is not None:
        return earlier
    plan = study.plan
    with display.stage("describe") as on_progress:
        described = describe_submission(plan.submission, plan.bundle.pyz, plan.terms, runner, on_progress)
    begin(study, folder, described)
    return described


def steps_of(study: Study, folder: StudyFolder, seed: int, runner: Runner, display: ProgressDisplay) -> int:
    """The steps of every training: those asked for, or as many as the base makes under the profile's own
    train clock.

    Counted once a folder, on the first seed. Raises UsageError when that training fails.
    """
    if study.steps is not None:
        return study.steps
    if folder.steps.exists():
        return int(files.read_json(folder.steps)["steps"])
    plan, counting = study.plan, SeedFolder(folder.path / "counting-steps")
    files.write_bytes(counting.code, plan.bundle.pyz)
    files.write_bytes(counting.config, plan.submission.config)
    job = stages.StageJob(runner, replace(study.terms, limits=study.clock), seed, counting)
    try:
        with display.stage(f"count the steps of {study.clock.train_seconds:g} s") as on_progress:
            trained = stages.train(job, plan.dataset, on_progress)
    except Violation as violation:
        raise UsageError(
            f"steps could not be counted: {violation.message}", hint="--steps names their number"
        ) from violation
    if not trained.claims["steps"]:
        raise UsageError("the contestant counted no step", hint="--steps names their number")
    files.write_json(
        folder.steps, {"steps": trained.claims["steps"], "seed": seed, "train_seconds": trained.seconds}
    )
    shutil.rmtree(counting.checkpoint)
    return int(trained.claims["steps"])


def run(
    study: Study,
    folder: StudyFolder,
    seeds: Sequence[int],
    only: Sequence[str],
    runner: Runner,
    display: ProgressDisplay,
) -> AblationResults:
    """Measures what is unfinished. The folder must be locked by the caller."""
    described = describe(study, folder, runner, display)
    arms = arms_of(study.plan.submission.config, described, only)
    steps = steps_of(study, folder, seeds[0], runner, display)
    asked = [Pair(arm, seed) for arm in arms for seed in seeds]
    results = {
        (pair.arm.name, pair.seed): found
        for pair in asked
        if (found := pairs.load(folder, pair.arm, pair.seed, steps)) is not None
    }
    todo = [pair for pair in asked if (pair.arm.name, pair.seed) not in results]
    known = AblationResults(described, arms, steps, results, None, False)
    if not todo:
        display.say(f"nothing to do: {folder.path} holds every pair")
    try:
        for index, pair in enumerate(todo):
            wait = remaining(list(results.values()), todo[index:])
            title = f"[{len(results) + 1}/{len(asked)}{wait}] {pair.arm.name}, seed {pair.seed}"
            with display.stage(title) as on_progress:
                work = pairs.PairWork(study, folder, pair.arm, pair.seed, steps, runner, on_progress)
                found = work.measure(described.parameters, results.get((BASE, pair.seed)))
            results[pair.arm.name, pair.seed] = found
            if found.message is not None:
                display.say(f"{pair.arm.name}, seed {pair.seed}, {found.stage}: {found.message}")
    except MachineFault as fault:
        return known._replace(fault=fault)
    except OSError as error:
        return known._replace(fault=MachineFault(str(error), hint="check disk space and permissions"))
    except KeyboardInterrupt:
        return known._replace(interrupted=True)
    return known


def remaining(done: Sequence[PairResult], todo: Sequence[Pair]) -> str:
    """The time that is left, from what finished pairs of the same kind took; empty before any did."""
    seconds = {
        kind: [each.wall_seconds for each in done if each.changes == kind]
        for kind in ("train", "pack", "score")
    }
    every = [value for values in seconds.values() for value in values]
    if not every:
        return ""
    expected = sum(
        sum(timing) / len(timing) for pair in todo for timing in [seconds[pair.arm.changes] or every]
    )
    return f", {expected / 60:.0f} min left" if expected >= 60 else f", {expected:.0f} s left"
