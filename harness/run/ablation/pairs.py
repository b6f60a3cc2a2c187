"""One (variant, seed): train for so many steps, pack, score; pack once more unquantised, score.

What the variant does not change is taken from the base of the same seed: its checkpoint where only packing or
scoring differs, and its unquantised score where only packing differs. Packing is always done, for an artifact
names the recipe that it was packed with. What a contestant does wrong is a result that says so. Not covered:
which pairs are left to do (loop.py)."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files
from harness.base.errors import UsageError, Violation
from harness.base.progress import ProgressCallback
from harness.run import stages
from harness.run.ablation.study import BASE, Arm, PairFolder, Study, StudyFolder
from harness.run.folder import SeedFolder
from harness.runners.base import Runner
from harness.scoring import bpb as metric


class PairResult(BaseModel):
    """result.json. Seconds and bytes are the judge's own; null where a thing was not come to, or not measured
    here."""

    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    variant: str
    seed: int
    steps: int
    changes: Literal["train", "pack", "score"]
    outcome: Literal["scored", "failed", "over_limit"] = "scored"
    stage: str | None = None
    """Where it failed."""
    message: str | None = None
    parameters: int | None = None
    """A claim of the contestant's."""
    train_seconds: float | None = None
    """Null where the base's training was reused."""
    load: tuple[float, float] | None = None
    """Processes that wanted the processor, over the last minute, before and after the training."""
    pack_seconds: float | None = None
    score_seconds: float | None = None
    artifact_bytes: int | None = None
    counted_bytes: int | None = None
    """code.pyz + config.yaml + artifact.bin."""
    unquantised_bytes: int | None = None
    bpb: float | None = None
    unquantised_bpb: float | None = None
    scored_tokens: int | None = None
    scored_bytes: int | None = None
    wall_seconds: float = 0.0


def load(folder: StudyFolder, arm: Arm, seed: int, steps: int) -> PairResult | None:
    """The finished result of a pair; None where there is none.

    Raises UsageError for one of another pair or of other steps: only like is compared with like.
    """
    path = folder.pair(arm, seed).result
    if not path.exists():
        return None
    try:
        found = PairResult.model_validate(files.read_json(path))
    except ValidationError as error:
        raise UsageError(
            f"{path}: {error.errors(include_url=False)[0]['msg']}", hint="remove the file to measure it again"
        ) from error
    if (found.variant, found.seed, found.steps) != (arm.name, seed, steps):
        raise UsageError(
            f"{path}: is of {found.variant!r}, seed {found.seed}, {found.steps} steps, not of {arm.name!r}, "
            f"seed {seed}, {steps} steps",
            hint="remove the file to measure it again",
        )
    return found


def measure(
    study: Study,
    folder: StudyFolder,
    arm: Arm,
    seed: int,
    steps: int,
    parameters: int,
    base: PairResult | None,
    runner: Runner,
    report: ProgressCallback,
) -> PairResult:
    """Measures a pair and writes its result. `base` is the base's result of the same seed, None for the base
    itself; `parameters` is the base's number of them."""
    place, started = folder.pair(arm, seed), time.monotonic()
    if place.path.exists():  # what an interrupted attempt left
        shutil.rmtree(place.path)
    found = PairResult(variant=arm.name, seed=seed, steps=steps, changes=arm.changes, parameters=parameters)
    work = _Work(study, place, arm, found, runner, report)
    try:
        if arm.changes == "train":
            work.train()
        else:
            work.take_training(folder, base)
        work.pack_and_score()
        if arm.changes == "pack" and base is not None:
            found.unquantised_bpb, found.unquantised_bytes = base.unquantised_bpb, base.unquantised_bytes
        elif arm.unquantised is not None:
            work.pack_and_score_unquantised(arm.unquantised)
        found.stage = None
    except Violation as violation:
        found.outcome = "over_limit" if violation.limit else "failed"
        found.message = str(violation)
    found.wall_seconds = round(time.monotonic() - started, 3)
    _tidy(arm, place)
    files.write_json(place.result, found.model_dump(mode="json"))
    return found


def _tidy(arm: Arm, place: PairFolder) -> None:
    """Removes what is large and can be made again; the base's checkpoint is what other variants start
    from."""
    if arm.name != BASE:
        shutil.rmtree(PairFolder(place.path).checkpoint, ignore_errors=True)  # its own, not the base's
    place.unquantised().artifact.unlink(missing_ok=True)


