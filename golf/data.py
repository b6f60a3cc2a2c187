"""Training tokens from the judge's descriptors: one endless stream, and which span of it a logical rank reads.

A shard is 256 little-endian int32 (20240520, 1, number of tokens, zeros) and then uint16 tokens. All shards in order
make one stream that wraps around. A step takes 8 spans of n + 1 tokens one after another, one for each logical rank, n
being the targets of a logical rank; inputs are a span without its last token, targets without its first, cut into rows.
So the data of a step depend on its number and the logical rank alone, and any number of processes reads the same.

Source: the challenge's starting script (loader A). Not covered: shuffling, and document borders.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LOGICAL_RANKS = 8
HEADER = np.dtype("<i4")
HEADER_NUMBERS = 256
HEADER_BYTES = HEADER_NUMBERS * HEADER.itemsize
MAGIC, VERSION = 20_240_520, 1


class ShardError(ValueError):
    """A shard that is not what its header, its announced length or the vocabulary says."""


def map_shard(descriptor: int, name: str, n_tokens: int) -> np.ndarray:
    """Descriptor of a shard -> read-only uint16 array of its tokens, mapped; raises ShardError."""
    n_bytes = os.fstat(descriptor).st_size
    header = np.frombuffer(os.pread(descriptor, HEADER_BYTES, 0), dtype=np.uint8)
    if len(header) < HEADER_BYTES:
        raise ShardError(f"shard {name}: {n_bytes} bytes are fewer than its header of {HEADER_BYTES}")
    numbers = header.view(HEADER)
    if list(numbers[:2]) != [MAGIC, VERSION] or numbers[3:].any():
        found = list(map(int, numbers[:4]))
        raise ShardError(f"shard {name}: header begins {found}, expected [{MAGIC}, {VERSION}, n, 0]")
    if int(numbers[2]) != n_tokens or n_tokens < 1:
        raise ShardError(f"shard {name}: header says {int(numbers[2])} tokens, the judge announced {n_tokens}")
    if n_bytes != HEADER_BYTES + 2 * n_tokens:
        raise ShardError(f"shard {name}: {n_bytes} bytes, expected {HEADER_BYTES + 2 * n_tokens} for {n_tokens} tokens")
    mapped = mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype="<u2", offset=HEADER_BYTES)


class TokenStream:
    """Shards joined end to end, and around; ids are checked against the vocabulary as they are read."""

    def __init__(self, shards: Sequence[tuple[str, np.ndarray]], vocab_size: int) -> None:
        if not shards:
            raise ShardError("no training shards")
        self.shards, self.vocab_size = list(shards), vocab_size
        self.ends = np.cumsum([len(tokens) for _, tokens in shards])

    def read(self, start: int, n: int) -> np.ndarray:
        """n tokens from position `start` of the endless stream, as int64."""
        out_T = np.empty(n, dtype=np.int64)
        done = 0
        while done < n:
            position = (start + done) % int(self.ends[-1])
            index = int(np.searchsorted(self.ends, position, side="right"))
            name, tokens = self.shards[index]
            offset = position - (int(self.ends[index]) - len(tokens))
            part = tokens[offset : offset + n - done]
            if part.max() >= self.vocab_size:
                raise ShardError(f"shard {name}: id {int(part.max())} is beyond the vocabulary of {self.vocab_size}")
            out_T[done : done + len(part)] = part
            done += len(part)
        return out_T


class Batch(NamedTuple):
    """Inputs and targets, ids_BT and targets_BT, int64."""

    ids_BT: Tensor
    targets_BT: Tensor


def logical_ranks(rank: int, world: int) -> range:
    """The logical ranks that process `rank` of `world` stands for: an equal, contiguous share of the 8."""
    share = LOGICAL_RANKS // world
    return range(rank * share, (rank + 1) * share)


def batch(stream: TokenStream, step: int, ranks: range, batch_tokens: int, seq_len: int) -> Batch:
    """The rows of some logical ranks in one step, B = len(ranks) * batch_tokens / 8 / seq_len."""
    n = batch_tokens // LOGICAL_RANKS
    spans = np.stack([stream.read((step * LOGICAL_RANKS + rank) * (n + 1), n + 1) for rank in ranks])
    ids, targets = (torch.from_numpy(np.ascontiguousarray(part)) for part in (spans[:, :-1], spans[:, 1:]))
    return Batch(ids.view(-1, seq_len), targets.view(-1, seq_len))


def made_up(step: int, ranks: range, batch_tokens: int, seq_len: int, vocab_size: int) -> Batch:
    """Random tokens in the shape of `batch`, for warming up before any training byte exists."""
    random = torch.Generator().manual_seed(step)
    shape = (len(ranks) * batch_tokens // LOGICAL_RANKS // seq_len, seq_len)
    ids, targets = (torch.randint(vocab_size, shape, generator=random) for _ in range(2))
    return Batch(ids, targets)
