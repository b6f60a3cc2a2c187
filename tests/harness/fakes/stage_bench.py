"""Single stages of a contestant, run in one seed's folder."""

from __future__ import annotations

from pathlib import Path

from harness.base.progress import ProgressCallback, no_progress
from harness.data.dataset import Dataset
from harness.edition import Limits
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.plan import StageTerms
from harness.runners.base import Runner
from tests.harness.fakes.contestant import pyz

SMALL = Limits(
    setup_seconds=120,
    train_seconds=60,
    pack_seconds=60,
    score_seconds=60,
    memory_bytes=512 << 20,
    gpus=0,
    checkpoint_bytes=8 << 20,
    log_bytes=1 << 20,
    scratch_bytes=8 << 20,
    pids=64,
    shm_bytes=1 << 20,
)
"""Few bytes and ample time: a test of a clock shortens that clock."""


class Bench:
    """One seed's folder, and methods to run single stages of a contestant in it."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder, self.dataset = SeedFolder(folder), dataset
        folder.mkdir(parents=True, exist_ok=True)
        self.folder.config.write_text("{}\n")

    def job(
        self, runner: Runner, override: str = "", limits: Limits = SMALL, track: str = "A"
    ) -> stages.StageJob:
        self.folder.code.write_bytes(pyz(override))
        terms = StageTerms("test", track, "pocket", limits, self.dataset.tokenizer, self.dataset.vocab_size)
        return stages.StageJob(runner, terms, 1, self.folder)

    def train(self, job: stages.StageJob, on_progress: ProgressCallback = no_progress) -> stages.StageResult:
        return stages.train(job, self.dataset, on_progress)

    def pack(self, job: stages.StageJob) -> stages.StageResult:
        self.folder.checkpoint.mkdir(exist_ok=True)
        (self.folder.checkpoint / "weights").write_bytes(b"w" * 2048)
        return stages.pack(job, no_progress)

    def score(self, job: stages.StageJob) -> stages.StageResult:
        self.folder.artifact.write_bytes(b"w" * 2048)
        return stages.score(job, self.dataset.validation_tokens(), no_progress)[0]
