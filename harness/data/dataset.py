"""Open and verify a dataset: one flat folder with `dataset.json`, a tokenizer and token shards.

`Dataset.open` reads the manifest within bounds, allows only plain file names in that folder, and checks the
length of every file. `Dataset.verify` does the slow part: every hash, header, id and the byte total. The
folder may come from anybody, so a name such as ../../etc/passwd, a key written twice or a number with a
million digits is an error that names its place.

Not covered: whether the text is what the dataset's name says; `source` is free text that nobody checks.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.base.errors import UsageError
from harness.base.files import SAFE_NAME, file_size, read_bounded, sha256_of, write_bytes
from harness.base.progress import ProgressCallback, no_progress
from harness.base.strict_json import strict_json
from harness.base.text import literal
from harness.data.byte_table import ByteTable
from harness.data.shards import (
    BOS_ID,
    HEADER_BYTES,
    MAX_TOKENS,
    Tokens,
    count_documents,
    read_header,
    read_tokens,
)

MANIFEST = "dataset.json"
MAX_MANIFEST_BYTES = 4 << 20
MAX_SHARDS = 10_000


def _safe_name(name: str) -> str:
    if not SAFE_NAME.fullmatch(name) or name == MANIFEST:
        raise ValueError("expected a plain file name in the dataset's folder (letters, digits, . _ -)")
    return name


def _positive(number: float) -> float:
    if not (math.isfinite(number) and number > 0):
        raise ValueError("expected a finite number above 0")
    return number


FileName = Annotated[str, AfterValidator(_safe_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Strict):
    """One file of the folder."""

    file: FileName
    n_bytes: Count
    sha256: Sha256


class ShardEntry(FileEntry):
    """A token shard; `documents` is the number of BOS in it."""

    tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    documents: Count

    @model_validator(mode="after")
    def _length_fits(self) -> ShardEntry:
        if self.n_bytes != HEADER_BYTES + 2 * self.tokens:
            raise ValueError(
                f"n_bytes is {self.n_bytes}, but {self.tokens} tokens make {HEADER_BYTES + 2 * self.tokens}"
            )
        return self


class Manifest(_Strict):
    """dataset.json, schema 1.

    validation_bytes: the bytes that the score divides by, as the byte table counts them.
    validation_raw_bytes: UTF-8 bytes of the same text before the tokenizer normalised it; only where the
    maker saw that text.
    """

    schema_version: Annotated[int, Field(ge=1, le=1)] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    vocab_size: Annotated[int, Field(ge=4, le=65_536)]
    tokenizer: FileEntry
    train: Annotated[list[ShardEntry], Field(max_length=MAX_SHARDS)]
    validation: Annotated[list[ShardEntry], Field(min_length=1, max_length=MAX_SHARDS)]
    validation_bytes: Count
    validation_raw_bytes: Count | None = None
    source: dict[str, str | int | float | bool | None]
    compressors: dict[str, Annotated[float, AfterValidator(_positive)]]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Manifest:
        names = [self.tokenizer.file, *(shard.file for shard in self.train + self.validation)]
        if len({name.casefold() for name in names}) != len(names):
            raise ValueError("a file is named twice")
        return self


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """The manifest in the bytes of `path`. Raises UsageError that names the first error and its place."""
    hint = "dataset.json is written by `pgolf data prepare`; make the dataset again rather than editing it"
    try:
        return Manifest.model_validate(strict_json(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(
            f"{path}: {place}: {first['msg']}, found {literal(first['input'])}{more}", hint=hint
        ) from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}", hint=hint) from None


def require_bytes(validation_bytes: int, place: str) -> None:
    """Raises UsageError for a validation text without bytes, which has no score."""
    if validation_bytes == 0:
        raise UsageError(
            f"{place}: the validation text has no bytes: its documents are empty, or hold only "
            "what the tokenizer's normalisation takes away",
            hint="bits per byte divide by its bytes: make the dataset from validation documents with text",
        )


def write_manifest(folder: Path, manifest: dict[str, Any]) -> str:
    """Check `manifest` and write it as dataset.json, sorted by key; returns the file's SHA-256."""
    content = (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")
    parse_manifest(content, folder / MANIFEST)
    write_bytes(folder / MANIFEST, content)
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Shard:
    """One token shard as the manifest describes it."""

    path: Path
    tokens: int
    documents: int
    n_bytes: int
    sha256: str


def _shards(folder: Path, entries: list[ShardEntry]) -> tuple[Shard, ...]:
    return tuple(
        Shard(folder / entry.file, entry.tokens, entry.documents, entry.n_bytes, entry.sha256)
        for entry in entries
    )


@dataclass(frozen=True)
class Dataset:
    """An opened dataset. `sha256` is that of dataset.json, which holds all other hashes."""

    folder: Path
    sha256: str
    name: str
    vocab_size: int
    tokenizer: Path
    tokenizer_sha256: str
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    validation_bytes: int
    validation_raw_bytes: int | None
    compressors: dict[str, float]
    source: dict[str, str | int | float | bool | None]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read the manifest and check every file's length; `verify` reads the files themselves.

        Raises UsageError for a folder that is no dataset or whose files have other lengths.
        """
        folder = Path(folder).absolute()
        path = folder / MANIFEST
        if not path.exists():
            raise UsageError(
                f"{folder}: no dataset here ({MANIFEST} is missing)",
                hint="make one with `pgolf data prepare pocket`, or see `pgolf data prepare --help`",
            )
        content = read_bounded(path, MAX_MANIFEST_BYTES)
        manifest = parse_manifest(content, path)
        require_bytes(manifest.validation_bytes, str(folder))
        for entry in (manifest.tokenizer, *manifest.train, *manifest.validation):
            n_bytes = file_size(folder / entry.file)
            if n_bytes != entry.n_bytes:
                raise UsageError(
                    f"{folder / entry.file}: expected {entry.n_bytes:,} bytes, found {n_bytes:,}",
                    hint="the file was cut short or replaced: prepare the dataset again",
                )
        return cls(
            folder=folder,
            sha256=hashlib.sha256(content).hexdigest(),
            name=manifest.name,
            vocab_size=manifest.vocab_size,
            tokenizer=folder / manifest.tokenizer.file,
            tokenizer_sha256=manifest.tokenizer.sha256,
            train=_shards(folder, manifest.train),
            validation=_shards(folder, manifest.validation),
            validation_bytes=manifest.validation_bytes,
            validation_raw_bytes=manifest.validation_raw_bytes,
            compressors=dict(manifest.compressors),
            source=dict(manifest.source),
        )

    @property
    def validation_tokens_total(self) -> int:
        """Number of tokens of the validation stream, from the manifest."""
        return sum(shard.tokens for shard in self.validation)

    @property
    def train_tokens_total(self) -> int:
        """Number of tokens of all train shards, from the manifest."""
        return sum(shard.tokens for shard in self.train)

    def byte_table(self) -> ByteTable:
        """The judge's table for this dataset's tokenizer."""
        return ByteTable.from_tokenizer(self.tokenizer, self.vocab_size)

    def validation_tokens(self) -> Tokens:
        """The whole validation stream, in order, read-only. tokens_T: uint16."""
        parts = [read_tokens(shard.path, self.vocab_size) for shard in self.validation]
        tokens_T: Tokens = parts[0] if len(parts) == 1 else np.concatenate(parts)
        tokens_T.flags.writeable = False
        return tokens_T

    def verify(self, report: ProgressCallback = no_progress) -> None:
        """Check all hashes, headers, ids, document counts and the byte total. Raises UsageError."""
        work = sum(shard.n_bytes for shard in (*self.train, *self.validation)) or 1
        _expect(self.tokenizer, "sha256", self.tokenizer_sha256, sha256_of(self.tokenizer))
        table = self.byte_table()
        done, n_bytes, previous = 0, 0, None
        for shard in (*self.train, *self.validation):
            report(done / work, shard.path.name)
            tokens_T = _verified(shard, self.vocab_size)
            if shard in self.validation and shard.tokens:
                if previous is None and int(tokens_T[0]) != BOS_ID:
                    raise UsageError(
                        f"{shard.path}: the first id is {int(tokens_T[0])}, expected BOS ({BOS_ID})",
                        hint="documents begin with BOS: prepare the dataset again",
                    )
                n_bytes += table.total(tokens_T, previous)
                previous = int(tokens_T[-1])
            done += shard.n_bytes
        _expect(self.folder / MANIFEST, "validation_bytes", f"{self.validation_bytes:,}", f"{n_bytes:,}")
        report(1.0, "verified")


def _expect(path: Path, what: str, expected: str, found: str) -> None:
    if expected != found:
        raise UsageError(
            f"{path}: {what}: expected {expected}, found {found}",
            hint="the dataset was changed or damaged after it was made: prepare it again",
        )


def _verified(shard: Shard, vocab_size: int) -> Tokens:
    _expect(shard.path, "tokens", f"{shard.tokens:,}", f"{read_header(shard.path):,}")
    tokens_T = read_tokens(shard.path, vocab_size)
    _expect(shard.path, "sha256", shard.sha256, sha256_of(shard.path))
    _expect(shard.path, "documents", f"{shard.documents:,}", f"{count_documents(tokens_T):,}")
    return tokens_T
