"""Run the unfinished pairs (variant, seed) of an ablation, all seeds of the base first.

The base comes first because variants reuse its checkpoint and its scores. Every finished pair is a file, so
an interrupted ablation resumes at the pair that was running.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.base import disk, files
from harness.base.errors import MachineFault, UsageError, Violation
from harness.base.progress import ProgressDisplay
from harness.base.signals import INTERRUPTED
from harness.protocol.frames import Description
from harness.run import stages
from harness.run.ablation import pairs
from harness.run.ablation.pairs import PairResult
from harness.run.ablation.study import BASE, Arm, Study, StudyFolder, arms_of, load_description, save
from harness.run.describe import describe_submission
from harness.run.folder import SeedFolder
from harness.runners.base import Runner


class Pair(NamedTuple):
    arm: Arm
    seed: int


class AblationResults(NamedTuple):
    """All results so far, and what stopped the ablation early, if anything did."""

    description: Description
    arms: list[Arm]
    steps: int
    results: dict[tuple[str, int], PairResult]
    """By variant and seed; finished pairs only."""
    fault: MachineFault | None
    interrupted: bool


def describe(study: Study, folder: StudyFolder, runner: Runner, display: ProgressDisplay) -> Description:
    """What the contestant says of the recipe; asked once for each folder.

    Raises UsageError for a recipe that the contestant cannot read.
    """
    if (stored := load_description(study, folder)) is not None:
        return stored
    plan = study.plan
    with display.stage("describe") as on_progress:
        described = describe_submission(plan.submission, plan.bundle.pyz, plan.terms, runner, on_progress)
    save(study, folder, described)
    return described


def steps_of(study: Study, folder: StudyFolder, seed: int, runner: Runner, display: ProgressDisplay) -> int:
    """The steps of every training: `study.steps`, or what the base does in the profile's own train clock.

    Counted once for each folder, on the first seed. Raises UsageError if that training fails.
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
            f"steps could not be counted: {violation.message}", hint="--steps sets their number"
        ) from violation
    if not trained.claims["steps"]:
        raise UsageError("the contestant reported 0 steps", hint="--steps sets their number")
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
    """Measure the unfinished pairs. The caller holds the folder's lock."""
    described = describe(study, folder, runner, display)
    arms = arms_of(study.plan.submission.config, described, only)
    steps = steps_of(study, folder, seeds[0], runner, display)
    every_pair = [Pair(arm, seed) for arm in arms for seed in seeds]
    results = {
        (pair.arm.name, pair.seed): found
        for pair in every_pair
        if (found := pairs.load(folder, pair.arm, pair.seed, steps)) is not None
    }
    todo = [pair for pair in every_pair if (pair.arm.name, pair.seed) not in results]
    so_far = AblationResults(described, arms, steps, results, None, False)
    if not todo:
        display.say(f"nothing to do: {folder.path} holds every pair")
    try:
        for index, pair in enumerate(todo):
            wait = remaining(list(results.values()), todo[index:])
            title = f"[{len(results) + 1}/{len(every_pair)}{wait}] {pair.arm.name}, seed {pair.seed}"
            with display.stage(title) as on_progress:
                work = pairs.PairWork(study, folder, pair.arm, pair.seed, steps, runner, on_progress)
                found = work.measure(described.parameters, results.get((BASE, pair.seed)))
            results[pair.arm.name, pair.seed] = found
            if found.message is not None:
                display.say(f"{pair.arm.name}, seed {pair.seed}, {found.stage}: {found.message}")
    except MachineFault as fault:
        return so_far._replace(fault=fault)
    except OSError as error:
        return so_far._replace(fault=disk.machine_fault(error, folder.path))
    except KeyboardInterrupt:
        display.say(INTERRUPTED)
        return so_far._replace(interrupted=True)
    return so_far


def remaining(done: Sequence[PairResult], todo: Sequence[Pair]) -> str:
    """The time left, estimated from finished pairs that change the same stage; empty without any."""
    seconds = {
        kind: [each.wall_seconds for each in done if each.changes == kind]
        for kind in ("train", "pack", "score")
    }
    all_seconds = [value for values in seconds.values() for value in values]
    if not all_seconds:
        return ""
    expected = sum(
        sum(timing) / len(timing) for pair in todo for timing in [seconds[pair.arm.changes] or all_seconds]
    )
    return f", {expected / 60:.0f} min left" if expected >= 60 else f", {expected:.0f} s left"
