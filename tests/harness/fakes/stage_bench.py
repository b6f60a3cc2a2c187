"""Single stages of a contestant, run in one seed's folder under short clocks."""

from __future__ import annotations

from pathlib import Path

from harness.data.dataset import Dataset
from harness.edition import Limits
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.plan import StageTerms
from harness.runners.base import Runner
from tests.harness.fakes.contestant import pyz

QUICK = Limits(
    setup_seconds=20,
    train_seconds=5,
    pack_seconds=5,
    score_seconds=10,
    memory_bytes=512 << 20,
    gpus=0,
    checkpoint_bytes=8 << 20,
    log_bytes=1 << 20,
    scratch_bytes=8 << 20,
    pids=64,
    shm_bytes=1 << 20,
)


class Bench:
    """One seed's folder, and methods to run single stages of a contestant in it."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder, self.dataset = SeedFolder(folder), dataset
        folder.mkdir(parents=True, exist_ok=True)
        self.folder.config.write_text("{}\n")

    def job(
        self, runner: Runner, override: str = "", limits: Limits = QUICK, track: str = "A"
    ) -> stages.StageJob:
        self.folder.code.write_bytes(pyz(override))
        terms = StageTerms("test", track, "pocket", limits, self.dataset.tokenizer, self.dataset.vocab_size)
        return stages.StageJob(runner, terms, 1, self.folder)

    def train(self, job: stages.StageJob) -> stages.StageResult:
        return stages.train(job, self.dataset, lambda fraction, text: None)

    def pack(self, job: stages.StageJob) -> stages.StageResult:
        self.folder.checkpoint.mkdir(exist_ok=True)
        (self.folder.checkpoint / "weights").write_bytes(b"w" * 2048)
        return stages.pack(job, lambda fraction, text: None)

    def score(self, job: stages.StageJob) -> stages.StageResult:
        self.folder.artifact.write_bytes(b"w" * 2048)
        return stages.score(job, self.dataset.validation_tokens(), lambda fraction, text: None)[0]
