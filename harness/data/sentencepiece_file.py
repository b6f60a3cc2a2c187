"""Read the pieces and decoding settings of a SentencePiece .model file, in plain Python.

The file is one protocol-buffer message, and reading what we need of it takes a hundred lines. The judge
therefore never gives a stranger's tokenizer to a C++ parser, and the byte table (byte_table.py) is
independent of the library that the tests compare it with.

Field numbers: sentencepiece_model.proto of github.com/google/sentencepiece. What matters only for encoding
(scores, the normaliser's character map) is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from harness.base.errors import UsageError
from harness.base.file_kind import not_plain
from harness.base.files import read_bounded

MAX_MODEL_BYTES = 16 << 20
MAX_PIECES = 1 << 16  # ids are uint16
MAX_PIECE_BYTES = 1024
SPACE = "\u2581"  # how a space is written inside pieces

# fields of ModelProto, of a piece, of the trainer's and the normaliser's settings
PIECES, TRAINER, NORMALIZER, DENORMALIZER = 1, 2, 3, 5
PIECE_TEXT, PIECE_KIND = 1, 3
WHITESPACE_AS_SUFFIX, BYTE_FALLBACK = 24, 35
CHARSMAP, ESCAPE_WHITESPACES = 2, 5

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

Field = tuple[int, "int | bytes"]


class Kind(IntEnum):
    """What a piece stands for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One id's piece. `text` keeps U+2581 for a space."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class ModelFile:
    """What the judge reads of a tokenizer."""

    pieces: tuple[Piece, ...]
    byte_fallback: bool
    escapes_spaces: bool


class _Broken(Exception):
    """The message is malformed or breaks a bound; `parse_model` turns this into a ValueError."""


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, next offset) of a base-128 number of at most ten bytes."""
    value = 0
    for index in range(10):
        if at + index >= len(message):
            raise _Broken("a number runs past the end")
        byte = message[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _Broken(f"a number of more than ten bytes at byte {at:,}")


def _fields(message: bytes) -> Iterator[Field]:
    """(field number, value) in the order of the file; varints as int, everything else as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _Broken(f"a field without a number at byte {at:,}")
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise _Broken(f"wire type {wire} at byte {at:,}")
        if length > len(message) - at:
            raise _Broken(f"a field of {length:,} bytes at byte {at:,} runs past the end")
        yield number, message[at : at + length]
        at += length


def _flag(message: bytes, number: int, default: bool) -> bool:
    """A boolean setting; where it occurs twice the last counts, as in every protocol buffer."""
    flag = default
    for field, value in _fields(message):
        if field == number:
            if not isinstance(value, int):
                raise _Broken(f"field {number} should be a number")
            flag = bool(value)
    return flag


def _piece(message: bytes, index: int) -> Piece:
    text, kind = b"", int(Kind.NORMAL)
    for field, value in _fields(message):
        if field == PIECE_TEXT and isinstance(value, bytes):
            text = value
        elif field == PIECE_KIND and isinstance(value, int):
            kind = value
        elif field in (PIECE_TEXT, PIECE_KIND):
            raise _Broken(f"piece {index}: field {field} has the wrong type")
    if not 0 < len(text) <= MAX_PIECE_BYTES:
        raise _Broken(f"piece {index}: a text of {len(text):,} bytes, expected 1 to {MAX_PIECE_BYTES:,}")
    if kind not in Kind._value2member_map_:
        raise _Broken(f"piece {index}: unknown kind {kind}")
    try:
        piece = Piece(text.decode("utf-8"), Kind(kind))
    except UnicodeDecodeError as error:
        raise _Broken(f"piece {index}: its text is not UTF-8") from error
    if piece.kind is Kind.BYTE and not BYTE_PIECE.fullmatch(piece.text):
        raise _Broken(f"piece {index}: a byte piece called {piece.text!r}, expected <0x00> to <0xFF>")
    return piece


def _settings(message: bytes) -> dict[int, bytes]:
    """The sub-messages of settings, by field number; each may occur once, since two would merge."""
    settings: dict[int, bytes] = {}
    for field, value in _fields(message):
        if field in (TRAINER, NORMALIZER, DENORMALIZER):
            if field in settings or not isinstance(value, bytes):
                raise _Broken(f"field {field} should be one message")
            settings[field] = value
    return settings


def _pieces(message: bytes) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for field, value in _fields(message):
        if field != PIECES:
            continue
        if not isinstance(value, bytes):
            raise _Broken("a piece should be a message")
        if len(pieces) == MAX_PIECES:
            raise _Broken(f"more than {MAX_PIECES:,} pieces")
        pieces.append(_piece(value, len(pieces)))
    if not pieces:
        raise _Broken("no pieces")
    if len({piece.text for piece in pieces}) != len(pieces):
        raise _Broken("two pieces have the same text")
    return tuple(pieces)


def parse_model(message: bytes) -> ModelFile:
    """Read the bytes of a .model file. Raises ValueError that says what is wrong with them."""
    if (kind := not_plain(message)) is not None:
        raise ValueError(f"it {kind}")
    try:
        settings = _settings(message)
        trainer = settings.get(TRAINER, b"")
        if _flag(trainer, WHITESPACE_AS_SUFFIX, default=False):
            raise _Broken(
                "it writes spaces behind words (treat_whitespace_as_suffix), expected in front of them"
            )
        for field, value in _fields(settings.get(DENORMALIZER, b"")):
            if field == CHARSMAP and value:
                raise _Broken(
                    "it rewrites text when decoding (denormalizer_spec): pieces do not tell its bytes"
                )
        return ModelFile(
            _pieces(message),
            _flag(trainer, BYTE_FALLBACK, default=False),
            _flag(settings.get(NORMALIZER, b""), ESCAPE_WHITESPACES, default=True),
        )
    except _Broken as error:
        raise ValueError(str(error)) from None


def read_model(path: Path) -> ModelFile:
    """Read a .model file of at most 16 MiB. Raises UsageError for a damaged or hostile one."""
    try:
        return parse_model(read_bounded(path, MAX_MODEL_BYTES))
    except ValueError as error:
        raise UsageError(
            f"{path}: not a SentencePiece model that can be used: {error}",
            hint="expected a .model file as SentencePiece's trainer writes it",
        ) from None
