"""Measure one (variant, seed): train a number of steps, pack and score; then pack and score unquantised.

What a variant does not change is taken from the base of the same seed: the checkpoint if the variant first
differs in packing or scoring, and the unquantised score if it first differs in packing. Every pair is packed,
because an artifact contains the recipe that it was packed with. A violation of the contestant becomes the
pair's result.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files
from harness.base.errors import UsageError, Violation
from harness.base.progress import ProgressCallback
from harness.run import stages
from harness.run.ablation.study import BASE, Arm, PairFolder, Study, StudyFolder
from harness.run.cpu_use import CpuUse
from harness.runners.base import Runner
from harness.scoring import bpb


class PairResult(BaseModel):
    """result.json. Seconds and bytes are the judge's; null means not reached, or not measured here."""

    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    variant: str
    seed: int
    steps: int
    changes: Literal["train", "pack", "score"]
    outcome: Literal["scored", "failed", "over_limit"] = "scored"
    stage: str | None = None
    """The stage that failed; null if none did."""
    message: str | None = None
    parameters: int | None = None
    """Claimed by the contestant."""
    train_seconds: float | None = None
    """Null if the base's training was reused."""
    load: tuple[float, float] | None = None
    """The load average over one minute, before and after the training."""
    others_cpu_share: float | None = None
    """What other processes took of the cores while the training's clock ran, 0 to 1; null: not known."""
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
    """The result of a pair; None if it is unfinished.

    Raises UsageError for a result of another pair or of another number of steps.
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
            f"{path}: is the result of {found.variant!r}, seed {found.seed}, {found.steps} steps, not of "
            f"{arm.name!r}, seed {seed}, {steps} steps",
            hint="remove the file to measure it again",
        )
    return found


@dataclass
class PairWork:
    """The stages of one pair, and its result so far, whose `stage` is the one that is running."""

    study: Study
    study_folder: StudyFolder
    arm: Arm
    seed: int
    steps: int
    runner: Runner
    on_progress: ProgressCallback

    def __post_init__(self) -> None:
        self.folder = self.study_folder.pair(self.arm, self.seed)
        self.found = PairResult(
            variant=self.arm.name, seed=self.seed, steps=self.steps, changes=self.arm.changes
        )
        self.job = stages.StageJob(self.runner, self.study.terms, self.seed, self.folder)
        tokens_T = self.study.plan.dataset.validation_tokens()
        self.tokens_T = tokens_T if self.study.val_tokens is None else tokens_T[: self.study.val_tokens]

    def measure(self, parameters: int, base: PairResult | None) -> PairResult:
        """Measure the pair and write result.json.

        `base` is the base's result for the same seed, None for the base itself; `parameters` is the base's
        number of parameters.
        """
        began, found = time.monotonic(), self.found
        found.parameters = parameters
        if self.folder.path.exists():  # left by an interrupted attempt
            shutil.rmtree(self.folder.path)
        files.write_bytes(self.folder.code, self.study.plan.bundle.pyz)
        files.write_bytes(self.folder.config, self.arm.config)
        try:
            if self.arm.changes == "train":
                self._train()
            else:
                self._reuse_training(base)
            self._pack_and_score()
            if self.arm.changes == "pack" and base is not None:
                found.unquantised_bpb, found.unquantised_bytes = base.unquantised_bpb, base.unquantised_bytes
            elif self.arm.unquantised is not None:
                self._pack_and_score_unquantised(self.arm.unquantised)
            found.stage = None
        except Violation as violation:
            found.outcome = "over_limit" if violation.limit else "failed"
            found.message = str(violation)
        found.wall_seconds = round(time.monotonic() - began, 3)
        self._remove_large_files()
        files.write_json(self.folder.result, found.model_dump(mode="json"))
        return found

    def _report(self, fraction: float, text: str) -> None:
        self.on_progress(fraction, f"{self.found.stage}: {text}")

    def _train(self) -> None:
        """Train; before that, a variant describes itself, for its own number of parameters."""
        if self.arm.name != BASE:
            self.found.stage = "describe"
            self.found.parameters = stages.describe(self.job, self._report).parameters
        self.found.stage, load_before = "train", os.getloadavg()[0]
        job = replace(self.job, on_cpu_use=self._keep_share)
        trained = stages.train(job, self.study.plan.dataset, self._report, self.steps)
        self.found.train_seconds, self.found.load = trained.seconds, (load_before, os.getloadavg()[0])

    def _keep_share(self, use: CpuUse) -> None:
        self.found.others_cpu_share = use.others_share

    def _reuse_training(self, base: PairResult | None) -> None:
        """Use the base's checkpoint of the same seed. Raises Violation if that training failed."""
        self.found.stage = "train"
        if base is None or base.train_seconds is None:
            raise Violation(
                "contestant", "this variant reuses the base's training of this seed, which failed"
            )
        origin = PairFolder(self.study_folder.path / BASE / f"seed-{self.seed}")
        self.folder.checkpoint = origin.checkpoint
        if not origin.checkpoint.is_dir():
            raise UsageError(
                f"{origin.checkpoint}: the base's checkpoint is missing",
                hint=f"remove {origin.result}, and the base is trained again",
            )

    def _pack_and_score(self) -> None:
        """Pack as in a run; score the artifact even if it exceeds the size limit, which the table reports."""
        found = self.found
        found.stage = "pack"
        packed = stages.pack(self.job, self._report)
        found.pack_seconds, found.artifact_bytes = packed.seconds, packed.facts["artifact_bytes"]
        code_bytes = len(self.study.plan.bundle.pyz)
        found.counted_bytes = packed.facts["artifact_bytes"] + code_bytes + len(self.arm.config)
        found.stage = "score"
        found.score_seconds, measured = self._score(self._without_size_limit(self.job))
        found.bpb = measured.bpb
        found.scored_tokens, found.scored_bytes = measured.scored_tokens, measured.scored_bytes

    def _pack_and_score_unquantised(self, config: bytes) -> None:
        """Pack and score the same weights without quantisation, without a size limit."""
        found, folder = self.found, self.folder.unquantised()
        files.write_bytes(folder.config, config)
        job = self._without_size_limit(replace(self.job, folder=folder))
        found.stage = "pack unquantised"
        packed = stages.pack(job, self._report)
        found.stage = "score unquantised"
        _, measured = self._score(job)
        found.unquantised_bpb, found.unquantised_bytes = measured.bpb, packed.facts["artifact_bytes"]

    def _without_size_limit(self, job: stages.StageJob) -> stages.StageJob:
        """The same job, with the limit of a checkpoint for the artifact."""
        limits = replace(job.limits, counted_bytes=job.limits.checkpoint_bytes)
        return replace(job, terms=replace(job.terms, limits=limits))

    def _score(self, job: stages.StageJob) -> tuple[float, bpb.Metric]:
        """Score the artifact in the job's folder: seconds, and bits per byte."""
        result, scored = stages.score(job, self.tokens_T, self._report)
        table = self.study.plan.dataset.byte_table()
        return result.seconds, bpb.measure(self.tokens_T, scored.nats_T, table)

    def _remove_large_files(self) -> None:
        """Remove what can be recomputed; the base's checkpoint stays, because variants reuse it."""
        if self.arm.name != BASE:
            own = PairFolder(self.folder.path).checkpoint  # self.folder.checkpoint may be the base's
            shutil.rmtree(own, ignore_errors=True)
        self.folder.unquantised().artifact.unlink(missing_ok=True)
