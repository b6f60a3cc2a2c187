"""Make a dataset from two JSONL files, `{"text": "..."}` a line, and an existing tokenizer.

Inputs are streamed a line at a time, so their length costs no memory. A document that occurs in both files is
refused, with both line numbers, by the hash of its text as the tokenizer normalises it: training on
validation text is a common error (#2127: 80 % of the validation documents). Documents without text are kept
as a single BOS, so a stream made from decoded documents equals the stream they came from.

`val_tokens` cuts the validation stream after that many tokens, even inside a document: a prefix of the
official validation split has exactly its first ids.

Not covered: near-duplicates; a document twice in the same file; keys other than `text`, which are ignored.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.base.errors import UsageError
from harness.base.file_kind import not_plain
from harness.base.files import file_size, read_bounded, write_bytes
from harness.base.lock import locked
from harness.base.progress import ProgressCallback, no_progress
from harness.base.strict_json import strict_json
from harness.data.byte_table import ByteTable
from harness.data.dataset import Dataset, require_bytes
from harness.data.sentencepiece_file import MAX_MODEL_BYTES
from harness.data.tokenizer import Encoder
from harness.data.writer import SHARD_TOKENS, TOKENIZER_NAME, ShardWriter, finish, new_folder

MAX_LINE_BYTES = 64 << 20
MAX_VALIDATION_DOCUMENTS = 5_000_000
"""Their hashes are held in memory, 0.1 KB each; the official split has 50,000."""


class Document(NamedTuple):
    """One document: its line number, its text, and the byte where its line ends (for the progress bar)."""

    line: int
    text: str
    end: int


def _text_of(content: bytes) -> str:
    record = strict_json(content)
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError('expected an object with a string under "text"')
    text: str = record["text"]
    text.encode("utf-8")  # half a surrogate pair is no character
    return text


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a JSONL file, in order, without blank lines. Raises UsageError that names the line."""
    file_size(path)
    end = 0
    with open(path, "rb") as file:
        line = 0
        while content := file.readline(MAX_LINE_BYTES + 1):
            line += 1
            end += len(content)
            if (kind := not_plain(content)) is not None:
                where = f"{path}: line {line:,}" if line > 1 else f"{path}"
                raise UsageError(f"{where}: {kind}", hint='expected {"text": "..."} a line, in UTF-8')
            if len(content) > MAX_LINE_BYTES:
                raise UsageError(
                    f"{path}: line {line:,}: more than {MAX_LINE_BYTES:,} bytes",
                    hint="one document a line; split longer ones",
                )
            if not content.strip():
                continue
            try:
                yield Document(line, _text_of(content), end)
            except (UnicodeDecodeError, UnicodeEncodeError) as error:
                raise UsageError(
                    f"{path}: line {line:,}: not valid Unicode: {error.reason}",
                    hint="write the file as UTF-8, without half surrogate pairs",
                ) from None
            except ValueError as error:
                raise UsageError(
                    f"{path}: line {line:,}: {error}", hint='expected {"text": "..."} a line'
                ) from None


class _Overlap:
    """Remembers the validation documents by hash and refuses a train document that is one of them."""

    def __init__(self, encoder: Encoder, validation: Path, train: Path) -> None:
        self._encoder, self._validation, self._train = encoder, validation, train
        self._lines: dict[bytes, int] = {}

    def _digest(self, text: str) -> bytes | None:
        normal = self._encoder.normalise(text).strip()
        return hashlib.sha256(normal.encode("utf-8")).digest()[:16] if normal else None

    def remember(self, document: Document) -> None:
        """Remember a validation document, unless it has no text."""
        digest = self._digest(document.text)
        if digest is not None:
            self._lines.setdefault(digest, document.line)
        if len(self._lines) > MAX_VALIDATION_DOCUMENTS:
            raise UsageError(
                f"{self._validation}: more than {MAX_VALIDATION_DOCUMENTS:,} documents",
                hint="validation sets are small; are the two files swapped?",
            )

    def refuse(self, document: Document) -> None:
        """Raise UsageError if this train document is a validation document too."""
        digest = self._digest(document.text)
        if digest is not None and digest in self._lines:
            raise UsageError(
                f"{self._train}: line {document.line:,} is the document of line {self._lines[digest]:,} in "
                f"{self._validation}: {document.text[:60]!r}",
                hint="a validation document must not be trained on: remove it from the train file",
            )


def _watched(
    documents: Iterator[Document],
    n_bytes: int,
    low: float,
    high: float,
    what: str,
    progress: ProgressCallback,
) -> Iterator[Document]:
    for document in documents:
        yield document
        progress(low + (high - low) * document.end / max(n_bytes, 1), what)