class _Work:
    """The stages of one pair; each names itself in the result before it begins."""

    def __init__(
        self,
        study: Study,
        place: PairFolder,
        arm: Arm,
        found: PairResult,
        runner: Runner,
        report: ProgressCallback,
    ) -> None:
        self.study, self.place, self.arm, self.found = study, place, arm, found
        plan = study.plan
        self.job = stages.StageJob(
            runner,
            plan.limits,
            plan.profile,
            plan.submission.manifest.track,
            place.code,
            place.config,
            plan.dataset.tokenizer,
            plan.dataset.vocab_size,
            f"ablation-{plan.submission.manifest.name}",
        )
        self.report_to = report
        files.write_bytes(place.code, plan.bundle.pyz)
        files.write_bytes(place.config, arm.config)
        tokens_T = plan.dataset.validation_tokens()
        self.tokens_T = tokens_T if study.val_tokens is None else tokens_T[: study.val_tokens]

    def report(self, fraction: float, text: str) -> None:
        self.report_to(fraction, f"{self.found.stage}: {text}")

    def train(self) -> None:
        """Trains; a variant's own number of parameters is asked for first."""
        if self.arm.name != BASE:
            self.found.stage = "describe"
            self.found.parameters = stages.describe(
                self.job, self.place.log("describe"), self.report
            ).parameters
        self.found.stage, before = "train", os.getloadavg()[0]
        trained = stages.train(
            self.job, self.found.seed, self.place, self.study.plan.dataset, self.report, self.found.steps
        )
        self.found.train_seconds, self.found.load = trained.seconds, (before, os.getloadavg()[0])

    def take_training(self, folder: StudyFolder, base: PairResult | None) -> None:
        """Points at the base's checkpoint of the same seed. Raises Violation when its training failed."""
        self.found.stage = "train"
        if base is None or base.train_seconds is None:
            raise Violation(
                "contestant", "the base's training of this seed failed, which this variant would have reused"
            )
        origin = folder.path / BASE / f"seed-{self.found.seed}"
        self.place.checkpoint = PairFolder(origin).checkpoint
        if not self.place.checkpoint.is_dir():
            raise UsageError(
                f"{self.place.checkpoint}: the base's checkpoint is gone",
                hint=f"remove {PairFolder(origin).result}, so that it is trained again",
            )

    def pack_and_score(self) -> None:
        """Under the cap, as a run is packed; scored whatever it came to, which the result tells."""
        found, limits = self.found, self.job.limits
        found.stage = "pack"
        packed = stages.pack(self.job, found.seed, self.place, self.report)
        found.pack_seconds, found.artifact_bytes = packed.seconds, packed.facts["artifact_bytes"]
        found.counted_bytes = (
            packed.facts["artifact_bytes"] + len(self.study.plan.bundle.pyz) + len(self.arm.config)
        )
        found.stage = "score"
        wide = replace(self.job, limits=replace(limits, counted_bytes=limits.checkpoint_bytes))
        found.score_seconds, measured = self._score(wide, self.place)
        found.bpb, found.scored_tokens, found.scored_bytes = (
            measured.bpb,
            measured.scored_tokens,
            measured.scored_bytes,
        )

    def pack_and_score_unquantised(self, config: bytes) -> None:
        """The same weights without a grid; they need not fit the cap."""
        found, beside = self.found, self.place.unquantised()
        files.write_bytes(beside.config, config)
        wide = replace(self.job.limits, counted_bytes=self.job.limits.checkpoint_bytes)
        job = replace(self.job, config=beside.config, limits=wide)
        found.stage = "pack unquantised"
        packed = stages.pack(job, found.seed, beside, self.report)
        found.stage = "score unquantised"
        _, measured = self._score(job, beside)
        found.unquantised_bpb, found.unquantised_bytes = measured.bpb, packed.facts["artifact_bytes"]

    def _score(self, job: stages.StageJob, place: SeedFolder) -> tuple[float, metric.Metric]:
        """Seconds, and bits per byte of what `place` holds."""
        result, scored = stages.score(job, self.found.seed, place, self.tokens_T, self.report)
        return result.seconds, metric.measure(
            self.tokens_T, scored.nats_T, self.study.plan.dataset.byte_table()
        )
