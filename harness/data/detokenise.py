"""The text behind a token stream, as bytes, one document at a time.

Written straight from the pieces, so a document cut inside a character keeps the bytes that are there, and the
number of bytes is exactly what the byte table counts. Not covered: marks of the normaliser's losses; see
harness/data/byte_table.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from harness.data.byte_table import has_leading_space, is_boundary
from harness.data.sentencepiece_file import BYTE_PIECE, SPACE, Kind, ModelFile, Piece
from harness.data.shards import BOS_ID, Tokens


def piece_bytes(piece: Piece) -> bytes:
    """What a piece writes into the text, its leading space included."""
    if is_boundary(piece):
        return b""
    if piece.kind is Kind.BYTE:
        match = BYTE_PIECE.fullmatch(piece.text)
        assert match is not None, piece
        return bytes.fromhex(match[1])
    return piece.text.replace(SPACE, " ").encode("utf-8")


def document_texts(model: ModelFile, tokens_T: Tokens) -> Iterator[bytes]:
    """Each document's text: from one BOS up to the next, or from the stream's beginning. tokens_T: uint16."""
    texts = [piece_bytes(piece) for piece in model.pieces]
    boundary = [is_boundary(piece) for piece in model.pieces]
    leading = [has_leading_space(piece) for piece in model.pieces]
    starts = np.flatnonzero(tokens_T == BOS_ID).tolist()
    borders = [*([] if starts[:1] == [0] else [0]), *starts, len(tokens_T)]
    for start, end in pairwise(borders):
        parts: list[bytes] = []
        free_space = True
        for token in tokens_T[start:end].tolist():
            parts.append(texts[token][1:] if free_space and leading[token] else texts[token])
            free_space = boundary[token]
        yield b"".join(parts)
