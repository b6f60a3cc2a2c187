"""`pgolf run`: from a submission's folder to a verdict.

Joins the pieces in order: manifest, ground, plan, seeds, verdict, report. Not covered: the command line
itself (cli.py)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base import files, host
from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.run import bundle, describe, plan as plans, preflight, seeds as run, submission as manifest
from harness.run.certify import WitnessRequest, load_state
from harness.run.folder import RunFolder
from harness.run.plan import Plan
from harness.run.preflight import RunnerName
from harness.run.records import SeedRecord
from harness.run.submission import Submission
from harness.runners.base import Runner
from harness.verdict import decide, report
from harness.verdict.rules import Evidence


def run_submission(
    folder: Path,
    profile: str,
    seeds: Sequence[int] | None,
    data: Path | None,
    wanted: RunnerName | None,
    runs: Path,
    again: bool,
    progress: ProgressDisplay,
    package: Path = ROOT / "golf",
    train_seconds: float | None = None,
    request: WitnessRequest | None = None,
) -> dict[str, Any]:
    """Trains, packs, scores and judges what is unfinished; returns verdict.json's content, which is written
    too.

    `package` is the contestant's code, a folder called golf; `train_seconds` shortens the profile's train
    clock; `request`: what a witness is asked, None for nothing. Raises UsageError for a recipe that the
    contestant cannot read, before the first seed."""
    begun = time.monotonic()
    submission = manifest.load(folder)
    limits = plans.profile_limits(profile, train_seconds)
    asked = _seeds(submission, seeds)
    dataset = preflight.choose_dataset(data, profile, submission.manifest.dataset, progress)
    ground = preflight.choose_runner(wanted, submission.manifest, limits, progress)
    runner = ground.runner
    try:
        plan = Plan(
            submission,
            profile,
            limits,
            dataset,
            bundle.build(package),
            runner.name,
            runner.image,
            ground.image_lock,
        )
        place = plan.folder(runs)
        with place.locked():
            if again:
                _archive(place, asked, progress)
            if not plans.is_begun(plan, place):
                _describe(plan, place, runner, progress)
            ran = run.run_seeds(plan, place, asked, runner, progress, request)
            if ran.fault is not None:
                progress.say(str(ran.fault))
            if ran.interrupted:
                progress.say("interrupted: the same command goes on where this one stopped")
            _say_other_request(place, asked, request, progress)
            if ran.attempts == 0:
                progress.say(f"nothing to do: {place.path} holds every seed (--again runs them anew)")
            stopped = "machine" if ran.fault is not None else "interrupted" if ran.interrupted else None
            spent = {
                "stopped": stopped,
                "wall_seconds": round(time.monotonic() - begun, 3),
                "stage_seconds": round(ran.stage_seconds, 3),
                "stage_attempts": ran.attempts,
            }
            return _conclude(plan, place, asked, runner, spent)
    finally:
        runner.close()


def _seeds(submission: Submission, seeds: Sequence[int] | None) -> list[int]:
    if not seeds:
        return list(submission.manifest.seeds)
    unknown = [seed for seed in seeds if seed not in submission.manifest.seeds]
    if unknown:
        raise UsageError(
            f"seed {unknown[0]} is not one of the manifest's: {submission.manifest.seeds}",
            hint="seeds are declared before the run, not chosen after it (R10)",
        )
    return list(dict.fromkeys(seeds))


def _describe(plan: Plan, place: RunFolder, runner: Runner, progress: ProgressDisplay) -> None:
    """Asks what the recipe is, once for each run folder: a recipe that cannot be read must not cost every
    seed."""
    with progress.stage("describe") as report:
        described = describe.describe_submission(
            plan.submission,
            plan.bundle.pyz,
            plan.profile,
            plan.limits,
            plan.dataset.vocab_size,
            runner,
            report,
        )
    plans.write(plan, place, described)


def _say_other_request(
    place: RunFolder, seeds: Sequence[int], request: WitnessRequest | None, progress: ProgressDisplay
) -> None:
    """A witness that was begun keeps its coins and its number: who asks for another is told where to."""
    for seed in seeds:
        begun = load_state(place.seed(seed))
        if request is not None and begun is not None and begun.request() != request:
            progress.say(
                f"seed {seed}: the witness begun with {begun.probes:,} probes stands; `pgolf rescore "
                f"{place.path} "
                f"--witness {request.probes}` asks another"
            )


def _archive(place: RunFolder, seeds: Sequence[int], progress: ProgressDisplay) -> None:
    """Keeps what earlier runs of these seeds left, under a new name: nothing is lost, nothing is
    overwritten."""
    for seed in seeds:
        source = place.seed(seed).path
        if source.exists():
            target = next(
                path
                for n in itertools.count(1)
                if not (path := source.with_name(f"{source.name}.earlier-{n}")).exists()
            )
            source.rename(target)
            progress.say(f"kept the earlier run of seed {seed} as {target.name}")


def _conclude(
    plan: Plan, place: RunFolder, seeds: Sequence[int], runner: Runner, spent: dict[str, Any]
) -> dict[str, Any]:
    records = run.seed_records(place, seeds)
    facts = evidence(plan, records, runner, tuple(seed for seed in seeds if place.earlier(seed)))
    rows = [decide.seed_row(facts, record, str(place.seed(record.seed).path)) for record in records]
    if spent["stage_attempts"] == 0 and place.verdict.exists():
        earlier = files.read_json(place.verdict).get(
            "harness", spent
        )  # a run that did nothing measured nothing new
        spent = {**earlier, "stopped": None}
    extra = {"compressors": plan.dataset.compressors, "run_dir": str(place.path), "harness": spent}
    judged = decide.assemble(facts, rows, host.facts(), extra)
    report.write(judged, place)
    return judged


def evidence(plan: Plan, records: list[SeedRecord], runner: Runner, set_aside: tuple[int, ...]) -> Evidence:
    """What the rules may look at."""
    return Evidence(
        plan.submission.manifest,
        plan.profile,
        plan.limits,
        records,
        len(plan.bundle.pyz),
        len(plan.submission.config),
        plan.dataset.name,
        plan.dataset.sha256,
        runner.name,
        runner.isolated,
        runner.isolation,
        runner.image,
        plan.image_lock,
        set_aside,
    )
