"""Decode a token stream to bytes, one document at a time.

The bytes are joined from the pieces, so a document cut inside a character keeps the bytes that are there,
and the number of bytes is what the byte table counts. What the tokenizer's normaliser changed is not
restored: see byte_table.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from harness.data.byte_table import absorbs_space, has_leading_space
from harness.data.sentencepiece_file import BYTE_PIECE, SPACE, Kind, ModelFile, Piece
from harness.data.shards import BOS_ID, Tokens


def piece_bytes(piece: Piece) -> bytes:
    """The bytes of a piece, its leading space included."""
    if absorbs_space(piece):
        return b""
    if piece.kind is Kind.BYTE:
        match = BYTE_PIECE.fullmatch(piece.text)
        assert match is not None, piece
        return bytes.fromhex(match[1])
    return piece.text.replace(SPACE, " ").encode("utf-8")


def document_texts(model: ModelFile, tokens_T: Tokens) -> Iterator[bytes]:
    """Each document's text. Documents begin at the first token and at every BOS. tokens_T: uint16."""
    texts = [piece_bytes(piece) for piece in model.pieces]
    absorbing = [absorbs_space(piece) for piece in model.pieces]
    leading = [has_leading_space(piece) for piece in model.pieces]
    starts = np.flatnonzero(tokens_T == BOS_ID).tolist()
    edges = [*([] if starts[:1] == [0] else [0]), *starts, len(tokens_T)]
    for start, end in pairwise(edges):
        parts: list[bytes] = []
        absorbed = True
        for token in tokens_T[start:end].tolist():
            parts.append(texts[token][1:] if absorbed and leading[token] else texts[token])
            absorbed = absorbing[token]
        yield b"".join(parts)
