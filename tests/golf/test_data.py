"""The training stream: what a step reads, in shards of any size, and files that are not what they say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from golf.data import LOGICAL_RANKS, ShardError, TokenStream, batch, logical_ranks, map_shard
from tests.golf.judge_stub import write_shard


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def stream_of(lengths: list[int], vocab_size: int = 1000) -> tuple[TokenStream, np.ndarray]:
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    parts = np.split(tokens, np.cumsum(lengths)[:-1])
    return TokenStream([(f"s{i}", part) for i, part in enumerate(parts)], vocab_size), tokens


@pytest.mark.parametrize("lengths", [[300], [1] * 300, [7, 250, 43], [299, 1]])
def test_shards_of_any_size_make_one_stream_that_wraps(lengths):
    stream, tokens = stream_of(lengths)
    expected = np.tile(tokens, 5)
    for start, n in ((0, 300), (5, 17), (290, 20), (299, 1), (300, 3), (10, 900)):
        assert np.array_equal(stream.read(start, n), expected[start : start + n])


def test_a_step_takes_eight_spans_one_after_another_and_targets_are_inputs_shifted():
    stream, _ = stream_of([900])
    first = batch(stream, 0, range(8), batch_tokens=64, seq_len=4)
    assert first.ids_BT[:2].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert first.targets_BT[:2].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert first.ids_BT[2, 0] == 9  # the span of logical rank 1 begins after the 8 + 1 tokens of rank 0
    assert batch(stream, 1, range(8), 64, 4).ids_BT[0, 0] == 8 * 9


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_any_number_of_processes_reads_the_same_rows(world):
    stream, _ = stream_of([900])
    whole = batch(stream, 3, range(LOGICAL_RANKS), 64, 4)
    parts = [batch(stream, 3, logical_ranks(rank, world), 64, 4) for rank in range(world)]
    assert [row for part in parts for row in part.ids_BT.tolist()] == whole.ids_BT.tolist()


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


@pytest.mark.parametrize("how", ["magic", "version", "count", "tail", "cut", "longer", "header only", "empty"])
def test_a_shard_that_is_not_what_it_says_is_refused(tmp_path, how):
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


def test_no_shards_are_an_error():
    with pytest.raises(ShardError, match="no training shards"):
        TokenStream([], 10)
