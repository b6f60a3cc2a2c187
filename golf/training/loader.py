"""Training tokens from the judge's file descriptors, and the two loaders that decide which tokens come next.

A shard is 256 little-endian int32 (20240520, 1, number of tokens, zeros), then uint16 tokens. A batch has
rows for 8 logical ranks, whatever the number of processes. The rows of a logical rank depend only on its
number and on how much was read before, so any number of processes reads the same batches.

`stream` is the loader of the challenge's starting script (loader A): all shards in order form one stream
that wraps around. A batch takes 8 consecutive spans of n + 1 tokens, one per logical rank, where n is the
number of targets of a logical rank. A span without its last token gives the inputs, without its first the
targets; both are cut into rows.

`shuffled` (loader B, source: #1493) is described in `Shuffled`. Rows cross document boundaries.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
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
    """A shard that contradicts its header, its announced length or the vocabulary."""


def map_shard(descriptor: int, name: str, n_tokens: int) -> np.ndarray:
    """Descriptor of a shard -> its tokens as a read-only, memory-mapped uint16 array; raises ShardError."""
    n_bytes = os.fstat(descriptor).st_size
    header = np.frombuffer(os.pread(descriptor, HEADER_BYTES, 0), dtype=np.uint8)
    if len(header) < HEADER_BYTES:
        raise ShardError(f"shard {name}: {n_bytes} bytes are fewer than its header of {HEADER_BYTES}")
    numbers = header.view(HEADER)
    if list(numbers[:2]) != [MAGIC, VERSION] or numbers[3:].any():
        found = list(map(int, numbers[:4]))
        raise ShardError(f"shard {name}: header begins {found}, expected [{MAGIC}, {VERSION}, n, 0]")
    if int(numbers[2]) != n_tokens or n_tokens < 1:
        raise ShardError(
            f"shard {name}: header says {int(numbers[2])} tokens, the judge announced {n_tokens}"
        )
    if n_bytes != HEADER_BYTES + 2 * n_tokens:
        raise ShardError(
            f"shard {name}: {n_bytes} bytes, expected {HEADER_BYTES + 2 * n_tokens} for {n_tokens} tokens"
        )
    mapped = mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype="<u2", offset=HEADER_BYTES)


Shards = Sequence[tuple[str, np.ndarray]]


def checked(name: str, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Tokens of a shard as int64; ShardError if an id is beyond the vocabulary."""
    if tokens.max() >= vocab_size:
        raise ShardError(f"shard {name}: id {int(tokens.max())} is beyond the vocabulary of {vocab_size}")
    return tokens.astype(np.int64)


class TokenStream:
    """Shards joined end to end, wrapping around; ids are checked when they are read."""

    def __init__(self, shards: Shards, vocab_size: int) -> None:
        if not shards:
            raise ShardError("no training shards")
        self.shards, self.vocab_size = list(shards), vocab_size
        self.ends = np.cumsum([len(tokens) for _, tokens in shards])

    def read(self, start: int, n: int) -> np.ndarray:
        """n tokens from position `start` of the stream, as int64."""
        out_T = np.empty(n, dtype=np.int64)
        done = 0
        while done < n:
            position = (start + done) % int(self.ends[-1])
            index = int(np.searchsorted(self.ends, position, side="right"))
            name, tokens = self.shards[index]
            offset = position - (int(self.ends[index]) - len(tokens))
            part = checked(name, tokens[offset : offset + n - done], self.vocab_size)
            out_T[done : done + len(part)] = part
            done += len(part)
        return out_T


class Batch(NamedTuple):
    """Inputs and targets, int64."""

    ids_BT: Tensor
    targets_BT: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device. Only from pinned memory is it copied without waiting for a GPU's queue."""
        pinned = [tensor.pin_memory() if device.type == "cuda" else tensor for tensor in self]
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in pinned))


def logical_ranks(rank: int, world: int) -> range:
    """The logical ranks of process `rank` of `world`: an equal, contiguous share of the 8."""
    share = LOGICAL_RANKS // world
    return range(rank * share, (rank + 1) * share)


class Stream:
    """Loader A (see the module's docstring), for some logical ranks."""

    def __init__(self, shards: Shards, vocab_size: int, ranks: range, seq_len: int) -> None:
        self.tokens, self.ranks, self.seq_len = TokenStream(shards, vocab_size), ranks, seq_len
        self.position = 0

    def batch(self, batch_tokens: int) -> Batch:
        """The next batch, `batch_tokens` over all 8 ranks: B = len(ranks) * batch_tokens / 8 / seq_len."""
        n = batch_tokens // LOGICAL_RANKS
        spans = np.stack([self.tokens.read(self.position + rank * (n + 1), n + 1) for rank in self.ranks])
        self.position += batch_tokens + LOGICAL_RANKS
        ids, targets = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in (spans[:, :-1], spans[:, 1:])
        )
        return Batch(ids.view(-1, self.seq_len), targets.view(-1, self.seq_len))


