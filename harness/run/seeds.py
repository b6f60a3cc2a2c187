"""A whole run: seeds x stages, resumed at the first unfinished stage, every attempt on record.

What a contestant does wrong ends its seed and the others go on; what the machine does wrong ends the run,
which the same command resumes. Not covered: choosing the dataset, image and runner (setup.py) and what the
results mean (verdict.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.base import files, host
from harness.base.errors import MachineFault, Violation
from harness.base.progress import ProgressCallback, ProgressDisplay
from harness.run import certify, records, stages
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import Plan
from harness.run.records import STAGES, Attempt, Events, SeedRecord, StageName
from harness.runners.base import Runner


class RunOutcome(NamedTuple):
    """What one call did: stage attempts made, their wall seconds, and what stopped it early, if anything."""

    attempts: int
    stage_seconds: float
    fault: MachineFault | None
    interrupted: bool


def run_seeds(
    plan: Plan,
    folder: RunFolder,
    seeds: Sequence[int],
    runner: Runner,
    progress: ProgressDisplay,
    asked: certify.WitnessRequest | None = None,
) -> RunOutcome:
    """Runs what is unfinished of `seeds`, and asks a witness where one is `asked` for. The caller holds the
    folder's lock."""
    attempts, seconds = 0, 0.0
    try:
        for seed in seeds:
            for attempt in _run_seed(plan, folder.seed(seed), seed, runner, progress, asked):
                attempts += 1
                seconds += attempt.wall_seconds or 0.0
    except MachineFault as fault:
        return RunOutcome(attempts + 1, seconds, fault, False)
    except KeyboardInterrupt:
        return RunOutcome(attempts + 1, seconds, None, True)
    return RunOutcome(attempts, seconds, None, False)


def job_of(plan: Plan, folder: SeedFolder, runner: Runner) -> stages.StageJob:
    """The parts of a plan that stages need; code and recipe are read from the seed's own folder."""
    return stages.StageJob(
        runner,
        plan.limits,
        plan.profile,
        plan.submission.manifest.track,
        folder.code,
        folder.config,
        plan.dataset.tokenizer,
        plan.dataset.vocab_size,
        f"{plan.submission.manifest.name}-{plan.hash12}",
    )


def _run_seed(
    plan: Plan,
    folder: SeedFolder,
    seed: int,
    runner: Runner,
    progress: ProgressDisplay,
    asked: certify.WitnessRequest | None,
) -> Iterator[Attempt]:
    """Yields each attempt made, in order, until the seed is settled."""
    record = records.load(folder.record, seed)
    left = record.left(STAGES if asked is None else (*STAGES, "witness"))
    if not left:
        return
    files.write_bytes(folder.code, plan.bundle.pyz)
    files.write_bytes(folder.config, plan.submission.config)
    for stage in left:
        attempt = _attempt(plan, folder, record, stage, runner, progress, asked)
        yield attempt
        if attempt.outcome != "done":
            return


def _attempt(
    plan: Plan,
    folder: SeedFolder,
    record: SeedRecord,
    stage: StageName,
    runner: Runner,
    progress: ProgressDisplay,
    asked: certify.WitnessRequest | None,
) -> Attempt:
    """One attempt, on record from before it starts until its end. Machine faults and interrupts are raised
    on."""
    attempt = Attempt(stage=stage, started_at=records.now(), host=host.facts())
    record.attempts.append(attempt)
    records.save(folder.record, record)
    events, begun = Events(folder.events), time.monotonic()
    events.add("begin", stage=stage)
    try:
        with progress.stage(f"seed {record.seed} {stage}") as report:

            def telling(fraction: float, text: str) -> None:
                events.add("progress", stage=stage, fraction=round(fraction, 4), claim=text[:200])
                report(fraction, text)

            result = _perform(plan, folder, record, stage, runner, telling, asked)
        attempt.outcome = "done"
        attempt.setup_seconds, attempt.seconds = result.setup_seconds, result.seconds
        attempt.claims, attempt.facts = result.claims, result.facts
    except Violation as violation:
        attempt.outcome = "over_limit" if violation.limit else "failed"
        attempt.rule, attempt.message = violation.rule, str(violation)
        progress.say(f"seed {record.seed} {stage}: {violation}")
    except MachineFault as fault:
        attempt.outcome, attempt.message = "machine", str(fault)
        raise
    except OSError as error:
        fallen = MachineFault(f"seed {record.seed} {stage}: {error}", hint="check disk space and permissions")
        attempt.outcome, attempt.message = "machine", str(fallen)
        raise fallen from error
    finally:
        attempt.wall_seconds = round(time.monotonic() - begun, 3)
        events.add("end", stage=stage, outcome=attempt.outcome, rule=attempt.rule, seconds=attempt.seconds)
        events.close()
        records.save(folder.record, record)
    return attempt


def _perform(
    plan: Plan,
    folder: SeedFolder,
    record: SeedRecord,
    stage: StageName,
    runner: Runner,
    report: ProgressCallback,
    asked: certify.WitnessRequest | None,
) -> stages.StageResult:
    job = job_of(plan, folder, runner)
    if stage == "train":
        return stages.train(job, record.seed, folder, plan.dataset, report)
    if stage == "pack":
        return stages.pack(job, record.seed, folder, report)
    stages.require_packed_artifact(folder, record)
    if stage == "witness":
        assert asked is not None
        return _ask_witness(plan, folder, record, job, report, asked)
    result, scored = stages.score(job, record.seed, folder, plan.dataset.validation_tokens(), report)
    return result._replace(facts={**result.facts, **stages.store_score(folder, plan.dataset, scored)})


def _ask_witness(
    plan: Plan,
    folder: SeedFolder,
    record: SeedRecord,
    job: stages.StageJob,
    report: ProgressCallback,
    asked: certify.WitnessRequest,
) -> stages.StageResult:
    begun, done = time.monotonic(), record.done("score")
    assert done is not None
    facts = certify.certify_score(
        job,
        record.seed,
        folder,
        plan.dataset.validation_tokens(),
        stages.stored_score(folder, plan.dataset, done),
        done.facts["scored_bytes"],
        asked,
        report,
    )
    return stages.StageResult(None, round(time.monotonic() - begun, 3), {}, facts)


def seed_records(folder: RunFolder, seeds: Sequence[int]) -> list[SeedRecord]:
    return [records.load(folder.seed(seed).record, seed) for seed in seeds]
