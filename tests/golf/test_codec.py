"""Compression loses nothing, and decompression never gives more than it was told to."""

from __future__ import annotations

import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from golf import codec


@pytest.mark.parametrize("name", sorted(codec.CODECS))
@settings(deadline=None, max_examples=40)
@given(data=st.binary(min_size=1, max_size=2000))
def test_every_codec_gives_back_what_it_took(name, data):
    compress, decompress = codec.CODECS[name]
    packed = compress(data, 22)
    assert decompress(packed, len(data)) == data
    assert compress(data, 22) == packed


@settings(deadline=None, max_examples=100)
@given(garbage=st.binary(max_size=200))
def test_garbage_is_an_error(garbage):
    with pytest.raises(ValueError):
        codec.decompress_zstd(b"\0" + garbage, 1 << 20)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 120), tail=st.binary(min_size=1, max_size=20))
def test_a_cut_frame_and_bytes_after_the_frame_are_errors(cut, tail):
    packed = codec.compress_zstd(bytes(range(256)) * 4, 22)
    with pytest.raises(ValueError):
        codec.decompress_zstd(packed[: min(cut, len(packed) - 1)], 1 << 20)
    with pytest.raises(ValueError):
        codec.decompress_zstd(packed + tail, 1 << 20)
    with pytest.raises(ValueError):
        codec.decompress_zstd(packed + packed, 1 << 20)


def _lying_bomb(declared: int, content: int) -> bytes:
    """A frame that unfolds to `content` zeros and says that they are `declared` (in 8 bytes of frame header)."""
    honest = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(content))
    parameters = zstandard.get_frame_parameters(honest)
    assert parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN
    start = zstandard.frame_header_size(honest)
    descriptor = (3 << 6) | (1 << 5)  # 8 bytes of content size, one segment
    return honest[:4] + bytes([descriptor]) + declared.to_bytes(8, "little") + honest[start:]


@pytest.mark.parametrize(("declared", "limit"), [(1 << 40, 1 << 20), (1 << 62, 1 << 20), (1000, 1000), (0, 1000)])
def test_a_bomb_gets_an_error_and_no_memory(declared, limit):
    bomb = _lying_bomb(declared, 64 << 20)
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(ValueError):
        codec.decompress_zstd(bomb, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_frame_that_does_not_say_how_long_it_is_is_refused():
    frame = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(1000))
    with pytest.raises(ValueError, match="does not declare"):
        codec.decompress_zstd(frame, 1 << 20)
