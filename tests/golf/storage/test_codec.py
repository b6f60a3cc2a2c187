"""Compression is lossless, and decompression never returns more than its limit."""

from __future__ import annotations

import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from golf.storage import codec

HIGHEST = {"zstd": 22, "brotli": 11, "lzma": 9, "zlib": 9}
every_codec = pytest.mark.parametrize("name", sorted(codec.CODECS))


def _compressed(name: str, data: bytes) -> bytes:
    return codec.CODECS[name][0](data, 3)


@every_codec
@settings(deadline=None, max_examples=40)
@given(data=st.binary(min_size=1, max_size=2000))
def test_every_codec_is_lossless_and_deterministic(name, data):
    compressed = _compressed(name, data)
    assert codec.CODECS[name][1](compressed, len(data)) == data
    assert _compressed(name, data) == compressed


@every_codec
def test_the_decompressor_reads_every_level(name):
    data = bytes(range(256)) * 20
    compress, decompress = codec.CODECS[name]
    for level in range(1, HIGHEST[name] + 1):
        assert decompress(compress(data, level), len(data)) == data


@every_codec
def test_content_of_several_pieces_with_distant_matches_is_restored(name):
    noise = zstandard.ZstdCompressor().compress(bytes(range(256))) * 40_000  # more than one piece
    data = noise[: codec.PIECE_BYTES] * 2 + b"end"
    assert codec.CODECS[name][1](memoryview(_compressed(name, data)), len(data)) == data


@every_codec
@settings(deadline=None, max_examples=100)
@given(garbage=st.binary(max_size=200))
def test_garbage_is_an_error_or_a_stream_within_the_limit(name, garbage):
    try:
        assert 1 <= len(codec.CODECS[name][1](garbage, 100)) <= 100
    except ValueError:
        pass


@every_codec
@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 400), tail=st.binary(min_size=1, max_size=20))
def test_a_cut_stream_and_bytes_after_the_stream_are_errors(name, cut, tail):
    compressed, (_, decompress) = _compressed(name, bytes(range(256)) * 4), codec.CODECS[name]
    for wrong in (compressed[: min(cut, len(compressed) - 1)], compressed + tail, compressed + compressed):
        with pytest.raises(ValueError):
            decompress(wrong, 1 << 20)


@every_codec
def test_content_may_have_from_one_byte_to_the_limit(name):
    decompress = codec.CODECS[name][1]
    for length in (1, 1000, codec.PIECE_BYTES, codec.PIECE_BYTES + 1):
        compressed = _compressed(name, bytes(length))
        assert decompress(compressed, length) == bytes(length)
        with pytest.raises(ValueError):
            decompress(compressed, length - 1)
    with pytest.raises(ValueError):
        decompress(_compressed(name, b""), 1000)


@every_codec
@pytest.mark.parametrize("limit", [1000, 1 << 20])
def test_a_decompression_bomb_is_an_error_and_allocates_little(name, limit):
    bomb = _compressed(name, bytes(64 << 20))
    decompress = codec.CODECS[name][1]
    tracemalloc.start()
    with pytest.raises(ValueError):
        decompress(bomb, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def _lying_bomb(declared: int, content: int) -> bytes:
    """A frame that expands to `content` zeros but declares `declared` bytes (8 bytes of its header)."""
    valid = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(content))
    parameters = zstandard.get_frame_parameters(valid)
    assert parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN
    start = zstandard.frame_header_size(valid)
    descriptor = (3 << 6) | (1 << 5)  # 8 bytes of content size, one segment
    return valid[:4] + bytes([descriptor]) + declared.to_bytes(8, "little") + valid[start:]


@pytest.mark.parametrize(
    ("declared", "limit"), [(1 << 40, 1 << 20), (1 << 62, 1 << 20), (1000, 1000), (0, 1000)]
)
def test_a_zstd_frame_that_declares_a_wrong_size_is_an_error_and_allocates_little(declared, limit):
    bomb = _lying_bomb(declared, 64 << 20)
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(ValueError):
        codec.decompress_zstd(bomb, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_zstd_frame_that_does_not_declare_its_size_is_refused():
    frame = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(1000))
    with pytest.raises(ValueError, match="does not declare"):
        codec.decompress_zstd(frame, 1 << 20)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=100), stride=st.integers(1, 120))
def test_the_byte_shuffle_follows_its_definition_and_is_reversible(data, stride):
    shuffled = codec.shuffle(data, stride)
    assert shuffled == b"".join(data[first::stride] for first in range(stride))
    assert codec.unshuffle(shuffled, stride) == data


def test_stride_1_changes_nothing_and_stride_0_is_an_error():
    assert codec.shuffle(b"abcdefg", 1) == codec.unshuffle(b"abcdefg", 1) == b"abcdefg"
    assert codec.shuffle(b"abcdefg", 2) == b"acegbdf"
    for function in (codec.shuffle, codec.unshuffle):
        with pytest.raises(ValueError, match="at least 1"):
            function(b"abc", 0)
