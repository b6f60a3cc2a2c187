"""The ledger: a hash chain over the revealed tokens and the reported nats, chunk by chunk.

A chunk's numbers are appended when they arrive and cannot change afterwards. Two scoring passes agree bit for
bit exactly when the last links of their ledgers are equal.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import numpy.typing as npt


class Ledger:
    """Collects the committed nats of a token stream."""

    def __init__(self) -> None:
        self._link = hashlib.sha256(b"pgolf ledger 1").digest()
        self._parts: list[npt.NDArray[np.float32]] = []
        self.chunks = 0

    def commit(self, tokens_T: npt.NDArray[np.uint16], nats_T: npt.NDArray[np.float32]) -> None:
        """Append one chunk: its tokens, and minus the natural log of the probability of each."""
        assert tokens_T.shape == nats_T.shape, f"{tokens_T.shape} tokens, {nats_T.shape} numbers"
        header = struct.pack("<QQ", self.chunks, len(tokens_T))
        committed_T = nats_T.astype("<f4")  # a copy, so the caller cannot change it
        body = tokens_T.astype("<u2").tobytes() + committed_T.tobytes()
        self._link = hashlib.sha256(self._link + header + body).digest()
        self._parts.append(committed_T)
        self.chunks += 1

    @property
    def sha256(self) -> str:
        """The last link, in hexadecimal."""
        return self._link.hex()

    def nats(self) -> npt.NDArray[np.float32]:
        """All committed numbers, nats_T."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)


def replay(tokens_T: npt.NDArray[np.uint16], nats_T: npt.NDArray[np.float32], chunk_tokens: int) -> str:
    """The last link after committing `nats_T` in chunks of `chunk_tokens`; used to check a stored ledger."""
    ledger = Ledger()
    for start in range(0, len(tokens_T), chunk_tokens):
        part = slice(start, start + chunk_tokens)
        ledger.commit(tokens_T[part], nats_T[part])
    return ledger.sha256
