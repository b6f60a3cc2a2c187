"""A dataset folder: what it promises, and everything that can be wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import UsageError
from harness.data.dataset import Dataset
from harness.data.jsonl import Options
from harness.data.shards import HEADER_BYTES, write_tokens
from tests.harness.fakes.datasets import VALIDATION, tiny_dataset


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("original"), Options(shard_tokens=700)).folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "set"))


def edit(folder: Path, change: Any) -> None:
    path = folder / "dataset.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_dataset_opens_and_verifies(folder: Path) -> None:
    dataset = Dataset.open(folder)
    seen: list[float] = []
    dataset.verify(lambda share, what: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(dataset.train) > 1
    assert [shard.tokens for shard in dataset.train[:-1]] == [700] * (len(dataset.train) - 1)
    assert sum(shard.documents for shard in dataset.validation) == len(VALIDATION)
    assert dataset.validation_bytes == sum(len(text.encode()) for text in VALIDATION)


def test_the_validation_stream_is_its_shards_in_order_and_read_only(folder: Path) -> None:
    dataset = Dataset.open(folder)
    tokens_T = dataset.validation_tokens()
    assert len(tokens_T) == dataset.validation_tokens_total
    assert tokens_T[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        tokens_T[0] = 2


def test_a_dataset_made_before_raw_bytes_were_counted_opens(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.pop("validation_raw_bytes"))
    dataset = Dataset.open(folder)
    dataset.verify()
    assert dataset.validation_raw_bytes is None


def test_its_hash_is_that_of_the_manifest(folder: Path) -> None:
    before = Dataset.open(folder).sha256
    edit(folder, lambda manifest: manifest.update(name="other"))
    assert Dataset.open(folder).sha256 != before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(schema=2), "schema"),
        (lambda m: m.update(extra=1), "extra: Extra inputs"),
        (lambda m: m.update(validation_bytes=0), "the validation text has no bytes: its documents are empty"),
        (lambda m: m.update(validation_raw_bytes=-1), "validation_raw_bytes"),
        (lambda m: m.pop("compressors"), "compressors: Field required"),
        (lambda m: m.update(vocab_size="320"), "vocab_size"),
        (lambda m: m.update(vocab_size=True), "vocab_size.*found true"),
        (lambda m: m.update(vocab_size=None), "vocab_size.*found null"),
        (lambda m: m.update(vocab_size={"a": [None]}), r'vocab_size.*found \{"a": \[null\]\}'),
        (lambda m: m.update(vocab_size=1 << 20), "vocab_size"),
        (lambda m: m.update(name="../x"), "name"),
        (lambda m: m["tokenizer"].update(file="../../etc/passwd"), "expected a plain file name"),
        (lambda m: m["train"][0].update(file="/etc/passwd"), "expected a plain file name"),
        (lambda m: m["train"][0].update(file=".."), "expected a plain file name"),
        (lambda m: m["train"][0].update(file="a/b.bin"), "expected a plain file name"),
        (lambda m: m["train"][0].update(file="a\nb.bin"), "expected a plain file name"),
        (lambda m: m["train"][0].update(file="dataset.json"), "expected a plain file name"),
        (lambda m: m["train"][0].update(file=m["validation"][0]["file"]), "a file is named twice"),
        (lambda m: m["train"][0].update(sha256="0" * 63), "sha256"),
        (lambda m: m["train"][0].update(sha256="0" * 64 + "\n"), "sha256"),
        (lambda m: m["train"][0].update(tokens=-1), "tokens"),
        (lambda m: m["train"][0].update(tokens=10**12, n_bytes=2 * 10**12 + 1024), "tokens"),
        (lambda m: m["train"][0].update(tokens=m["train"][0]["tokens"] + 1), "tokens make"),
        (lambda m: m.update(validation=[]), "validation"),
        (lambda m: m.update(train=m["train"] * 20_000), "."),
        (lambda m: m["compressors"].update({"xz -9e": 0}), "above 0"),
        (lambda m: m["source"].update(text=["a"]), "source"),
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused(folder: Path, change: Any, says: str) -> None:
    edit(folder, change)
    with pytest.raises(UsageError, match=says) as caught:
        Dataset.open(folder)
    assert caught.value.hint
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"schema":1,"schema":1}', "'schema' is written twice"),
        (b'{"tokenizer":{"file":"a","file":"b"}}', "'file' is written twice"),
        (b'{"schema":NaN}', "NaN is no number"),
        (b'{"schema":' + b"9" * 100_000 + b"}", "a number of 100,000 digits"),
        (b"[" * 200_000, "nested too deeply|Expecting"),
        (b'{"schema":1e999}', "too large for a number"),
        (b"\xff{}", "utf-8"),
        (b"[]", "the whole"),
        (b"", "Expecting value"),
        (b" " * (5 << 20), "5,242,880 bytes, expected at most 4,194,304"),
    ],
)
def test_a_manifest_that_is_no_honest_json_is_refused(folder: Path, content: bytes, says: str) -> None:
    (folder / "dataset.json").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        Dataset.open(folder)


def test_a_folder_without_a_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dataset\.json is missing") as caught:
        Dataset.open(tmp_path)
    assert "pgolf data prepare" in caught.value.hint


def test_a_missing_or_shortened_or_linked_file_is_found_on_opening(folder: Path) -> None:
    shard = folder / "val_000000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-2])
    with pytest.raises(UsageError, match=r"val_000000\.bin: expected .* bytes, found"):
        Dataset.open(folder)
    shard.unlink()
    with pytest.raises(UsageError, match=r"val_000000\.bin: cannot be opened"):
        Dataset.open(folder)
    (folder.parent / "elsewhere.bin").write_bytes(content)
    shard.symlink_to(folder.parent / "elsewhere.bin")
    with pytest.raises(UsageError, match="expected a regular file"):
        Dataset.open(folder)


def flip(path: Path, offset: int, bits: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= bits
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize(
    ("name", "offset", "bits", "says"),
    [
        ("tokenizer.model", 30, 1, r"tokenizer\.model: sha256: expected"),
        ("train_000000.bin", HEADER_BYTES + 20, 1, r"train_000000\.bin: sha256: expected"),
        ("val_000000.bin", 0, 1, "shard magic"),
        ("val_000000.bin", HEADER_BYTES + 21, 0x80, "expected an id below 320"),
    ],
)
def test_a_changed_byte_is_found_by_verify(
    folder: Path, name: str, offset: int, bits: int, says: str
) -> None:
    flip(folder / name, offset, bits)
    dataset = Dataset.open(folder)
    with pytest.raises(UsageError, match=says):
        dataset.verify()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(validation_bytes=m["validation_bytes"] - 1), "validation_bytes: expected"),
        (lambda m: m["validation"][0].update(documents=1), "documents: expected 1, found"),
        (lambda m: m.update(vocab_size=1024), "has 320 pieces, expected 1,024"),
    ],
)
def test_a_false_promise_is_found_by_verify(folder: Path, change: Any, says: str) -> None:
    edit(folder, change)
    with pytest.raises(UsageError, match=says):
        Dataset.open(folder).verify()


def test_validation_has_to_open_with_a_document(folder: Path) -> None:
    from harness.base.files import sha256_of

    write_tokens(folder / "val_000000.bin", np.array([5, 1, 6], dtype=np.uint16))
    entry = {
        "tokens": 3,
        "documents": 1,
        "n_bytes": HEADER_BYTES + 6,
        "sha256": sha256_of(folder / "val_000000.bin"),
    }
    edit(folder, lambda m: m["validation"][0].update(entry))
    with pytest.raises(UsageError, match="the first id is 5, expected BOS"):
        Dataset.open(folder).verify()
