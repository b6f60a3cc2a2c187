"""Bits per byte: the one place where nats become the score.

bpb = (sum of nats / ln 2) / (sum of bytes), summed in float64 over every token except the first
(docs/rules.md, Bits per byte). The judge counts the bytes from the tokenizer (harness/data/byte_table.py);
the contestant's count is never used. A document runs from its BOS up to the next one; the nats of a BOS
belong to the document that it opens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.base.errors import UsageError
from harness.data.byte_table import ByteTable
from harness.data.shards import BOS_ID


class Metric(NamedTuple):
    """A score and its parts, by document: starts_D (positions), bits_D, bytes_D."""

    bpb: float
    nats_per_token: float
    scored_tokens: int
    scored_bytes: int
    starts_D: npt.NDArray[np.int64]
    bits_D: npt.NDArray[np.float64]
    bytes_D: npt.NDArray[np.int64]


def document_starts(tokens_T: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Positions where documents begin: the first token and every BOS. tokens_T: uint16."""
    starts = np.flatnonzero(tokens_T == BOS_ID).astype(np.int64)
    return starts if len(starts) and starts[0] == 0 else np.concatenate([np.zeros(1, np.int64), starts])


def measure(tokens_T: npt.NDArray[np.uint16], nats_T: npt.NDArray[np.float32], table: ByteTable) -> Metric:
    """The score of nats_T on tokens_T, of one length above 1. The first token is neither scored nor counted.

    Raises UsageError for a text of no bytes.
    """
    assert len(tokens_T) == len(nats_T) > 1, f"{len(tokens_T)} tokens, {len(nats_T)} numbers"
    bits_T = nats_T.astype(np.float64) / math.log(2)
    bytes_T = table.count(tokens_T, None)
    bits_T[0], bytes_T[0] = 0.0, 0
    starts_D = document_starts(tokens_T)
    bits_D, bytes_D = np.add.reduceat(bits_T, starts_D), np.add.reduceat(bytes_T, starts_D)
    n_bytes = int(bytes_T.sum())
    if n_bytes == 0:
        raise UsageError(
            "the validation text has no bytes to score", hint="it holds nothing but document starts (BOS)"
        )
    bits = math.fsum(bits_D)  # by document: exact, and fsum over 62 million tokens would take seconds
    return Metric(
        bits / n_bytes,
        bits * math.log(2) / (len(tokens_T) - 1),
        len(tokens_T) - 1,
        n_bytes,
        starts_D,
        bits_D,
        bytes_D,
    )
