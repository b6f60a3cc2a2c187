"""Write a dataset: shards of bounded size, in a folder that appears only when it is complete.

As in the official export, a document may continue in the next shard. Memory holds one document at a time.
Where the documents come from: pocket.py, jsonl.py, fineweb.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from harness.base import disk
from harness.base.errors import UsageError
from harness.base.files import file_size, sha256_of
from harness.base.progress import ProgressCallback, no_progress
from harness.data import compressors
from harness.data.byte_table import ByteTable
from harness.data.dataset import Dataset, require_bytes, write_manifest
from harness.data.detokenise import document_texts
from harness.data.sentencepiece_file import read_model
from harness.data.shards import Tokens, count_documents, header, read_tokens

SHARD_TOKENS = 100_000_000  # the official export's
TOKENIZER_NAME = "tokenizer.model"

Split = Literal["train", "val"]


class Prepared(NamedTuple):
    """A dataset that was asked for, and whether it was made just now."""

    dataset: Dataset
    made: bool


def shard_path(folder: Path, split: Split, index: int) -> Path:
    """Where a shard of a dataset lies."""
    return folder / f"{split}_{index:06d}.bin"


def shard_paths(folder: Path, split: Split) -> list[Path]:
    """The shards of a split that exist, in order."""
    return sorted(folder.glob(f"{split}_*.bin"))


class ShardWriter:
    """Appends documents to `<split>_000000.bin`, `<split>_000001.bin`, ... of `shard_tokens` tokens each."""

    def __init__(self, folder: Path, split: Split, shard_tokens: int = SHARD_TOKENS) -> None:
        self.tokens = 0  # in all shards
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._file: IO[bytes] | None = None
        self._shards, self._in_shard = 0, 0

    def add(self, tokens_T: Tokens) -> None:
        """Append a document's ids. tokens_T: uint16."""
        while len(tokens_T):
            if self._file is None:
                self._open()
            assert self._file is not None
            part_T = tokens_T[: self._shard_tokens - self._in_shard]
            self._file.write(np.ascontiguousarray(part_T, dtype="<u2").data)
            self._in_shard += len(part_T)
            self.tokens += len(part_T)
            tokens_T = tokens_T[len(part_T) :]
            if self._in_shard == self._shard_tokens:
                self.close()

    def _open(self) -> None:
        self._file = open(shard_path(self._folder, self._split, self._shards), "xb")  # noqa: SIM115 - see close
        self._file.write(header(0))
        self._shards, self._in_shard = self._shards + 1, 0

    def close(self) -> None:
        """Write the open shard's header, now that its length is known, and close it."""
        if self._file is None:
            return
        self._file.seek(0)
        self._file.write(header(self._in_shard))
        self._file.close()
        self._file = None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill. It is renamed to `folder` if the block succeeds, and removed otherwise.

    The caller holds the lock of `folder` (base/lock.py), so what lies at the temporary place was left by a
    killed process. Raises UsageError where `folder` exists, MachineFault where the system refuses a write.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder}: exists already", hint="remove it, or choose another folder with --out")
    partial = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise disk.machine_fault(error, folder, f"{folder}: cannot be written") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_entry(path: Path) -> dict[str, Any]:
    """The manifest's entry for a file."""
    return {"file": path.name, "n_bytes": file_size(path), "sha256": sha256_of(path)}


def shard_entry(path: Path, vocab_size: int) -> dict[str, Any]:
    """The manifest's entry for a token shard, which is checked first."""
    tokens_T = read_tokens(path, vocab_size)
    return file_entry(path) | {"tokens": len(tokens_T), "documents": count_documents(tokens_T)}


def finish(
    folder: Path,
    name: str,
    source: dict[str, Any],
    compressed: dict[str, float] | None = None,
    raw_bytes: int | None = None,
    progress: ProgressCallback = no_progress,
) -> str:
    """Check, hash and count what lies in `folder`, and write dataset.json; returns its SHA-256.

    `compressed`: the compressors' bits per byte where they are known; otherwise they are measured here.
    `raw_bytes`: UTF-8 bytes of the validation documents before normalisation, where they are known. Raises
    UsageError for a validation text without bytes.
    """
    train, validation = shard_paths(folder, "train"), shard_paths(folder, "val")
    tokenizer = folder / TOKENIZER_NAME
    model = read_model(tokenizer)
    vocab_size = len(model.pieces)
    table = ByteTable.from_tokenizer(tokenizer, vocab_size)
    entries: dict[Path, dict[str, Any]] = {}
    for index, path in enumerate([*train, *validation]):
        progress(index / (len(train) + len(validation)), f"hashing {path.name}")
        entries[path] = shard_entry(path, vocab_size)
    parts = [read_tokens(path, vocab_size) for path in validation]
    tokens_T = parts[0] if len(parts) == 1 else np.concatenate(parts)
    n_bytes = table.total(tokens_T)
    require_bytes(n_bytes, name)
    progress(1.0, "xz and bzip2 on the validation text")
    if compressed is None:
        compressed = compressors.bits_per_byte(document_texts(model, tokens_T))
    return write_manifest(
        folder,
        {
            "schema": 1,
            "name": name,
            "vocab_size": vocab_size,
            "tokenizer": file_entry(tokenizer),
            "train": [entries[path] for path in train],
            "validation": [entries[path] for path in validation],
            "validation_bytes": n_bytes,
            **({} if raw_bytes is None else {"validation_raw_bytes": raw_bytes}),
            "source": source,
            "compressors": compressed,
        },
    )
