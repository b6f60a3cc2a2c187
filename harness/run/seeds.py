"""Run the seeds of a plan, stage by stage: resume at the first unfinished stage, put every attempt on record.

A contestant that fails ends its seed, and the other seeds still run. A machine that fails ends the run, which
the same command resumes. Dataset, image and runner are chosen in preflight.py; verdict/ judges the results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from harness.base import disk, files, host
from harness.base.errors import MachineFault, Violation
from harness.base.progress import ProgressCallback, ProgressDisplay
from harness.run import records, stages, stored_score
from harness.run.certify import NO_BATCHES, certify_score, takes_batches
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import Plan
from harness.run.records import STAGES, Attempt, Events, SeedRecord, StageName
from harness.run.stages import StageJob, StageResult
from harness.run.witness_state import WitnessRequest
from harness.runners.base import Runner
from harness.scoring import bpb


class RunOutcome(NamedTuple):
    """What one call did: attempts begun, wall seconds of those that ended, and what stopped it early."""

    attempts: int
    stage_seconds: float
    fault: MachineFault | None
    interrupted: bool


def run_seeds(
    plan: Plan,
    folder: RunFolder,
    seeds: Sequence[int],
    runner: Runner,
    display: ProgressDisplay,
    request: WitnessRequest | None = None,
) -> RunOutcome:
    """Run what is unfinished of `seeds`, and a witness for each if there is a `request`.

    The caller holds the folder's lock.
    """
    display.plan(
        [
            _title(record.seed, stage)
            for record in load_records(folder, seeds)
            for stage in _left(record, request)
        ]
    )
    begun: list[Attempt] = []
    fault, interrupted, seconds = None, False, 0.0
    try:
        for seed in seeds:
            job = StageJob(runner, plan.terms, seed, folder.seed(seed))
            record = records.load(job.folder.record, seed)
            for attempt in _SeedRun(plan, job, record, display, request, begun).attempts():
                seconds += attempt.wall_seconds or 0.0
    except MachineFault as raised:
        fault = raised
    except KeyboardInterrupt:
        interrupted = True
    return RunOutcome(len(begun), seconds, fault, interrupted)


def _left(record: SeedRecord, request: WitnessRequest | None) -> list[StageName]:
    """The stages still to do of one seed."""
    return record.left(STAGES if request is None else (*STAGES, "witness"))


def _title(seed: int, stage: StageName) -> str:
    return f"seed {seed} {stage}"


def load_records(folder: RunFolder, seeds: Sequence[int]) -> list[SeedRecord]:
    """run.json of each seed, in the order of `seeds`."""
    return [records.load(folder.seed(seed).record, seed) for seed in seeds]


def load_archived(folder: RunFolder, seeds: Sequence[int]) -> tuple[SeedRecord, ...]:
    """run.json of each earlier run that `--again` archived, in the order of `seeds`, oldest first."""
    return tuple(
        records.load(SeedFolder(path).record, seed) for seed in seeds for path in folder.archived(seed)
    )


@dataclass(frozen=True)
class _SeedRun:
    """What is left to do of one seed."""

    plan: Plan
    job: StageJob
    record: SeedRecord
    display: ProgressDisplay
    request: WitnessRequest | None
    begun: list[Attempt]
    """Every attempt is added here when it begins."""

    def attempts(self) -> Iterator[Attempt]:
        """Each attempt made, in order, until the seed is settled."""
        left = _left(self.record, self.request)
        if not left:
            return
        files.write_bytes(self.job.folder.code, self.plan.bundle.pyz)
        files.write_bytes(self.job.folder.source, self.plan.bundle.source_zip)
        files.write_bytes(self.job.folder.config, self.plan.submission.config)
        for stage in left:
            if stage == "witness" and self._cannot_batch():
                self.display.say(f"{_title(self.record.seed, stage)}: not asked: {NO_BATCHES}")
                return
            attempt = self._attempt(stage)
            yield attempt
            if attempt.outcome != "done":
                return

    def _cannot_batch(self) -> bool:
        """Whether batches are asked for and the contestant cannot be queried so: then no witness is begun."""
        done = self.record.done("score")
        assert done is not None and self.request is not None
        return self.request.batched and not takes_batches(done.claims["adapts"], done.claims["context"])

    def _attempt(self, stage: StageName) -> Attempt:
        """One attempt, on record from before its start until its end. Raises machine faults and
        interrupts.
        """
        attempt = Attempt(stage=stage, started_at=records.now(), host=host.facts())
        self.record.attempts.append(attempt)
        self.begun.append(attempt)
        records.save(self.job.folder.record, self.record)
        events, began = Events(self.job.folder.events), time.monotonic()
        events.add("begin", stage=stage)
        title = _title(self.record.seed, stage)
        try:
            with self.display.stage(title) as on_progress:

                def report(fraction: float, text: str) -> None:
                    events.add("progress", stage=stage, fraction=round(fraction, 4), claim=text[:200])
                    on_progress(fraction, text)

                result = self._perform(stage, replace(self.job, on_cpu_use=attempt.add_cpu_use), report)
            attempt.outcome = "done"
            attempt.setup_seconds, attempt.seconds = result.setup_seconds, result.seconds
            attempt.claims, attempt.facts = result.claims, result.facts
            if stage == "pack":
                self._require_size(result.facts["artifact_bytes"])
        except Violation as violation:
            attempt.fail(violation)
            self.display.say(f"{title}: {violation}")
        except MachineFault as fault:
            attempt.outcome, attempt.message = "machine", str(fault)
            raise
        except OSError as error:
            refused = disk.machine_fault(error, self.job.folder.path, title)
            attempt.outcome, attempt.message = "machine", str(refused)
            raise refused from error
        finally:
            attempt.wall_seconds = round(time.monotonic() - began, 3)
            events.add(
                "end", stage=stage, outcome=attempt.outcome, rule=attempt.rule, seconds=attempt.seconds
            )
            events.close()
            records.save(self.job.folder.record, self.record)
        return attempt

    def _require_size(self, artifact_bytes: int) -> None:
        """Raises Violation for an artifact with which the submission is over the cap: it is not scored."""
        parts = (len(self.plan.bundle.pyz), len(self.plan.submission.config), artifact_bytes)
        cap = self.job.limits.counted_bytes
        if sum(parts) > cap:
            code, config, artifact = parts
            raise Violation(
                "size",
                f"{sum(parts) - cap:,} bytes over: code {code:,} + config {config:,} + artifact {artifact:,} "
                f"= {sum(parts):,}, at most {cap:,}",
                hint="fewer parameters or fewer bits; `pgolf check` estimates the size beforehand",
                limit=True,
            )

    def _perform(self, stage: StageName, job: StageJob, on_progress: ProgressCallback) -> StageResult:
        if stage == "train":
            return stages.train(job, self.plan.dataset, on_progress)
        if stage == "pack":
            return stages.pack(job, on_progress)
        stored_score.require_packed_artifact(job.folder, self.record)
        return self._score(job, on_progress) if stage == "score" else self._certify(job, on_progress)

    def _score(self, job: StageJob, on_progress: ProgressCallback) -> StageResult:
        dataset = self.plan.dataset
        tokens_T = dataset.validation_tokens()
        result, scored = stages.score(job, tokens_T, on_progress)
        measured = bpb.measure(tokens_T, scored.nats_T, dataset.byte_table())
        facts = stored_score.store(job.folder, measured, scored)
        return result._replace(facts={**result.facts, **facts})

    def _certify(self, job: StageJob, on_progress: ProgressCallback) -> StageResult:
        began, done, dataset = time.monotonic(), self.record.done("score"), self.plan.dataset
        assert done is not None and self.request is not None
        scored = stored_score.load(job.folder, dataset, done)
        facts = certify_score(
            job,
            dataset.validation_tokens(),
            scored,
            done.facts["scored_bytes"],
            self.request,
            on_progress,
            self.display.say,
        )
        return StageResult(None, round(time.monotonic() - began, 3), {}, facts)
