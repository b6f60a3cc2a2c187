"""Train a SentencePiece tokenizer reproducibly, and encode documents with one.

The settings are those stored in the official models (trainer_spec of fineweb_1024_bpe.model): BPE,
character coverage 0.999, digits split, byte fallback, no dummy prefix, nmt_nfkc, ids pad 0, bos 1, eos 2,
unk 3. With one thread and the sentences in a fixed order the trainer is deterministic: the same text gives
the same file, byte for byte. Other versions of the library may choose otherwise among equal merges:
pocket.py pins hashes against that.

SentencePiece is C++. It only loads models that sentencepiece_file.py has accepted, and only here, where
datasets are made; the judge counts bytes without it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.errors import UsageError
from harness.base.files import read_bounded
from harness.data.byte_table import absorbs_space, check_countable
from harness.data.sentencepiece_file import MAX_MODEL_BYTES, SPACE, Kind, ModelFile, parse_model
from harness.data.shards import BOS_ID, Tokens

MAX_LINE_BYTES = 1 << 20  # by default the library silently drops lines above 4,192 bytes
QUIET = 2  # errors only
BATCH_CHARACTERS = 1 << 20


def library_version() -> str:
    """The version of the installed SentencePiece, for messages."""
    return version("sentencepiece")


def lines_of(texts: Iterable[str]) -> Iterator[str]:
    """Every line that is not blank, in order: the trainer's sentences."""
    for text in texts:
        for line in text.splitlines():
            if line.strip():
                yield line


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """A .model file trained on the lines of these texts."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines_of(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=0.999,
        split_digits=True,
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=BOS_ID,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        max_sentence_length=MAX_LINE_BYTES,
        minloglevel=QUIET,
    )
    return model.getvalue()


class Encoder:
    """Encodes documents as ids, each beginning with BOS, by a checked tokenizer.

    Raises UsageError for a model that is damaged, that bytes cannot be counted by, or that has no byte
    fallback.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        import sentencepiece

        try:
            self.model: ModelFile = parse_model(content)
            self._processor: Any = sentencepiece.SentencePieceProcessor()
            self._processor.LoadFromSerializedProto(content)
        except (ValueError, RuntimeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path}: not a SentencePiece model that can be used: {error}",
                hint="expected a .model file as SentencePiece's trainer writes it",
            ) from None
        self.vocab_size = len(self.model.pieces)
        check_countable(self.model, self.vocab_size, path)
        if not self.model.byte_fallback:
            raise UsageError(
                f"{path}: the tokenizer has no byte fallback: text without a piece becomes the unknown id",
                hint="such text would count no bytes (#123): train it with byte_fallback",
            )
        self._threads = min(os.cpu_count() or 1, 8)  # over documents: the result is the same for any number

    @classmethod
    def from_file(cls, path: Path) -> Encoder:
        """Read a .model file of at most 16 MiB."""
        return cls(read_bounded(path, MAX_MODEL_BYTES), path)

    def normalise(self, text: str) -> str:
        """The text after the tokenizer's normalisation, by which documents are compared."""
        return str(self._processor.normalize(text)).replace(SPACE, " ")

    def raw_bytes(self, text: str, tokens_T: Tokens) -> int:
        """UTF-8 bytes of the beginning of `text` that its first ids stand for, in whole characters.

        tokens_T: uint16.
        """
        normal, offsets = self._processor.normalize(text, with_offsets=True)
        pieces = (self.model.pieces[token] for token in tokens_T.tolist())
        n_bytes = sum(
            1 if piece.kind is Kind.BYTE else len(piece.text.encode())
            for piece in pieces
            if not absorbs_space(piece)
        )
        n_characters = len(normal.encode()[:n_bytes].decode(errors="ignore"))
        return len(text[: offsets[n_characters]].encode())

    def encode(self, texts: Iterable[str]) -> Iterator[Tokens]:
        """One uint16 array a document, in order; reads ahead by about a million characters."""
        batch: list[str] = []
        waiting = 0
        for text in texts:
            batch.append(text)
            waiting += len(text)
            if waiting >= BATCH_CHARACTERS:
                yield from self._encode(batch)
                batch, waiting = [], 0
        yield from self._encode(batch)

    def _encode(self, batch: list[str]) -> Iterator[Tokens]:
        for ids in self._processor.encode(batch, out_type=int, num_threads=self._threads):
            yield np.array([BOS_ID, *ids], dtype=np.uint16)
