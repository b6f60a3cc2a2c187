"""`pgolf data`: a dataset from documents is made, described, verified and read by a run; damage is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import UsageError
from harness.base.lock import locked
from harness.base.paths import ROOT
from harness.data import fineweb, pocket
from harness.data.dataset import Dataset
from harness.data.writer import Prepared
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.datasets import TRAIN, VALIDATION, VOCAB_SIZE, jsonl, tiny_tokenizer


def prepare(folder: Path, *more: object) -> Any:
    return pgolf(
        "data",
        "prepare",
        "docs",
        "--train",
        jsonl(folder / "train.jsonl", TRAIN),
        "--val",
        jsonl(folder / "val.jsonl", VALIDATION),
        "--tokenizer",
        tiny_tokenizer(folder),
        "--out",
        folder / "set",
        *more,
    )


def test_documents_become_a_dataset_that_verifies(tmp_path: Path) -> None:
    made = json.loads(prepare(tmp_path, "--name", "mine", "--json").stdout)
    assert (made["name"], made["outcome"], made["vocab_size"]) == ("mine", "made", VOCAB_SIZE)
    assert (made["train_documents"], made["validation_documents"]) == (len(TRAIN), len(VALIDATION))
    assert made["validation_bytes"] == sum(len(text.encode()) for text in VALIDATION)
    verified = json.loads(pgolf("data", "verify", tmp_path / "set", "--json").stdout)
    assert verified == {**made, "outcome": "verified"}
    assert Dataset.open(tmp_path / "set").sha256 == made["sha256"]


def test_without_json_a_person_reads_the_same_facts(tmp_path: Path) -> None:
    prepare(tmp_path)
    printed = pgolf("data", "verify", tmp_path / "set").stdout
    assert printed.startswith("docs: verified\n")
    assert f"{len(VALIDATION)} documents" in printed
    assert "bits per byte" in printed


def test_validation_can_be_cut_after_so_many_tokens(tmp_path: Path) -> None:
    made = json.loads(prepare(tmp_path, "--val-tokens", 100, "--json").stdout)
    assert made["validation_tokens"] == 100


def test_a_document_that_is_in_both_files_is_refused(tmp_path: Path) -> None:
    same = jsonl(tmp_path / "same.jsonl", TRAIN)
    refused = prepare(tmp_path, "--val", same).exception
    assert isinstance(refused, UsageError)
    assert "is the document of line 1 in" in str(refused)


@pytest.mark.slow
def test_a_second_call_into_the_same_folder_waits_and_does_not_replace_what_the_first_made(
    tmp_path: Path,
) -> None:
    words = [
        *(
            "--train",
            jsonl(tmp_path / "train.jsonl", TRAIN),
            "--val",
            jsonl(tmp_path / "val.jsonl", VALIDATION),
        ),
        *("--tokenizer", tiny_tokenizer(tmp_path), "--out", tmp_path / "set"),
    ]
    with locked(tmp_path / "set"):
        second = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "data", "prepare", "docs", *words],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr is not None
        heard = [second.stderr.readline(), second.stderr.readline()]
        assert any("another process is at work there: waiting for it" in line for line in heard)
        (tmp_path / "set").mkdir()
    assert f"{tmp_path}/set: exists already" in second.communicate(timeout=120)[1]
    assert second.returncode == 2
    assert list((tmp_path / "set").iterdir()) == []


def test_what_a_killed_call_left_goes_with_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".set.part").mkdir()
    (tmp_path / ".set.part" / "val_000000.bin").write_bytes(b"half a shard")
    assert prepare(tmp_path).exit_code == 0
    assert not list(tmp_path.glob(".set*"))


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    prepare(tmp_path)
    shard = next((tmp_path / "set").glob("val_*.bin"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    refused = pgolf("data", "verify", tmp_path / "set").exception
    assert isinstance(refused, UsageError)
    assert shard.name in refused.message


def test_verify_of_a_folder_that_is_no_dataset_says_so(tmp_path: Path) -> None:
    refused = pgolf("data", "verify", tmp_path).exception
    assert isinstance(refused, UsageError)
    assert "dataset.json" in refused.message


def test_every_option_of_fineweb_reaches_the_download(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetched(variant: fineweb.Variant, out: Path | None, **options: Any) -> Prepared:
        asked.append((variant, out, options["shards"], options["revision"]))
        return Prepared(tiny, made=True)

    monkeypatch.setattr(fineweb, "prepare", fetched)
    words = ("--variant", "sp8192", "--shards", 2, "--revision", "abc", "--out", tmp_path)
    assert pgolf("data", "prepare", "fineweb", *words).exit_code == 0
    assert pgolf("data", "prepare", "fineweb").exit_code == 0
    assert asked == [
        (fineweb.VARIANTS["sp8192"], tmp_path, 2, "abc"),
        (fineweb.VARIANTS["sp1024"], None, None, None),
    ]


def test_a_pocket_dataset_that_is_there_is_not_made_again(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for made, outcome in ((True, "made"), (False, "was there already, nothing to do")):
        prepared = Prepared(tiny, made)
        monkeypatch.setattr(pocket, "prepare", lambda *_, prepared=prepared, **__: prepared)
        assert json.loads(pgolf("data", "prepare", "pocket", "--json").stdout)["outcome"] == outcome
