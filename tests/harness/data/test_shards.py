"""Token shards: what is written is read back, and every kind of damage is an error with a place."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from harness.base.errors import MachineFault, UsageError
from harness.data import shards
from harness.data.shards import HEADER_BYTES, read_tokens, write_tokens


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.uint16)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    write_tokens(tmp_path / "shard.bin", ids(1, 5, 9, 1, 299))
    return tmp_path / "shard.bin"


def patch(path: Path, offset: int, content: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.integers(0, 65_535), max_size=200))
def test_tokens_survive_the_file(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.bin"
    write_tokens(path, ids(*tokens))
    assert read_tokens(path, 65_536).tolist() == tokens
    assert path.stat().st_size == HEADER_BYTES + 2 * len(tokens)


def test_the_bytes_are_those_of_the_challenge(shard: Path) -> None:
    raw = shard.read_bytes()
    assert np.frombuffer(raw[:12], "<i4").tolist() == [20240520, 1, 5]
    assert raw[12:HEADER_BYTES] == bytes(HEADER_BYTES - 12)
    assert raw[HEADER_BYTES:] == bytes([1, 0, 5, 0, 9, 0, 1, 0, 43, 1])


def test_a_mapped_shard_cannot_be_written_to(shard: Path) -> None:
    tokens_T = read_tokens(shard, 300)
    with pytest.raises(ValueError, match="read-only"):
        tokens_T[0] = 2


def test_an_official_shard_reads_whole(shared: Path) -> None:
    tokens_T = read_tokens(shared / "fineweb" / "fineweb_val_prefix_sp1024.bin", 1024)
    assert (len(tokens_T), shards.count_documents(tokens_T)) == (1_040_298, 902)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            r"at byte 1,033: end of file: expected 1,034 bytes for 5 tokens",
        ),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"at byte 1,034: .*found 1,035 bytes"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:1000]),
            r"at byte 1,000: .*expected a header of 1,024 bytes",
        ),
        (lambda path: path.write_bytes(b""), r"found 0 bytes"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), r"is gzip: unpack it first"),
        (lambda path: patch(path, 0, b"\0"), r"at byte 0: shard magic: expected 20240520, found"),
        (lambda path: patch(path, 4, b"\2"), r"at byte 4: shard version: expected 1, found 2"),
        (
            lambda path: patch(path, 8, b"\xff\xff\xff\x7f"),
            r"at byte 8: number of tokens: .*found 2,147,483,647",
        ),
        (lambda path: patch(path, 8, b"\xff\xff\xff\xff"), r"at byte 8: number of tokens: .*found -1"),
        (
            lambda path: patch(path, 8, b"\x00\x00\x00\x10"),
            r"expected 536,871,936 bytes for 268,435,456 tokens",
        ),
        (lambda path: patch(path, 400, b"\7"), r"at byte 400: rest of the header: expected zeros, found 7"),
        (
            lambda path: patch(path, HEADER_BYTES + 4, b"\x2c\x01"),
            r"at byte 1,028: token 2: expected an id below 300, found 300",
        ),
    ],
)
def test_damage_is_an_error_with_file_offset_expected_and_found(shard: Path, damage, says: str) -> None:
    damage(shard)
    with pytest.raises(UsageError, match=says) as caught:
        read_tokens(shard, 300)
    assert str(shard) in caught.value.message
    assert caught.value.hint


def test_a_bad_id_is_found_in_a_later_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "CHECK_TOKENS", 4)
    write_tokens(tmp_path / "a.bin", ids(*range(9), 700, 3))
    with pytest.raises(UsageError, match="token 9: expected an id below 300, found 700"):
        read_tokens(tmp_path / "a.bin", 300)


@pytest.mark.parametrize("kind", ["link", "folder", "nothing"])
def test_only_a_regular_file_is_read(shard: Path, kind: str) -> None:
    path = shard.with_name("other.bin")
    if kind == "link":
        path.symlink_to(shard)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UsageError, match=r"regular file|cannot be opened"):
        read_tokens(path, 300)


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(shard: Path) -> None:
    before = shard.read_bytes()
    with pytest.raises(ValueError, match="uint16"):
        write_tokens(shard, np.array([1, 2]))
    with pytest.raises(MachineFault, match="cannot be written"):
        write_tokens(shard / "a.bin", ids(1))  # its folder is a file
    assert shard.read_bytes() == before
    assert [path.name for path in shard.parent.iterdir()] == ["shard.bin"]
