"""The training loaders: which tokens each rank reads, for shards of any size, and damaged shards."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from golf.training.loader import (
    LOADERS,
    LOGICAL_RANKS,
    ShardError,
    Shards,
    Shuffled,
    Stream,
    TokenStream,
    logical_ranks,
    map_shard,
)
from tests.golf.fakes.judge import write_shard


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def shards_of(lengths: list[int]) -> Shards:
    """The tokens 0, 1, 2, ... cut into shards."""
    parts = np.split(np.arange(sum(lengths), dtype=np.uint16), np.cumsum(lengths)[:-1])
    return [(f"s{i}", part) for i, part in enumerate(parts)]


def stream_of(lengths: list[int], vocab_size: int = 1000) -> tuple[TokenStream, np.ndarray]:
    return TokenStream(shards_of(lengths), vocab_size), np.arange(sum(lengths), dtype=np.uint16)


@pytest.mark.parametrize("lengths", [[300], [1] * 300, [7, 250, 43], [299, 1]])
def test_shards_of_any_size_make_one_stream_that_wraps(lengths):
    stream, tokens = stream_of(lengths)
    expected = np.tile(tokens, 5)
    for start, n in ((0, 300), (5, 17), (290, 20), (299, 1), (300, 3), (10, 900)):
        assert np.array_equal(stream.read(start, n), expected[start : start + n])


def test_a_batch_takes_eight_consecutive_spans_and_targets_are_inputs_shifted():
    loader = Stream(shards_of([900]), 1000, range(8), seq_len=4)
    first = loader.batch(64)
    assert first.ids_BT[:2].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert first.targets_BT[:2].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert first.ids_BT[2, 0] == 9  # the span of logical rank 1 begins after the 8 + 1 tokens of rank 0
    assert loader.batch(32).ids_BT[0, 0] == 8 * 9
    assert loader.batch(32).ids_BT[0, 0] == 8 * 9 + 8 * 5


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", LOADERS)
def test_any_number_of_processes_reads_the_same_rows(kind, world):
    shards = shards_of([900, 400])
    whole, *parts = [
        LOADERS[kind](shards, 2000, ranks, 4)
        for ranks in (range(LOGICAL_RANKS), *(logical_ranks(rank, world) for rank in range(world)))
    ]
    for batch_tokens in (64, 32, 64):
        expected, found = whole.batch(batch_tokens), [part.batch(batch_tokens) for part in parts]
        assert [row for part in found for row in part.ids_BT.tolist()] == expected.ids_BT.tolist()
        assert [row for part in found for row in part.targets_BT.tolist()] == expected.targets_BT.tolist()


def rows_of(loader: Shuffled, n: int) -> list[tuple[int, ...]]:
    """The next n rows of a loader for one logical rank, inputs and the last target."""
    ids_BT, targets_BT = loader.batch(n * LOGICAL_RANKS * loader.seq_len)
    assert torch.equal(ids_BT[:, 1:], targets_BT[:, :-1])
    return [(*ids, targets[-1]) for ids, targets in zip(ids_BT.tolist(), targets_BT.tolist(), strict=True)]


@pytest.mark.parametrize("lengths", [[803], [400, 403], [90, 100, 110, 120, 80, 70, 95, 85, 33, 34]])
def test_shuffled_rows_cover_a_ranks_part_once_in_each_pass(lengths):
    seq_len, shards = 4, shards_of(lengths)
    for rank in (0, 3, 7):
        parts = shards[rank::8] if len(shards) >= 8 else [(n, np.array_split(t, 8)[rank]) for n, t in shards]
        loader = Shuffled(shards, 2000, range(rank, rank + 1), seq_len)
        passes = []
        for _ in range(3):
            rows_of(loader, 1)  # the first row of a pass says how many it has
            n = len(loader.orders[0].order)
            rows = rows_of(loader, n - 1)
            starts = [row[0] for row in rows]
            assert len(set(starts)) == n - 1
            assert all(any(row[0] >= part[0] and row[-1] <= part[-1] for _, part in parts) for row in rows)
            assert all(list(row) == list(range(row[0], row[0] + seq_len + 1)) for row in rows)
            most = sum((len(part) - 1) // seq_len for _, part in parts)
            assert most - len(parts) <= n <= most
            passes.append(starts)
        assert sorted(passes[0]) != passes[0]
        assert passes[0] != passes[1] != passes[2]


def test_rows_come_from_a_shard_in_proportion_to_its_remaining_rows():
    shards = [(f"s{i}", np.full(n, i, dtype=np.uint16)) for i, n in enumerate([8001] + [1] * 7 + [2001])]
    seen = [row[0] for row in rows_of(Shuffled(shards, 9, range(1), 4), 500)]
    assert 0.13 < seen.count(8) / 500 < 0.27  # 500 of 2,500 rows: 0.2, sd 0.016


def test_a_part_shorter_than_a_row_is_an_error_that_says_so():
    with pytest.raises(ShardError, match="logical rank 0: its part of each shard is shorter than a row"):
        Shuffled(shards_of([128]), 1000, range(8), 16)
    assert len(Shuffled(shards_of([8 * 17]), 1000, range(8), 16).batch(8 * 16).ids_BT) == 8


def test_a_shard_is_mapped_and_keeps_its_tokens(tmp_path):
    path = write_shard(tmp_path / "a.bin", np.arange(50))
    descriptor = opened(path)
    tokens = map_shard(descriptor, "a", 50)
    os.close(descriptor)
    assert tokens.tolist() == list(range(50))
    assert not tokens.flags.writeable


def damage(data: bytes, how: str) -> bytes:
    number = {"magic": 0, "version": 1, "count": 2, "tail": 200}.get(how)
    if number is not None:
        return data[: 4 * number] + (77).to_bytes(4, "little") + data[4 * number + 4 :]
    return {"cut": data[:-1], "longer": data + b"\0\0", "header only": data[:1000], "empty": b""}[how]


@pytest.mark.parametrize(
    "how", ["magic", "version", "count", "tail", "cut", "longer", "header only", "empty"]
)
def test_a_shard_that_contradicts_its_header_is_refused(tmp_path, how):
    path = write_shard(tmp_path / "a.bin", np.arange(50))
    path.write_bytes(damage(path.read_bytes(), how))
    descriptor = opened(path)
    with pytest.raises(ShardError, match="shard a"):
        map_shard(descriptor, "a", 50)
    os.close(descriptor)


def test_an_id_beyond_the_vocabulary_is_refused_when_it_is_read():
    stream, _ = stream_of([300], vocab_size=200)
    assert stream.read(0, 200).max() == 199
    with pytest.raises(ShardError, match="id 200 is beyond the vocabulary of 200"):
        stream.read(150, 51)


@pytest.mark.parametrize("kind", LOADERS)
def test_no_shards_are_an_error_and_so_are_ids_beyond_the_vocabulary(kind):
    with pytest.raises(ShardError, match="no training shards"):
        LOADERS[kind]([], 10, range(8), 4)
    with pytest.raises(ShardError, match="beyond the vocabulary of 10"):
        LOADERS[kind](shards_of([900]), 10, range(8), 4).batch(512)
