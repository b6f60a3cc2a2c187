"""Compression loses nothing, and decompression never gives more than it was told to."""

from __future__ import annotations

import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from golf.storage import codec

HIGHEST = {"zstd": 22, "brotli": 11, "lzma": 9, "zlib": 9}
every_codec = pytest.mark.parametrize("name", sorted(codec.CODECS))


def _packed(name: str, data: bytes) -> bytes:
    return codec.CODECS[name][0](data, 3)


@every_codec
@settings(deadline=None, max_examples=40)
@given(data=st.binary(min_size=1, max_size=2000))
def test_every_codec_gives_back_what_it_took_and_the_same_bytes_again(name, data):
    packed = _packed(name, data)
    assert codec.CODECS[name][1](packed, len(data)) == data
    assert _packed(name, data) == packed


@every_codec
def test_every_level_is_read_by_the_same_decompressor(name):
    data = bytes(range(256)) * 20
    compress, decompress = codec.CODECS[name]
    for level in range(1, HIGHEST[name] + 1):
        assert decompress(compress(data, level), len(data)) == data


@every_codec
def test_content_of_several_pieces_with_matches_far_back_comes_whole(name):
    noise = (
        zstandard.ZstdCompressor().compress(bytes(range(256))) * 40_000
    )  # repeats, and more than one piece
    data = noise[: codec.PIECE_BYTES] * 2 + b"end"
    assert codec.CODECS[name][1](memoryview(_packed(name, data)), len(data)) == data


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
    packed, (_, decompress) = _packed(name, bytes(range(256)) * 4), codec.CODECS[name]
    for wrong in (packed[: min(cut, len(packed) - 1)], packed + tail, packed + packed):
        with pytest.raises(ValueError):
            decompress(wrong, 1 << 20)


@every_codec
def test_content_may_be_as_long_as_the_limit_and_no_byte_longer_nor_empty(name):
    decompress = codec.CODECS[name][1]
    for length in (1, 1000, codec.PIECE_BYTES, codec.PIECE_BYTES + 1):
        packed = _packed(name, bytes(length))
        assert decompress(packed, length) == bytes(length)
        with pytest.raises(ValueError):
            decompress(packed, length - 1)
    with pytest.raises(ValueError):
        decompress(_packed(name, b""), 1000)


@every_codec
@pytest.mark.parametrize("limit", [1000, 1 << 20])
def test_a_bomb_gets_an_error_and_no_memory(name, limit):
    bomb = _packed(name, bytes(64 << 20))
    decompress = codec.CODECS[name][1]
    tracemalloc.start()
    with pytest.raises(ValueError):
        decompress(bomb, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def _lying_bomb(declared: int, content: int) -> bytes:
    """A frame that unfolds to `content` zeros and says that they are `declared` (in 8 bytes of frame
    header)."""
    honest = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(content))
    parameters = zstandard.get_frame_parameters(honest)
    assert parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN
    start = zstandard.frame_header_size(honest)
    descriptor = (3 << 6) | (1 << 5)  # 8 bytes of content size, one segment
    return honest[:4] + bytes([descriptor]) + declared.to_bytes(8, "little") + honest[start:]


@pytest.mark.parametrize(
    ("declared", "limit"), [(1 << 40, 1 << 20), (1 << 62, 1 << 20), (1000, 1000), (0, 1000)]
)
def test_a_zstd_frame_that_lies_about_its_size_gets_an_error_and_no_memory(declared, limit):
    bomb = _lying_bomb(declared, 64 << 20)
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(ValueError):
        codec.decompress_zstd(bomb, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_zstd_frame_that_does_not_say_how_long_it_is_is_refused():
    frame = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(1000))
    with pytest.raises(ValueError, match="does not declare"):
        codec.decompress_zstd(frame, 1 << 20)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=100), stride=st.integers(1, 120))
def test_the_byte_shuffle_moves_every_byte_to_its_place_and_back(data, stride):
    shuffled = codec.shuffle(data, stride)
    assert shuffled == b"".join(data[first::stride] for first in range(stride))
    assert codec.unshuffle(shuffled, stride) == data


def test_stride_1_changes_nothing_and_stride_0_is_an_error():
    assert codec.shuffle(b"abcdefg", 1) == codec.unshuffle(b"abcdefg", 1) == b"abcdefg"
    assert codec.shuffle(b"abcdefg", 2) == b"acegbdf"
    for change in (codec.shuffle, codec.unshuffle):
        with pytest.raises(ValueError, match="at least 1"):
            change(b"abc", 0)
