"""Datasets of anybody's documents: the official stream comes out again, and bad documents are named by their
line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import UsageError
from harness.data.compressors import bits_per_byte
from harness.data.dataset import Dataset
from harness.data.detokenise import document_texts
from harness.data.jsonl import Options, prepare
from harness.data.sentencepiece_file import Kind, read_model
from harness.data.shards import read_tokens
from tests.harness.fakes.datasets import (
    SPECIALS,
    TRAIN,
    VALIDATION,
    hand_model,
    jsonl,
    tiny_dataset,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def fineweb(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(
        tmp_path_factory.mktemp("fineweb") / "set",
        shared / "fineweb" / "fineweb_train_sample_dedup.jsonl",
        shared / "fineweb" / "fineweb_val_prefix_docs.jsonl",
        shared / "tokenizers" / "fineweb_1024_bpe.model",
        Options(name="fineweb-prefix", val_tokens=200_000),
    )


@pytest.mark.slow
def test_the_cut_stream_is_the_official_prefix(shared: Path, fineweb: Dataset) -> None:
    official = read_tokens(shared / "fineweb" / "fineweb_val_prefix_sp1024.bin", 1024)
    assert np.array_equal(fineweb.validation_tokens(), official[:200_000])
    assert fineweb.source["validation_cut_after_tokens"] == 200_000
    fineweb.verify()


def test_all_of_the_sample_becomes_train_tokens(fineweb: Dataset) -> None:
    assert sum(shard.documents for shard in fineweb.train) == 496
    assert 1_000_000 < fineweb.train_tokens_total < 1_040_000


@pytest.mark.slow
def test_the_compressors_reach_their_published_figures(shared: Path) -> None:
    tokens_T = read_tokens(shared / "fineweb" / "fineweb_val_prefix_sp1024.bin", 1024)
    model = read_model(shared / "tokenizers" / "fineweb_1024_bpe.model")
    assert bits_per_byte(document_texts(model, tokens_T)) == {"xz -9e": 2.557, "bz2 -9": 2.528}


def test_compressors_see_the_documents_joined_by_one_space() -> None:
    text = b"a rose is a rose " * 50
    assert bits_per_byte([text, b"b", b"c"]) == bits_per_byte([text + b" b c"])
    assert bits_per_byte([]) == {}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    assert len({tiny_dataset(folder).sha256 for folder in folders}) == 1


def test_shards_of_any_size_hold_the_same_stream(tmp_path: Path) -> None:
    streams = []
    for size in (1, 50, 10**6):
        folder = tmp_path / str(size)
        folder.mkdir()
        dataset = prepare(
            folder / "set",
            jsonl(folder / "t", TRAIN[:2]),
            jsonl(folder / "v", VALIDATION[:2]),
            tiny_tokenizer(folder),
            Options(shard_tokens=size),
        )
        streams.append(dataset.validation_tokens().tolist())
    assert streams[0] == streams[1] == streams[2]


def test_a_document_in_both_files_is_refused_with_both_lines(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "t", [*TRAIN[:5], "  " + VALIDATION[3].replace(" ", "\n") + " "])
    with pytest.raises(UsageError, match=r"line 6 is the document of line 4 in .*/v: ") as caught:
        prepare(tmp_path / "set", train, jsonl(tmp_path / "v", VALIDATION), tiny_tokenizer(tmp_path))
    assert "must not be trained on" in caught.value.hint
    assert not (tmp_path / "set").exists()


def test_a_document_behind_the_cut_is_still_refused(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "t", [*TRAIN[:5], VALIDATION[-1]])
    with pytest.raises(UsageError, match="line 6 is the document of line 12"):
        prepare(
            tmp_path / "set",
            train,
            jsonl(tmp_path / "v", VALIDATION),
            tiny_tokenizer(tmp_path),
            Options(val_tokens=10),
        )


def test_strange_but_lawful_text_is_kept(tmp_path: Path) -> None:
    texts = ["", "   ", "a\u2581b", "\x00nul", "\U0001f600", "e\u0301 \ufb01", "\r\n", "<s> </s> <0x41>"]
    dataset = prepare(
        tmp_path / "set",
        jsonl(tmp_path / "t", ["", *TRAIN]),
        jsonl(tmp_path / "v", texts),
        tiny_tokenizer(tmp_path),
    )
    dataset.verify()
    documents = list(document_texts(read_model(dataset.tokenizer), dataset.validation_tokens()))
    assert [text.decode() for text in documents] == [
        "",
        "",
        "a b",
        "\x00nul",
        "\U0001f600",
        "é fi",
        "",
        "<s> </s> <0x41>",
    ]
    assert dataset.validation_bytes == sum(map(len, documents))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": 7}', "line 2: expected an object with a string"),
        (b'{"txt": "a"}', "line 2: expected an object with a string"),
        (b'["a"]', "line 2: expected an object"),
        (b'{"text": "a", "text": "b"}', "line 2: the key 'text' is written twice"),
        (b'{"text": "a"', "line 2: Expecting"),
        (b'{"text": "\xff"}', "line 2: not valid Unicode"),
        (b'{"text": "\\ud800"}', "line 2: not valid Unicode: surrogates not allowed"),
        (b'{"text": "a", "n": NaN}', "line 2: NaN"),
        (b"[" * 100_000, "line 2: nested too deeply|line 2: Expecting"),
        (b"\xef\xbb\xbf{}", "line 2: starts with a byte order mark: save it as UTF-8 without one"),
    ],
)
@pytest.mark.parametrize("side", ["train", "val"])
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, says: str, side: str) -> None:
    good, bad = jsonl(tmp_path / "good", ["fine"]), tmp_path / "bad"
    bad.write_bytes(b'{"text": "first"}\n' + line + b"\n")
    train, val = (bad, good) if side == "train" else (good, bad)
    with pytest.raises(UsageError, match=says) as caught:
        prepare(tmp_path / "set", train, val, tiny_tokenizer(tmp_path))
    assert str(bad) in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set*"))


@pytest.mark.parametrize(
    ("convert", "says"),
    [
        (lambda text: b"\xef\xbb\xbf" + text, "starts with a byte order mark: save it as UTF-8 without one"),
        (gzip.compress, "is gzip: unpack it first"),
        (lambda text: b"\x28\xb5\x2f\xfd" + text, "is zstd: unpack it first"),
        (lambda text: text.decode().encode("utf-16"), "is UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_plain_text_is_called_what_it_is(
    tmp_path: Path, convert: Callable[[bytes], bytes], says: str
) -> None:
    file = jsonl(tmp_path / "v", VALIDATION)
    file.write_bytes(convert(file.read_bytes()))
    with pytest.raises(UsageError, match=f"/v: {says}"):
        prepare(tmp_path / "set", jsonl(tmp_path / "t", TRAIN), file, tiny_tokenizer(tmp_path))


def test_an_endless_line_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.jsonl.MAX_LINE_BYTES", 1000)
    bad = jsonl(tmp_path / "v", ["a" * 2000])
    with pytest.raises(UsageError, match="line 1: more than 1,000 bytes"):
        prepare(tmp_path / "set", jsonl(tmp_path / "t", TRAIN), bad, tiny_tokenizer(tmp_path))


@pytest.mark.parametrize("side", ["train", "val"])
def test_a_file_without_documents_is_refused(tmp_path: Path, side: str) -> None:
    train = jsonl(tmp_path / "t", [] if side == "train" else TRAIN)
    val = jsonl(tmp_path / "v", VALIDATION if side == "train" else [])
    with pytest.raises(UsageError, match="no documents"):
        prepare(tmp_path / "set", train, val, tiny_tokenizer(tmp_path))


@pytest.mark.parametrize(
    ("val_tokens", "says"), [(1, "at least 2"), (0, "at least 2"), (10**6, "expected at least the 1,000,000")]
)
def test_a_cut_that_cannot_be_made_is_refused(tmp_path: Path, val_tokens: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tiny_dataset(tmp_path, Options(val_tokens=val_tokens))


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        tiny_dataset(tmp_path)
    assert (tmp_path / "set" / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no model", "not a SentencePiece model"),
        (gzip.compress(b"a model", mtime=0), "it is gzip: unpack it first"),
        (hand_model([*SPECIALS, ("\u2581", Kind.NORMAL)], byte_fallback=False), "no byte fallback"),
        (hand_model([*SPECIALS, ("\u2581", Kind.NORMAL)]), "not 256 byte pieces"),
    ],
)
def test_an_unusable_tokenizer_is_refused_before_any_work(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "bad.model").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        prepare(
            tmp_path / "set",
            jsonl(tmp_path / "t", TRAIN),
            jsonl(tmp_path / "v", VALIDATION),
            tmp_path / "bad.model",
        )


def test_other_keys_of_a_line_are_ignored(tmp_path: Path) -> None:
    rich = tmp_path / "rich"
    rich.write_text(
        "".join(
            json.dumps({"id": number, "text": text, "url": None}) + "\n\n"
            for number, text in enumerate(VALIDATION)
        )
    )
    dataset = prepare(tmp_path / "set", jsonl(tmp_path / "t", TRAIN), rich, tiny_tokenizer(tmp_path))
    (tmp_path / "plain").mkdir()
    assert dataset.sha256 == tiny_dataset(tmp_path / "plain").sha256
