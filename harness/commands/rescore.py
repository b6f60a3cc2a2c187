"""`pgolf rescore`: the artifact alone, scored again, and the ledgers compared.

On the CPU the ledger must be the same bit for bit; on a GPU the same bits per byte within what kernels allow,
which is reported. Everything comes from the run folder: code, recipe, artifact. Another image is refused: its
score would be another environment's. Not covered: training again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.base import files
from harness.base.errors import MachineFault, UsageError, Violation
from harness.base.exit_codes import ExitCode
from harness.base.progress import ProgressCallback, ProgressDisplay
from harness.data.dataset import Dataset
from harness.edition import TOLERANCES
from harness.protocol import conversation
from harness.run import certify, plan as plans, records, stages
from harness.run.certify import WitnessRequest
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import StoredPlan
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.images import build
from harness.runners.local import LocalRunner
from harness.scoring import bpb


def rescore(
    run_dir: Path,
    data: Path | None,
    seeds: Sequence[int],
    progress: ProgressDisplay,
    request: WitnessRequest | None = None,
) -> dict[str, Any]:
    """Scores every packed seed of a run again, and asks a witness about the new scores where there is a
    `request`.

    Returns rows with both ledgers; writes rescore.log, and what a witness says into a folder of its own,
    numbered."""
    folder = RunFolder(run_dir)
    plan = plans.read(folder)
    dataset = _dataset(plan, data)
    runner = _runner(plan)
    rows = []
    try:
        with folder.locked():
            for seed_folder, record in _scored(folder, seeds):
                with progress.stage(f"rescore seed {record.seed}") as report:
                    row, job, scored = _rescore_seed(plan, seed_folder, record, dataset, runner, report)
                if request is not None:
                    with progress.stage(f"rescore seed {record.seed} witness") as report:
                        row |= _certify(
                            job,
                            record.seed,
                            seed_folder,
                            dataset,
                            scored,
                            row["scored_bytes"],
                            request,
                            report,
                        )
                rows.append(row)
    finally:
        runner.close()
    if not rows:
        raise UsageError(f"{run_dir}: no scored seed to score again", hint="finish the run first")
    worst = max(row["difference_bpb"] for row in rows)
    same = all(row["same_ledger"] for row in rows)
    agree = same or (plan.identity.limits.gpus > 0 and worst <= TOLERANCES.rescore_bpb)
    return {
        "schema": 1,
        "run_dir": str(run_dir),
        "runner": runner.name,
        "image": runner.image,
        "seeds": rows,
        "same_ledgers": same,
        "agree": agree,
        "exit_code": _exit_code(agree, rows),
    }


def _exit_code(agree: bool, rows: list[dict[str, Any]]) -> int:
    """1 where ledgers differ or a witness accuses, 5 where one leaves a condition open that it could have
    shown, else 0."""
    certificates = [row["certificate"] for row in rows if row.get("certificate")]
    outcomes = {
        condition["outcome"]
        for certificate in certificates
        for condition in certificate["conditions"]
        if not condition.get("cooperative")
    }
    if not agree or "fail" in outcomes:
        return ExitCode.VIOLATION
    unasked = any(row.get("unasked") for row in rows)
    return ExitCode.INCONCLUSIVE if unasked or "unknown" in outcomes else ExitCode.VALID


def _certify(
    job: stages.StageJob,
    seed: int,
    folder: SeedFolder,
    dataset: Dataset,
    scored: conversation.ScoringPass,
    n_bytes: int,
    request: WitnessRequest,
    report: ProgressCallback,
) -> dict[str, Any]:
    """A certificate with coins of its own, kept beside those made before it; how many there are is said."""
    taken = [
        int(path.name.removeprefix("rescored-"))
        for path in folder.path.glob("rescored-*")
        if path.name.removeprefix("rescored-").isdigit()
    ]
    number = 1 + max(taken, default=0)
    place = folder.rescored(number)
    found = certify.certify_score(
        job, seed, place, dataset.validation_tokens(), scored, n_bytes, request, report
    )
    files.write_json(place.path / "rescored.json", found)
    return {**found, "certificates_before": number - 1}


def _dataset(plan: StoredPlan, data: Path | None) -> Dataset:
    dataset = Dataset.open(data or plan.dataset.folder)
    if dataset.sha256 != plan.identity.dataset:
        raise UsageError(
            f"{dataset.folder}: is not the dataset of this run", hint="--data names the right one"
        )
    dataset.verify()
    return dataset


def _runner(plan: StoredPlan) -> Runner:
    """The runner and the very image of the run."""
    if plan.identity.runner == "local":
        return LocalRunner()
    client = docker_engine.connect()
    if client is None:
        raise MachineFault("this run was made in containers and no engine answers", hint="start it (dockerd)")
    name = "cuda" if plan.identity.limits.gpus else "cpu"
    found = build.find(client, name)
    if found is None or found != plan.image:
        raise UsageError(
            f"the run was made with image {plan.image}, this engine has {found or 'none'}",
            hint="a score of another environment is another score: load the run's image",
        )
    return DockerRunner(client, found)


def _scored(folder: RunFolder, seeds: Sequence[int]) -> list[tuple[SeedFolder, records.SeedRecord]]:
    numbers = seeds or sorted(
        int(path.name[5:]) for path in folder.path.glob("seed-*") if path.name[5:].isdigit()
    )
    pairs = [(folder.seed(seed), records.load(folder.seed(seed).record, seed)) for seed in numbers]
    return [(place, record) for place, record in pairs if record.done("score") is not None]


def _rescore_seed(
    plan: StoredPlan,
    folder: SeedFolder,
    record: records.SeedRecord,
    dataset: Dataset,
    runner: Runner,
    report: ProgressCallback,
) -> tuple[dict[str, Any], stages.StageJob, conversation.ScoringPass]:
    plans.require_unchanged(plan, folder)
    stages.require_packed_artifact(folder, record)
    earlier = record.done("score")
    assert earlier is not None
    expected = earlier.facts["ledger_sha256"]
    tokens_T = dataset.validation_tokens()
    stored_T = stages.stored_nats(folder, dataset, earlier.claims["chunk_tokens"], expected)
    job = stages.StageJob(
        runner,
        plan.identity.limits,
        plan.identity.profile,
        plan.track,
        folder.code,
        folder.config,
        dataset.tokenizer,
        dataset.vocab_size,
        f"rescore-{plan.submission}",
    )
    try:
        result, scored = stages.score(job, record.seed, folder, tokens_T, report, tag="rescore")
    except Violation as violation:
        raise UsageError(
            f"seed {record.seed} could not be scored again: {violation.message}", hint=violation.hint
        ) from violation
    again = bpb.measure(tokens_T, scored.nats_T, dataset.byte_table())
    row = {
        "seed": record.seed,
        "bpb": earlier.facts["bpb"],
        "rescored_bpb": again.bpb,
        "difference_bpb": abs(again.bpb - earlier.facts["bpb"]),
        "ledger_sha256": expected,
        "rescored_ledger_sha256": scored.ledger_sha256,
        "same_ledger": scored.ledger_sha256 == expected,
        "largest_difference_nats": float(np.abs(scored.nats_T.astype(np.float64) - stored_T).max()),
        "scored_bytes": again.scored_bytes,
        "score_seconds": result.seconds,
    }
    return row, job, scored


def show(compared: dict[str, Any], as_json: bool) -> None:
    """The comparison on stdout."""
    if as_json:
        print(json.dumps(compared, indent=1))
        return
    for row in compared["seeds"]:
        word = (
            "same ledger" if row["same_ledger"] else f"another ledger, {row['difference_bpb']:.2e} bpb apart"
        )
        print(f"seed {row['seed']}: {row['bpb']:.6f} recorded, {row['rescored_bpb']:.6f} now: {word}")
        if row.get("certificate"):
            print(f"  {row['certificate']['guarantee']}")
            print(
                "\n".join(
                    f"  {each['condition']} {each['outcome']:8} {each['evidence']}"
                    for each in row["certificate"]["conditions"]
                )
            )
        elif row.get("unasked"):
            print(f"  {row['unasked']}")
    words = {
        ExitCode.VALID: "the score stands",
        ExitCode.INCONCLUSIVE: "the ledgers agree, the witness leaves it open",
    }
    print(words.get(compared["exit_code"], "the score does not stand"))
