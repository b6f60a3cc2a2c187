"""Small data for tests of datasets: a small trained tokenizer, documents, and hand-written .model files."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import sentencepiece

from harness.data.byte_table import ByteTable
from harness.data.dataset import Dataset, write_manifest
from harness.data.jsonl import DEFAULT, Options, prepare
from harness.data.sentencepiece_file import Kind
from harness.data.shards import write_tokens
from harness.data.tokenizer import train_tokenizer

TRAIN = [
    f"Document {number} speaks of the river, the old bridge and {number * 7} boats.\nIt ends here."
    for number in range(40)
]
VALIDATION = [
    f"Another text, numbered {number}, about mountains, naïve cafés and {number * 11} goats."
    for number in range(12)
]
VOCAB_SIZE = 320
WORD_VOCABULARY = 300


@functools.cache
def tiny_model() -> bytes:
    """A SentencePiece model of 320 pieces with the challenge's settings."""
    return train_tokenizer(TRAIN, VOCAB_SIZE)


def jsonl(path: Path, texts: Iterable[str]) -> Path:
    """Write documents, one a line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def tiny_tokenizer(folder: Path) -> Path:
    """The tiny model as a file."""
    path = folder / "tiny.model"
    path.write_bytes(tiny_model())
    return path


def tiny_dataset(folder: Path, options: Options = DEFAULT) -> Dataset:
    """A whole small dataset under `folder`/set."""
    return prepare(
        folder / "set",
        jsonl(folder / "train.jsonl", TRAIN),
        jsonl(folder / "val.jsonl", VALIDATION),
        tiny_tokenizer(folder),
        options,
    )


def write_word_dataset(folder: Path) -> None:
    """A dataset of two shards, eight documents each, with a tokenizer of WORD_VOCABULARY pieces."""
    words = np.random.default_rng(0).integers(0, 400, 6000)
    lines = [" ".join(f"w{word:x}" for word in words[start : start + 60]) for start in range(0, 6000, 60)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=WORD_VOCABULARY,
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
    table = ByteTable.from_tokenizer(folder / "tokenizer.model", WORD_VOCABULARY)
    write_manifest(
        folder,
        {
            "schema": 1,
            "name": "tiny",
            "vocab_size": WORD_VOCABULARY,
            "tokenizer": _entry(folder / "tokenizer.model"),
            "train": [entries["train"]],
            "validation": [entries["val"]],
            "source": {},
            "compressors": {},
            "validation_bytes": int(table.count(tokens_T, None).sum()),
        },
    )


def _shard(path: Path, pieces: sentencepiece.SentencePieceProcessor, lines: list[str]) -> dict[str, object]:
    documents = [" ".join(lines[start : start + 7]) for start in range(0, len(lines), 7)]
    tokens = [token for text in documents for token in [1, *pieces.encode(text)]]
    write_tokens(path, np.array(tokens, np.uint16))
    return {**_entry(path), "tokens": len(tokens), "documents": len(documents)}


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"file": path.name, "n_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol-buffer message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def hand_model(
    pieces: Iterable[tuple[str | bytes, Kind]], extra: bytes = b"", byte_fallback: bool = True
) -> bytes:
    """A .model file of these pieces."""
    parts = []
    for text, kind in pieces:
        raw = text.encode("utf-8") if isinstance(text, str) else text
        parts.append(field(1, field(1, raw) + b"\x15" + struct.pack("<f", 0.0) + field(3, int(kind))))
    return b"".join(parts) + field(2, field(35, int(byte_fallback))) + extra


SPECIALS = [("<pad>", Kind.CONTROL), ("<s>", Kind.CONTROL), ("</s>", Kind.CONTROL), ("<unk>", Kind.UNKNOWN)]
BYTES = [(f"<0x{byte:02X}>", Kind.BYTE) for byte in range(256)]
