"""`pgolf ablate`: from a submission's folder to a table of what each of its techniques is worth.

Not covered: the command line itself (cli.py), and a verdict: an ablation measures, it judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base import host
from harness.base.errors import UsageError
from harness.base.exit_codes import ExitCode
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.data.dataset import Dataset
from harness.run import bundle, plan as plans, preflight, submission as manifest
from harness.run.ablation import loop, report
from harness.run.ablation.loop import AblationResults
from harness.run.ablation.study import GENEROUS, Study, StudyFolder, with_generous_clocks
from harness.run.ablation.table import RATIO_IS, STEP_IS, rows
from harness.run.plan import Plan
from harness.run.preflight import RunnerName
from harness.runners.base import Runner

SCHEMA = 1


def ablate(
    folder: Path,
    profile: str,
    seeds: Sequence[int],
    steps: int | None,
    only: Sequence[str],
    val_tokens: int | None,
    data: Path | None,
    wanted: RunnerName | None,
    runs: Path,
    command: str,
    progress: ProgressDisplay,
    package: Path = ROOT / "golf",
) -> dict[str, Any]:
    """Measures what is unfinished of the ablation; returns ablation.json's content, which is written too.

    `seeds` are any numbers, the manifest's where none are given; `package` is the contestant's code.
    """
    submission = manifest.load(folder)
    clock = plans.profile_limits(profile)
    if any(not 0 <= seed < 2**32 for seed in seeds):
        raise UsageError(
            f"--seeds {', '.join(map(str, seeds))}: each from 0 to {2**32 - 1}", hint="--seeds 1337,42"
        )
    asked = list(dict.fromkeys(seeds)) or submission.manifest.seeds
    dataset = preflight.choose_dataset(data, profile, submission.manifest.dataset, progress)
    _refuse_lengths(dataset, steps, val_tokens)
    ground = preflight.choose_runner(wanted, submission.manifest, clock, progress)
    try:
        plan = Plan(
            submission,
            profile,
            with_generous_clocks(clock),
            dataset,
            bundle.build(package),
            ground.runner.name,
            ground.runner.image,
            ground.image_lock,
        )
        study = Study(plan, clock, steps, val_tokens)
        place = study.folder(runs)
        with place.locked():
            known = loop.run(study, place, asked, only, ground.runner, progress)
            table = _table(study, place, asked, known, ground.runner, command)
            report.write(table, place)
            return table
    finally:
        ground.runner.close()


def _refuse_lengths(dataset: Dataset, steps: int | None, val_tokens: int | None) -> None:
    """Raises UsageError for numbers that make no sense, before anything is spent on them."""
    if steps is not None and steps < 1:
        raise UsageError(
            f"--steps {steps}: at least 1", hint="leave it out to train as many steps as the clock allows"
        )
    total = dataset.validation_tokens_total
    if val_tokens is not None and not 2 <= val_tokens <= total:
        raise UsageError(
            f"--val-tokens {val_tokens}: from 2 to the {total} that dataset {dataset.name} has",
            hint="leave it out to score all of them",
        )


def _table(
    study: Study, place: StudyFolder, seeds: list[int], known: AblationResults, runner: Runner, command: str
) -> dict[str, Any]:
    plan, results = study.plan, list(known.results.values())
    loads = [load for each in results if each.load is not None for load in each.load]
    stopped = "interrupted" if known.interrupted else known.fault and str(known.fault)
    counted = study.steps is None and f"what the train clock of {study.clock.train_seconds:g} s allowed here"
    return {
        "schema": SCHEMA,
        "submission": plan.submission.manifest.name,
        "profile": plan.profile,
        "command": command,
        "runner": runner.name,
        "isolation": runner.isolation,
        "image": plan.image,
        "image_lock": plan.image_lock,
        "host": host.facts(),
        "dataset": {"name": plan.dataset.name, "sha256": plan.dataset.sha256},
        "code_sha256": plan.bundle.sha256,
        "config_sha256": plan.facts()["identity"]["config"],
        "techniques": known.description.techniques,
        "steps": known.steps,
        "steps_from": counted or "as asked",
        "seeds": seeds,
        "val_tokens": study.val_tokens,
        "scored_tokens": next((each.scored_tokens for each in results if each.scored_tokens), None),
        "limits": plan.limits.public(),
        "clocks": GENEROUS,
        "cap": plan.limits.counted_bytes,
        "ratio_is": RATIO_IS,
        "step_is": STEP_IS,
        "load": [min(loads), max(loads)] if loads else None,
        "stopped": stopped,
        "exit_code": _exit_code(known, len(known.arms) * len(seeds)),
        "rows": rows(known.arms, seeds, known.results, plan.limits.counted_bytes),
        "pairs": [each.model_dump(mode="json") for each in results],
        "run_dir": str(place.path),
    }


def _exit_code(known: AblationResults, asked: int) -> int:
    """As of a verdict (docs/rules.md): machine, interrupted, limit, failure, all measured."""
    outcomes = {each.outcome for each in known.results.values()}
    if known.fault is not None:
        return ExitCode.MACHINE
    if known.interrupted:
        return ExitCode.INTERRUPTED
    assert len(known.results) == asked, "a loop that ends by itself leaves no pair"
    if "over_limit" in outcomes:
        return ExitCode.LIMIT
    return ExitCode.VIOLATION if "failed" in outcomes else ExitCode.VALID
