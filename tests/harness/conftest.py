"""Fixtures for the judge's tests: a dataset of a few thousand tokens, and contestants from one source.

Contestants speak the protocol with the standard library alone, so these tests need neither torch nor golf. A
hostile contestant is the honest one with some functions replaced.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from harness.data.byte_table import ByteTable
from harness.data.dataset import Dataset, write_manifest
from harness.data.shards import write_tokens
from harness.edition import Limits
from harness.run import stages
from harness.run.folder import SeedFolder
from harness.run.plan import StageTerms
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.local import LocalRunner

VOCABULARY = 300
HONEST = Path(__file__).parent / "contestants" / "honest.py"
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


def contestant_source(override: str = "") -> str:
    """Source of the honest contestant, with some of its functions redefined by the source text `override`."""
    head, tail = HONEST.read_text(encoding="utf-8").split('if __name__ == "__main__":')
    return f'{head}{override}\n\nif __name__ == "__main__":{tail}'


def pyz(override: str = "") -> bytes:
    """code.pyz of that contestant."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", contestant_source(override))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of two shards, eight documents each, with a tokenizer of 300 pieces."""
    folder = tmp_path_factory.mktemp("tiny")
    words = np.random.default_rng(0).integers(0, 400, 6000)
    lines = [" ".join(f"w{word:x}" for word in words[start : start + 60]) for start in range(0, 6000, 60)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        add_dummy_prefix=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    entries = {
        name: _shard(folder / f"{name}_000000.bin", pieces, part)
        for name, part in (("train", lines[:50]), ("val", lines[50:]))
    }
    tokens_T = np.fromfile(folder / "val_000000.bin", "<u2")[512:]
    write_manifest(
        folder,
        {
            "schema": 1,
            "name": "tiny",
            "vocab_size": VOCABULARY,
            "tokenizer": _entry(folder / "tokenizer.model"),
            "train": [entries["train"]],
            "validation": [entries["val"]],
            "source": {},
            "compressors": {},
            "validation_bytes": int(
                ByteTable.from_tokenizer(folder / "tokenizer.model", VOCABULARY).count(tokens_T, None).sum()
            ),
        },
    )
    dataset = Dataset.open(folder)
    dataset.verify()
    return dataset


def _shard(path: Path, pieces: sentencepiece.SentencePieceProcessor, lines: list[str]) -> dict[str, object]:
    documents = [" ".join(lines[start : start + 7]) for start in range(0, len(lines), 7)]
    tokens = [token for text in documents for token in [1, *pieces.encode(text)]]
    write_tokens(path, np.array(tokens, np.uint16))
    return {**_entry(path), "tokens": len(tokens), "documents": len(documents)}


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"file": path.name, "n_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Both runners; docker is skipped, with the reason, if there is no engine or image."""
    if request.param == "local":
        runner: Runner = LocalRunner()
    else:
        runner = DockerRunner(request.getfixturevalue("engine"), request.getfixturevalue("cpu_image"))
    yield runner
    runner.close()


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


@pytest.fixture
def bench(tmp_path: Path, tiny: Dataset) -> Bench:
    return Bench(tmp_path / "seed-1", tiny)