def shards_of(shards: Shards, rank: int) -> Shards:
    """The shards of a logical rank: every eighth shard, or of fewer than 8 shards, an eighth of each."""
    if len(shards) >= LOGICAL_RANKS:
        return shards[rank::LOGICAL_RANKS]
    return [(name, np.array_split(tokens, LOGICAL_RANKS)[rank]) for name, tokens in shards]


class RowOrder:
    """The rows of one logical rank as (shard, first token), in random order, each once per pass.

    A pass cuts each shard, from a random offset below n = seq_len, into rows of n + 1 tokens; neighbouring
    rows share one token. #1493 draws a shard in proportion to its remaining rows, and then one of these;
    that equals a random permutation of all rows, which is what this draws. The generator is PCG64(rank): the
    run's seed has no influence. Memory: 8 bytes a row.
    """

    def __init__(self, lengths: Sequence[int], rank: int, seq_len: int) -> None:
        self.lengths, self.seq_len = np.asarray(lengths), seq_len
        self.random = np.random.Generator(np.random.PCG64(rank))
        if self.lengths.max(initial=0) <= seq_len:
            raise ShardError(
                f"logical rank {rank}: its part of each shard is shorter than a row of {seq_len} + 1 tokens"
            )
        self.order = np.empty(0, dtype=np.int64)
        self.next = 0

    def _begin_pass(self) -> None:
        room = np.clip(self.lengths - self.seq_len, 0, self.seq_len)
        self.offsets = self.random.integers(0, np.maximum(room, 1))
        self.ends = np.cumsum(np.maximum(self.lengths - 1 - self.offsets, 0) // self.seq_len)
        self.order, self.next = self.random.permutation(int(self.ends[-1])), 0

    def take(self, n: int) -> list[tuple[int, int]]:
        """The next n rows."""
        rows: list[tuple[int, int]] = []
        while len(rows) < n:
            if self.next == len(self.order):
                self._begin_pass()
            numbers = self.order[self.next : self.next + n - len(rows)]
            self.next += len(numbers)
            shards = np.searchsorted(self.ends, numbers, side="right")
            before = np.concatenate([[0], self.ends])[shards]
            starts = self.offsets[shards] + (numbers - before) * self.seq_len
            rows += zip(shards.tolist(), starts.tolist(), strict=True)
        return rows


class Shuffled:
    """Loader B: each logical rank reads rows of its own shards (`shards_of`) in its own `RowOrder`."""

    def __init__(self, shards: Shards, vocab_size: int, ranks: range, seq_len: int) -> None:
        if not shards:
            raise ShardError("no training shards")
        self.vocab_size, self.ranks, self.seq_len = vocab_size, ranks, seq_len
        self.own_shards = [shards_of(shards, rank) for rank in ranks]
        self.orders = [
            RowOrder([len(tokens) for _, tokens in own], rank, seq_len)
            for rank, own in zip(ranks, self.own_shards, strict=True)
        ]

    def batch(self, batch_tokens: int) -> Batch:
        """The next batch, `batch_tokens` over all 8 ranks: B = len(ranks) * batch_tokens / 8 / seq_len."""
        rows = []
        for own, order in zip(self.own_shards, self.orders, strict=True):
            for shard, start in order.take(batch_tokens // LOGICAL_RANKS // self.seq_len):
                name, tokens = own[shard]
                rows.append(checked(name, tokens[start : start + self.seq_len + 1], self.vocab_size))
        rows_BT = torch.from_numpy(np.stack(rows))
        return Batch(rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous())


Loader = Stream | Shuffled
LOADERS: dict[str, Callable[[Shards, int, range, int], Loader]] = {"stream": Stream, "shuffled": Shuffled}


def synthetic(step: int, ranks: range, batch_tokens: int, seq_len: int, vocab_size: int) -> Batch:
    """Random tokens in the shape of a loader's batch, for the warm-up, before any training data arrive."""
    random = torch.Generator().manual_seed(step)
    shape = (len(ranks) * batch_tokens // LOGICAL_RANKS // seq_len, seq_len)
    ids, targets = (torch.randint(vocab_size, shape, generator=random) for _ in range(2))
    return Batch(ids, targets)
