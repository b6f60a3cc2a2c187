"""Small data for tests of datasets: a small trained tokenizer, documents, and hand-written .model files."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Iterable
from pathlib import Path

from harness.data.dataset import Dataset
from harness.data.jsonl import DEFAULT, Options, prepare
from harness.data.sentencepiece_file import Kind
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
