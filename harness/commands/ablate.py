"""`pgolf ablate`: switch each technique of a submission off in turn and tabulate what each one is worth.

An ablation measures; it gives no verdict.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base import host
from harness.base.console import new_console
from harness.base.errors import UsageError
from harness.base.exit_codes import ExitCode
from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.commands import options
from harness.data.dataset import Dataset
from harness.run import bundle, plan as plans, submission as submissions
from harness.run.ablation import loop, report
from harness.run.ablation.loop import AblationResults
from harness.run.ablation.study import GENEROUS, Study, StudyFolder, with_generous_clocks
from harness.run.ablation.table import RATIO_IS, STEP_IS, rows
from harness.run.plan import Plan
from harness.run.preflight import choose_dataset, choose_runner
from harness.runners.base import Runner
from harness.runners.select import RunnerName

app = options.new_app()
SCHEMA = 1


@app.command()
def ablate(
    submission: options.Submission,
    profile: options.Profile = "pocket",
    seeds: Annotated[
        str | None, typer.Option(help="Any seeds, e.g. 1337,42. Default: the manifest's.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=options.whole(1),
            metavar="N",
            help="Steps of each training. Default: what the clock allows.",
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Some of its techniques, e.g. hadamard,ema.")] = None,
    val_tokens: Annotated[
        int | None,
        typer.Option(
            parser=options.whole(2), metavar="N", help="Score only so many validation tokens, from the first."
        ),
    ] = None,
    data: options.Data = None,
    runner: options.RunnerChoice = None,
    runs: options.Runs = options.RUNS,
    as_json: options.Json = False,
) -> None:
    """Switch each technique of a submission off in turn, matched by steps, over seeds. Interrupted ones
    resume.

    pgolf ablate submissions/hadamard-ve128 --steps 200 --only hadamard,ema
    """
    ablation_options = AblationOptions(
        submission=submission,
        profile=profile,
        seeds=options.seed_numbers(seeds),
        steps=steps,
        only=_names(only),
        val_tokens=val_tokens,
        data=data,
        runner=runner,
        runs=runs,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )
    with ProgressDisplay() as display:
        table = ablate_submission(ablation_options, display)
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        report.show(table, new_console())
        print(f"report: {table['run_dir']}/ablation.md and ablation.html")
    raise typer.Exit(table["exit_code"])


def _names(text: str | None) -> list[str]:
    """Names separated by commas; none means all. Raises UsageError for a text without a name."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError("--only names no technique", hint="leave it out for all, or --only hadamard,ema")
    return names


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """What is compared, and how."""

    submission: Path
    profile: str = "pocket"
    seeds: Sequence[int] = ()
    """Any numbers; none means the manifest's."""
    steps: int | None = None
    """Steps of each training; None for as many as the profile's clock allows."""
    only: Sequence[str] = ()
    """Some of the techniques; none means all."""
    val_tokens: int | None = None
    data: Path | None = None
    runner: RunnerName | None = None
    runs: Path = options.RUNS
    command: str = ""
    """The command line, for the report."""
    package: Path = ROOT / "golf"
    """The contestant's code."""


def ablate_submission(ablation_options: AblationOptions, display: ProgressDisplay) -> dict[str, Any]:
    """Measure what is unfinished of the ablation; writes ablation.json and returns its content."""
    submission = submissions.load(ablation_options.submission)
    clock = plans.profile_limits(ablation_options.profile)
    seeds = list(ablation_options.seeds) or submission.manifest.seeds
    dataset = choose_dataset(
        ablation_options.data, ablation_options.profile, submission.manifest.dataset, display
    )
    _check_lengths(dataset, ablation_options.steps, ablation_options.val_tokens)
    code = bundle.build(ablation_options.package)
    draft = Plan(submission, ablation_options.profile, with_generous_clocks(clock), dataset, code)

    def study_of(plan: Plan) -> Study:
        return Study(plan, clock, ablation_options.steps, ablation_options.val_tokens)

    def begun_in(image_lock: str) -> Path:
        return study_of(draft.in_containers(image_lock)).folder(ablation_options.runs).study

    runner, image_lock = choose_runner(ablation_options.runner, submission.manifest, clock, display, begun_in)
    try:
        study = study_of(draft.on(runner, image_lock))
        folder = study.folder(ablation_options.runs)
        with folder.locked():
            results = loop.run(study, folder, seeds, ablation_options.only, runner, display)
            table = _table(study, folder, seeds, results, runner) | {"command": ablation_options.command}
            report.write(table, folder)
            return table
    finally:
        runner.close()


def _check_lengths(dataset: Dataset, steps: int | None, val_tokens: int | None) -> None:
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
    study: Study, folder: StudyFolder, seeds: list[int], known: AblationResults, runner: Runner
) -> dict[str, Any]:
    """The content of ablation.json, but for the command line."""
    plan, results = study.plan, list(known.results.values())
    loads = [load for each in results if each.load is not None for load in each.load]
    shares = [each.others_cpu_share for each in results if each.others_cpu_share is not None]
    stopped = "interrupted" if known.interrupted else known.fault and str(known.fault)
    counted = study.steps is None and f"what the train clock of {study.clock.train_seconds:g} s allowed here"
    return {
        "schema": SCHEMA,
        "submission": plan.submission.manifest.name,
        "profile": plan.profile,
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
        "others_cpu_share": [min(shares), max(shares)] if shares else None,
        "stopped": stopped,
        "exit_code": _exit_code(known, len(known.arms) * len(seeds)),
        "rows": rows(known.arms, seeds, known.results, plan.limits.counted_bytes),
        "pairs": [each.model_dump(mode="json") for each in results],
        "run_dir": str(folder.path),
    }


def _exit_code(known: AblationResults, n_pairs: int) -> ExitCode:
    """As for a verdict (docs/rules.md): machine, interrupted, limit, failure, all measured."""
    outcomes = {each.outcome for each in known.results.values()}
    if known.fault is not None:
        return ExitCode.MACHINE
    if known.interrupted:
        return ExitCode.INTERRUPTED
    assert len(known.results) == n_pairs, "a loop that ended by itself has measured every pair"
    if "over_limit" in outcomes:
        return ExitCode.LIMIT
    return ExitCode.VIOLATION if "failed" in outcomes else ExitCode.VALID
