"""`pgolf run`: from a submission's folder to a verdict."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.base.signals import INTERRUPTED
from harness.base.text import count
from harness.commands import options
from harness.commands.report import say_place, show_verdict
from harness.run import bundle, plan as plans, submission as submissions
from harness.run.describe import describe_submission
from harness.run.estimated_size import estimated_size
from harness.run.find_runs import point_latest
from harness.run.folder import RunFolder
from harness.run.plan import Plan
from harness.run.preflight import choose_dataset, choose_runner, require_disk_room
from harness.run.remarks import remarks
from harness.run.seeds import RunOutcome, load_records, run_seeds
from harness.run.submission import Submission
from harness.run.witness_state import WitnessRequest, load_state, witness_request
from harness.runners.base import Runner
from harness.runners.select import RunnerName
from harness.verdict import decide, report
from harness.verdict.assess import assess, earlier_harness

app = options.new_app()


@app.command()
def run(
    submission: options.Submission,
    profile: options.Profile = "pocket",
    seeds: options.Seeds = None,
    data: options.Data = None,
    runner: options.RunnerChoice = None,
    runs: options.Runs = options.RUNS,
    again: Annotated[
        bool, typer.Option("--again", help="Run finished seeds anew; the earlier ones are kept.")
    ] = False,
    train_seconds: options.TrainSeconds = None,
    witness: options.Witness = None,
    witness_chunks: options.WitnessChunks = None,
    witness_lanes: options.WitnessLanes = False,
    details: options.Details = False,
    allow_open: options.AllowOpen = False,
    as_json: options.Json = False,
) -> None:
    """Train, pack, score and judge a submission. Interrupted runs resume; finished ones are not run again.

    pgolf run submissions/hadamard-ve128 --seeds 1337 --runner local
    """
    request = witness_request(profile, witness, witness_chunks, witness_lanes)
    run_options = RunOptions(
        submission=submission,
        profile=profile,
        seeds=options.seed_numbers(seeds),
        data=data,
        runner=runner,
        runs=runs,
        again=again,
        train_seconds=train_seconds,
        request=request,
    )
    with ProgressDisplay() as display:
        verdict = run_submission(run_options, display)
    show_verdict(verdict, as_json, details)
    if not as_json:
        say_place(verdict)
    raise typer.Exit(decide.exit_code(verdict, allow_open, verdict["harness"]["stopped"]))


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is run, and how."""

    submission: Path
    profile: str = "pocket"
    seeds: Sequence[int] = ()
    """Some of the manifest's; none means all."""
    data: Path | None = None
    runner: RunnerName | None = None
    runs: Path = options.RUNS
    again: bool = False
    train_seconds: float | None = None
    """Shortens the profile's train clock."""
    request: WitnessRequest | None = None
    """What a witness is asked; None for no witness."""
    package: Path = ROOT / "golf"
    """The contestant's code, a folder called golf."""


def run_submission(run_options: RunOptions, display: ProgressDisplay) -> dict[str, Any]:
    """Train, pack, score and judge what is unfinished; writes verdict.json and returns its content.

    Raises UsageError for a recipe that the contestant cannot read, before the first seed.
    """
    began = time.monotonic()
    submission = submissions.load(run_options.submission)
    limits = plans.profile_limits(run_options.profile, run_options.train_seconds)
    seeds = _declared(submission, run_options.seeds)
    for remark in remarks(submission):
        display.say(f"{run_options.submission}: {remark}")
    dataset = choose_dataset(run_options.data, run_options.profile, submission.manifest.dataset, display)
    code = bundle.build(run_options.package)
    draft = Plan(submission, run_options.profile, limits, dataset, code)

    def begun_in(image_lock: str) -> Path:
        return draft.in_containers(image_lock).folder(run_options.runs).plan

    runner, image_lock = choose_runner(run_options.runner, submission.manifest, limits, display, begun_in)
    try:
        plan = draft.on(runner, image_lock)
        folder = plan.folder(run_options.runs)
        with folder.locked():
            _prepare(plan, folder, seeds, runner, run_options.again, display)
            outcome = run_seeds(plan, folder, seeds, runner, display, run_options.request)
            _report_outcome(folder, outcome, display)
            _report_other_request(folder, seeds, run_options.request, display)
            spent = {
                "stopped": "machine" if outcome.fault else "interrupted" if outcome.interrupted else None,
                "wall_seconds": round(time.monotonic() - began, 3),
                "stage_seconds": round(outcome.stage_seconds, 3),
                "stage_attempts": outcome.attempts,
            }
            if outcome.attempts == 0:  # nothing ran, so nothing was measured
                spent = {**(earlier_harness(folder) or spent), "stopped": spent["stopped"]}
            verdict = assess(folder, spent)
            report.render(verdict, folder).write(folder)
            point_latest(folder.path)
            return verdict
    finally:
        runner.close()


