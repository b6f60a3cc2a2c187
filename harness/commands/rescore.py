"""`pgolf rescore`: score the artifacts of a run again and compare the ledgers.

On the CPU the ledger must be the same bit for bit; on a GPU the bits per byte must agree within the noise of
kernels, which is reported. Code, recipe and artifact come from the run folder. The image is the very one of
the run, by its id, because scores from different environments are not comparable.

Logs and later certificates go into the run folder, or into `--out DIR`, and then the run folder is only read.
Where the run folder cannot be written (a read-only disk, another user's folder, a full disk, a run at work
in it), the scores are compared all the same, nothing is kept, and one line on stderr says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import docker
import typer

from harness.base import files
from harness.base.errors import MachineFault, UsageError
from harness.base.exit_codes import ExitCode, first_that_applies
from harness.base.progress import ProgressDisplay
from harness.base.temporary import temporary_folder
from harness.base.text import count
from harness.commands import options
from harness.data.dataset import Dataset
from harness.run import stored_plan
from harness.run.find_runs import find_run
from harness.run.folder import FolderInUse, RunFolder
from harness.run.records import SeedRecord
from harness.run.rescoring import Rescoring, titles
from harness.run.seeds import load_records
from harness.run.stages import StageJob
from harness.run.stored_plan import StoredPlan
from harness.run.witness_state import WitnessRequest
from harness.runners.base import Runner
from harness.runners.images import build
from harness.runners.select import select_runner
from harness.verdict import decide, report
from harness.verdict.assess import assess
from harness.verdict.headline import headline

app = options.new_app()


@app.command()
def rescore(
    run_dir: Annotated[Path, typer.Argument(help="A run folder, or a submission's name for its newest run.")],
    data: Annotated[
        Path | None, typer.Option(help="The dataset, if it is no longer where the run found it.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Some of the run's seeds, e.g. 1337,42.")] = None,
    witness: options.Probes = 0,
    witness_chunks: options.WitnessChunks = None,
    witness_lanes: options.WitnessLanes = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where logs and certificates go, instead of the run folder, which is then only read."
        ),
    ] = None,
    allow_open: options.AllowOpen = False,
    as_json: options.Json = False,
) -> None:
    """Score the packed artifacts of a run again, in the runner and image of the run, and compare the
    ledgers.
    """
    run_dir = find_run(run_dir, options.RUNS)
    request = WitnessRequest(witness, witness_chunks, witness_lanes) if witness else None
    with ProgressDisplay() as display:
        compared = rescore_run(
            run_dir, data, options.seed_numbers(seeds), display, request, allow_open=allow_open, out=out
        )
    _show(compared, as_json)
    raise typer.Exit(compared["exit_code"])


def rescore_run(
    run_dir: Path,
    data: Path | None,
    seeds: Sequence[int],
    display: ProgressDisplay,
    request: WitnessRequest | None = None,
    *,
    allow_open: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Score every scored seed of a run again, and ask a witness about the new scores if there is a `request`.

    Returns rows with both ledgers, and what the run's own verdict shows: a score that stands is worth no more
    than that. Writes rescore.log into the run folder, or into `out`; a witness writes into a numbered folder
    of its own, and the run's report lists it if that is in the run folder.
    """
    folder = RunFolder(run_dir)
    plan = stored_plan.read(folder)
    dataset = _dataset(plan, data)
    rows = []
    runner = _select_runner(plan, folder.plan, display)
    try:
        with _place(folder, out, display.say) as place:
            scored_seeds = _scored_seeds(folder, seeds)
            display.plan([title for record in scored_seeds for title in titles(record.seed, request)])
            for record in scored_seeds:
                stored = folder.seed(record.seed)
                written = stored.writing_to(place.folder.seed(record.seed).path)
                job = StageJob(runner, plan.terms(dataset), record.seed, written, keeps_logs=place.kept)
                rows.append(Rescoring(plan, job, record, stored, dataset).run(display, request))
            verdict = assess(folder)
            if request is not None and place.folder.path.resolve() == folder.path.resolve():
                report.render(verdict, folder).write(folder)
    finally:
        runner.close()
    agree = all(row["agrees"] for row in rows)
    return {
        "schema": 1,
        "run_dir": str(run_dir),
        "kept_in": str(place.folder.path) if place.kept else None,
        "runner": runner.name,
        "image": runner.image,
        "seeds": rows,
        "same_ledgers": all(row["same_ledger"] for row in rows),
        "agree": agree,
        "scored_seeds": sum(row["bpb"] is not None for row in verdict["seeds"]),
        "run": {key: verdict[key] for key in ("verdict", "decided_by", "shown", "not_shown")},
        "headline": headline(verdict),
        "exit_code": _exit_code(agree, rows, decide.exit_code(verdict, allow_open)),
    }


class _Place(NamedTuple):
    """Where a rescoring writes."""

    folder: RunFolder
    kept: bool
    """False for a temporary folder."""


