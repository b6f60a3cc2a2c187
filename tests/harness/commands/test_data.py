"""`pgolf data`: a dataset from documents is made, described, verified and read by a run; damage is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
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


def command(
    folder: Path, train: Sequence[str] = TRAIN, validation: Sequence[str] = VALIDATION
) -> list[object]:
    """The words that make a dataset in `folder`/set; writes what they name."""
    return [
        "data",
        "prepare",
        "docs",
        "--train",
        jsonl(folder / "train.jsonl", train),
        "--val",
        jsonl(folder / "val.jsonl", validation),
        "--tokenizer",
        tiny_tokenizer(folder),
        "--out",
        folder / "set",
    ]


def prepare(folder: Path, *more: object, **documents: Sequence[str]) -> Any:
    return pgolf(*command(folder, **documents), *more)


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


def test_bytes_that_normalisation_takes_or_adds_are_told_and_kept(tmp_path: Path) -> None:
    """Full-width digits become plain ones, and one ligature becomes a phrase."""
    for name, text, raw, counted, words in (
        ("taken", "０１２３４５６７８９ boats", 36, 16, "takes 20 of them"),
        ("added", "\ufdfa", 3, 33, "adds 30 to them"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        printed = prepare(folder, validation=[text]).stdout
        assert (
            f"raw bytes   {raw} in the validation documents: the tokenizer's normalisation {words}" in printed
        )
        assert f"bits per byte divide by {counted}\n" in printed
        made = json.loads(pgolf("data", "verify", folder / "set", "--json").stdout)
        assert (made["validation_raw_bytes"], made["validation_bytes"]) == (raw, counted)
        assert json.loads((folder / "set" / "dataset.json").read_bytes())["validation_raw_bytes"] == raw


def test_where_as_many_bytes_are_counted_as_the_documents_have_the_output_says_so(tmp_path: Path) -> None:
    assert "in the validation documents, and as many are counted" in prepare(tmp_path).stdout


@pytest.mark.slow
def test_a_cut_inside_a_document_counts_the_raw_bytes_before_it(tmp_path: Path) -> None:
    """Whatever the cut, what is left of this text is plain letters, so a byte was taken for each wide one."""
    text = "ａｎｏｔｈｅｒ ｔｅｘｔ"
    for cut in range(2, 9):
        folder = tmp_path / str(cut)
        folder.mkdir()
        made = json.loads(prepare(folder, "--val-tokens", cut, "--json", validation=[text]).stdout)
        counted = made["validation_bytes"]
        assert made["validation_raw_bytes"] == len(text[:counted].encode())
        assert 0 < counted < len(text)


@pytest.mark.parametrize("validation", [[""], ["", "  "], ["\u200b"]])
def test_a_validation_text_of_empty_documents_is_refused_when_it_is_made(
    tmp_path: Path, validation: list[str]
) -> None:
    refused = prepare(tmp_path, validation=validation).exception
    assert isinstance(refused, UsageError)
    assert f"{tmp_path}/val.jsonl: the validation text has no bytes" in str(refused)
    assert not (tmp_path / "set").exists()


def test_a_train_text_of_empty_documents_is_refused_when_it_is_made(tmp_path: Path) -> None:
    refused = prepare(tmp_path, train=["", " "]).exception
    assert isinstance(refused, UsageError)
    assert f"{tmp_path}/train.jsonl: the train text has no bytes" in str(refused)
    assert not (tmp_path / "set").exists()


def test_a_text_that_repeats_itself_is_a_dataset_whatever_it_compresses_to(tmp_path: Path) -> None:
    made = json.loads(prepare(tmp_path, "--json", validation=["a" * 3_000_000]).stdout)
    assert made["compressors"]["bz2 -9"] == 0.001


def test_a_cut_that_leaves_only_empty_documents_is_refused(tmp_path: Path) -> None:
    refused = prepare(tmp_path, "--val-tokens", 2, validation=["", "", "text"]).exception
    assert "the validation text has no bytes" in str(refused)


@pytest.mark.slow
def test_a_second_call_into_the_same_folder_waits_and_does_not_replace_what_the_first_made(
    tmp_path: Path,
) -> None:
    words = command(tmp_path)
    with locked(tmp_path / "set"):
        second = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
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