def _prepare(
    plan: Plan, folder: RunFolder, seeds: Sequence[int], runner: Runner, again: bool, display: ProgressDisplay
) -> None:
    """Everything that can refuse a run, before its first seed: recipe, disks, and records of earlier runs."""
    if plans.is_begun(plan, folder):
        plans.update(plan, folder)
    else:
        _describe(plan, folder, runner, display)
    untrained = [each for each in load_records(folder, seeds) if again or not each.done("train")]
    require_disk_room(plan, folder, len(untrained))
    if again:
        _archive(folder, seeds, display)
    assess(folder)  # what cannot be judged now could not be after hours of training either


def _declared(submission: Submission, seeds: Sequence[int]) -> list[int]:
    """The seeds to run, each once. Raises UsageError for one that the manifest does not declare."""
    declared = submission.manifest.seeds
    if not seeds:
        return list(declared)
    unknown = [seed for seed in seeds if seed not in declared]
    if unknown:
        raise UsageError(
            f"seed {unknown[0]} is not one of the manifest's: {declared}",
            hint="seeds are declared before the run, not chosen after it (R10)",
        )
    return list(dict.fromkeys(seeds))


def _archive(folder: RunFolder, seeds: Sequence[int], display: ProgressDisplay) -> None:
    """Keep earlier runs of these seeds under another name: nothing is lost, nothing overwritten."""
    for seed in seeds:
        source = folder.seed(seed).path
        if source.exists():
            names = (source.with_name(f"{source.name}.earlier-{n}") for n in itertools.count(1))
            target = next(path for path in names if not path.exists())
            source.rename(target)
            display.say(f"kept the earlier run of seed {seed} as {target.name}")


def _describe(plan: Plan, folder: RunFolder, runner: Runner, display: ProgressDisplay) -> None:
    """Ask for the recipe's description once for each run folder, so that an unreadable recipe fails at
    once.
    """
    with display.stage("describe") as on_progress:
        described = describe_submission(plan.submission, plan.bundle.pyz, plan.terms, runner, on_progress)
    outcome, text = estimated_size(described.estimated_bytes, plan.limits.counted_bytes)
    if outcome != "pass":
        display.say(f"the contestant estimates its size: {text}")
    plans.write(plan, folder, described)


def _report_outcome(folder: RunFolder, outcome: RunOutcome, display: ProgressDisplay) -> None:
    if outcome.fault is not None:
        display.say(str(outcome.fault))
    if outcome.interrupted:
        display.say(INTERRUPTED)
    if outcome.attempts == 0:
        display.say(f"nothing to do: {folder.path} holds what was asked for (--again runs it anew)")


def _report_other_request(
    folder: RunFolder, seeds: Sequence[int], request: WitnessRequest | None, display: ProgressDisplay
) -> None:
    """A witness that was begun keeps its random seed and its number of probes; say how to ask for another."""
    for seed in seeds:
        state = load_state(folder.seed(seed))
        if request is not None and state is not None and state.request() != request:
            display.say(
                f"seed {seed}: keeps the witness that was begun with {count(state.probes, 'probe')}, which "
                f"decides; `pgolf rescore {folder.path} --witness {request.probes}` adds another one to the "
                "report, --again runs the seed anew"
            )