@contextmanager
def _place(run: RunFolder, out: Path | None, say: Callable[[str], None]) -> Iterator[_Place]:
    """The run folder or `out`, locked; a temporary folder where the run folder cannot be written.

    Raises what refuses `out`.
    """
    with ExitStack() as stack:
        wanted = run if out is None else _elsewhere(run, out)
        place = _Place(wanted, kept=True)
        try:
            stack.enter_context(wanted.locked())
            files.require_writable(wanted.path)
        except (FolderInUse, MachineFault) as error:
            if out is not None:
                raise
            say(f"this rescoring's logs and certificates are not kept, --out DIR keeps them: {error.message}")
            place = _Place(RunFolder(stack.enter_context(temporary_folder())), kept=False)
        yield place


def _elsewhere(run: RunFolder, out: Path) -> RunFolder:
    """The folder `out`. Raises UsageError where another run is kept, whose report would list certificates
    of this one.
    """
    folder = RunFolder(out)
    if folder.plan.exists() and out.resolve() != run.path.resolve():
        raise UsageError(
            f"--out {out}: the folder of another run", hint="name a new folder, or leave --out out"
        )
    return folder


def _dataset(plan: StoredPlan, data: Path | None) -> Dataset:
    dataset = Dataset.open(data or plan.dataset.folder)
    if dataset.sha256 != plan.identity.dataset:
        raise UsageError(
            f"{dataset.folder}: is not the dataset of this run", hint="--data names the right one"
        )
    dataset.verify()
    return dataset


def _select_runner(plan: StoredPlan, recorded_in: Path, display: ProgressDisplay) -> Runner:
    """The runner and the very image of the run."""

    def image_of_the_run(client: docker.DockerClient, name: str) -> str:
        return build.require_image(client, plan.image or "", plan.identity.image_lock, recorded_in)

    return select_runner(plan.identity.runner, plan.identity.limits, display.say, image_of_the_run)


def _scored_seeds(folder: RunFolder, seeds: Sequence[int]) -> list[SeedRecord]:
    """The wanted seeds, all scored ones of the folder where none are named; every record is read first.

    Raises UsageError for a named seed without a score, and where no seed has one.
    """
    scored = _with_score(folder, seeds or folder.seeds())
    missing = [str(seed) for seed in seeds if seed not in {record.seed for record in scored}]
    if missing:
        there_are = [str(record.seed) for record in _with_score(folder, folder.seeds())]
        raise UsageError(
            f"{folder.path}: seed {', '.join(missing)} has no score here",
            hint=f"scored: {', '.join(there_are) or 'no seed'}",
        )
    if not scored:
        raise UsageError(f"{folder.path}: no scored seed to score again", hint="finish the run first")
    return scored


def _with_score(folder: RunFolder, seeds: Sequence[int]) -> list[SeedRecord]:
    """Those of the seeds that have a score, in their order."""
    return [record for record in load_records(folder, seeds) if record.done("score") is not None]


def _exit_code(agree: bool, rows: list[dict[str, Any]], of_run: ExitCode) -> ExitCode:
    """The exit code of the run's verdict, or what comes before it: LIMIT or VIOLATION where a score does not
    stand or a new certificate fails a condition. What a new certificate leaves open changes nothing.
    """
    failed = [
        condition
        for row in rows
        for condition in (row.get("certificate") or {"conditions": []})["conditions"]
        if condition["outcome"] == "fail"
    ]
    own = ExitCode.VALID if agree and not failed else ExitCode.VIOLATION
    if any(row["limit"] for row in rows):
        own = ExitCode.LIMIT
    return first_that_applies((own, of_run))


def _show(compared: dict[str, Any], as_json: bool) -> None:
    """The comparison on stdout."""
    if as_json:
        print(json.dumps(compared, indent=1))
        return
    for row in compared["seeds"]:
        print(_line(row))
        if row.get("certificate"):
            print(f"  {row['certificate']['guarantee']}")
            for condition in row["certificate"]["conditions"]:
                print(f"  {condition['condition']} {condition['outcome']:8} {condition['evidence']}")
        elif row.get("unasked"):
            print(f"  {row['unasked']}")
    of = f"{len(compared['seeds'])} of {count(compared['scored_seeds'], 'scored seed')}"
    print(f"{of}: the score {'stands' if compared['agree'] else 'does not stand'}")
    print(f"the run: {compared['headline']}")


def _line(row: dict[str, Any]) -> str:
    """One seed: both scores, and whether the ledgers are the same."""
    recorded = f"seed {row['seed']}: {row['bpb']:.6f} recorded"
    if row["outcome"] == "broken":
        return f"{recorded}, scoring it again broke ({row['rule']}): {row['reason']}"
    ledger = "same ledger" if row["same_ledger"] else "another ledger"
    if not row["same_ledger"] or not row["agrees"]:
        ledger += f", {row['difference_bpb']:.2e} bits per byte apart"
    return f"{recorded}, {row['rescored_bpb']:.6f} now: {ledger}"