def _write_validation(
    encoder: Encoder,
    documents: Iterator[Document],
    overlap: _Overlap,
    writer: ShardWriter,
    val_tokens: int | None,
    path: Path,
) -> int:
    """Write the validation stream up to `val_tokens`; documents after the cut are remembered too.

    Returns the UTF-8 bytes of the text that the stream stands for, before normalisation.
    """
    table, read = ByteTable.from_model(encoder.model), deque[str]()
    raw_bytes = counted_bytes = 0

    def texts() -> Iterator[str]:
        for document in documents:
            overlap.remember(document)
            if val_tokens is None or writer.tokens < val_tokens:
                read.append(document.text)
                yield document.text

    for tokens_T in encoder.encode(texts()):
        text = read.popleft()
        kept_T = tokens_T if val_tokens is None else tokens_T[: val_tokens - writer.tokens]
        whole = len(kept_T) == len(tokens_T)
        raw_bytes += len(text.encode()) if whole else encoder.raw_bytes(text, kept_T)
        counted_bytes += table.total(kept_T)
        writer.add(kept_T)
    writer.close()
    if val_tokens is not None and writer.tokens < val_tokens:
        raise UsageError(
            f"{path}: {writer.tokens:,} tokens, expected at least the {val_tokens:,} of --val-tokens",
            hint="ask for fewer, or leave the option out",
        )
    if writer.tokens == 0:
        raise UsageError(f"{path}: no documents", hint='expected {"text": "..."} a line')
    require_bytes(counted_bytes, str(path))
    return raw_bytes


def _write_train(
    encoder: Encoder, documents: Iterator[Document], overlap: _Overlap, writer: ShardWriter, path: Path
) -> None:
    """Write the train stream. Raises UsageError for a validation document in it, and where it has no text."""
    table, n_bytes = ByteTable.from_model(encoder.model), 0

    def texts() -> Iterator[str]:
        for document in documents:
            overlap.refuse(document)
            yield document.text

    for tokens_T in encoder.encode(texts()):
        writer.add(tokens_T)
        n_bytes += table.total(tokens_T)
    writer.close()
    if writer.tokens == 0:
        raise UsageError(f"{path}: no documents", hint='expected {"text": "..."} a line')
    if n_bytes == 0:
        raise UsageError(
            f"{path}: the train text has no bytes: its documents are empty, or hold only what the "
            "tokenizer's normalisation takes away",
            hint="a model learns nothing from it: give documents with text",
        )


@dataclass(frozen=True)
class Options:
    """The dataset's name, tokens of validation to keep (None: all), and tokens a shard."""

    name: str = "docs"
    val_tokens: int | None = None
    shard_tokens: int = SHARD_TOKENS


DEFAULT = Options()


def prepare(
    folder: Path,
    train: Path,
    validation: Path,
    tokenizer: Path,
    options: Options = DEFAULT,
    progress: ProgressCallback = no_progress,
) -> Dataset:
    """Make a dataset in `folder` from two JSONL files and a .model file. Raises UsageError."""
    val_tokens = options.val_tokens
    if val_tokens is not None and val_tokens < 2:
        raise UsageError(
            f"--val-tokens {val_tokens}: expected at least 2", hint="the first token is not scored"
        )
    encoder = Encoder.from_file(tokenizer)
    overlap = _Overlap(encoder, validation, train)
    folder = folder.absolute()
    with locked(folder), new_folder(folder) as partial:
        write_bytes(partial / TOKENIZER_NAME, read_bounded(tokenizer, MAX_MODEL_BYTES))
        val_bytes, train_bytes = file_size(validation), file_size(train)
        val_share = 0.9 * val_bytes / max(val_bytes + train_bytes, 1)
        val_writer = ShardWriter(partial, "val", options.shard_tokens)
        documents = _watched(read_documents(validation), val_bytes, 0.0, val_share, "validation", progress)
        raw_bytes = _write_validation(encoder, documents, overlap, val_writer, val_tokens, validation)
        documents = _watched(read_documents(train), train_bytes, val_share, 0.9, "train", progress)
        _write_train(encoder, documents, overlap, ShardWriter(partial, "train", options.shard_tokens), train)
        source: dict[str, str | int] = {"text": "own documents"}
        if val_tokens is not None:
            source["validation_cut_after_tokens"] = val_tokens
        finish(
            partial,
            options.name,
            source,
            raw_bytes=raw_bytes,
            progress=lambda share, what: progress(0.9 + 0.1 * share, what),
        )
    return Dataset.open(folder)
