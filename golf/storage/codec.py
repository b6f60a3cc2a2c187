"""General-purpose compressors with bounded decompression, and the byte shuffle applied before them.

`CODECS[name]` is (compress(data, level), decompress(data, max_bytes)). `decompress` returns the
original, 1 to max_bytes long, or raises ValueError. `shuffle` groups bytes of equal significance,
`unshuffle` reverses it.

Decompression is bounded because forty bytes of zstd can declare, or expand to, gigabytes. A zstd frame
declares its size, which is checked before allocation. The others do not, so their output is read in pieces
and rejected as soon as it is too long. Truncated streams and bytes after the end are rejected, so an artifact
cannot hide unread bytes.

Equal input gives equal bytes for the same version of the compressor. Neutral: shuffle with stride 1;
artifacts are always compressed. Source: #586 (zstd, level 22), #1493 (byte shuffle of stride 2, brotli 11;
LZMA2 without a container for its code), the challenge's starting script (zlib).
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable

import brotli
import numpy as np
import zstandard

PIECE_BYTES = 1 << 20
"""Decompressed bytes requested at a time; a decoder returns at most twice as many."""
SMALLEST_DICTIONARY, LARGEST_DICTIONARY = 1 << 12, 64 << 20
"""Dictionary sizes of LZMA: the smallest it accepts, and that of level 9."""


def compress_zstd(data: bytes, level: int) -> bytes:
    """One zstd frame that declares its content size."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False).compress(data)


def decompress_zstd(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one frame, 1 to max_bytes long. Raises ValueError for anything else."""
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            raise ValueError("zstd frame does not declare the size of its content")
        if declared == 0:  # the library would return at once, without checking the rest
            raise ValueError("zstd frame declares no content")
        if declared > max_bytes:
            raise ValueError(f"zstd frame declares {declared} bytes; at most {max_bytes} are allowed")
        return zstandard.ZstdDecompressor().decompress(
            data, max_output_size=max_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise ValueError(f"invalid zstd frame: {error}") from error


def _decompress_bounded(
    name: str, decode: Callable[[bytes | memoryview], bytes], data: bytes | memoryview, max_bytes: int
) -> bytes:
    """The output of `decode(data)`, followed by that of `decode(b"")` until it is empty."""
    content = bytearray()
    try:
        piece = decode(data)
        while piece:
            if len(content) + len(piece) > max_bytes:
                raise ValueError(f"{name} stream expands to more than the {max_bytes} bytes allowed")
            content += piece
            piece = decode(b"")
    except (brotli.error, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"invalid {name} stream: {error}") from error
    if not content:
        raise ValueError(f"{name} stream is empty")
    return bytes(content)


def _require_end(name: str, at_end: bool, rest: bytes) -> None:
    if not at_end:
        raise ValueError(f"{name} stream is truncated")
    if rest:
        raise ValueError(f"{len(rest)} bytes follow the {name} stream")


def compress_brotli(data: bytes, level: int) -> bytes:
    """One brotli stream with the largest standard window, 16 MiB."""
    return brotli.compress(data, quality=level, lgwin=24)


def decompress_brotli(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one stream, 1 to max_bytes long. Raises ValueError for anything else."""
    decoder = brotli.Decompressor()
    content = _decompress_bounded(
        "brotli", lambda new: decoder.process(new, output_buffer_limit=PIECE_BYTES), data, max_bytes
    )
    _require_end(
        "brotli", decoder.is_finished(), b""
    )  # bytes after the stream are an error of the decoder's own
    return content


def compress_lzma(data: bytes, level: int) -> bytes:
    """LZMA2 chunks and their end mark without a container, whose header and checksums are redundant here."""
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": level}])


def decompress_lzma(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one LZMA2 stream, 1 to max_bytes long. Raises ValueError for anything else.

    No header names the dictionary size. `max_bytes` suffices: no match in valid content
    points back farther.
    """
    dictionary = min(max(max_bytes, SMALLEST_DICTIONARY), LARGEST_DICTIONARY)
    decoder = lzma.LZMADecompressor(
        lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": dictionary}]
    )
    content = _decompress_bounded(
        "lzma", lambda new: b"" if decoder.eof else decoder.decompress(new, PIECE_BYTES), data, max_bytes
    )
    _require_end("lzma", decoder.eof, decoder.unused_data)
    return content


def compress_zlib(data: bytes, level: int) -> bytes:
    """One zlib stream."""
    return zlib.compress(data, level)


def decompress_zlib(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one stream, 1 to max_bytes long. Raises ValueError for anything else."""
    decoder = zlib.decompressobj()
    content = _decompress_bounded(
        "zlib", lambda new: decoder.decompress(new or decoder.unconsumed_tail, PIECE_BYTES), data, max_bytes
    )
    _require_end("zlib", decoder.eof, decoder.unused_data)
    return content


CODECS: dict[str, tuple[Callable[[bytes, int], bytes], Callable[[bytes | memoryview, int], bytes]]] = {
    "zstd": (compress_zstd, decompress_zstd),
    "brotli": (compress_brotli, decompress_brotli),
    "lzma": (compress_lzma, decompress_lzma),
    "zlib": (compress_zlib, decompress_zlib),
}


def shuffle(data: bytes, stride: int) -> bytes:
    """All bytes at positions 0 mod stride, then 1 mod stride, and so on. Neutral: stride 1. Source: #1493."""
    array = np.frombuffer(data, np.uint8)
    return b"".join(array[part].tobytes() for part in _strided_slices(len(data), stride))


def unshuffle(data: bytes, stride: int) -> bytes:
    """The inverse of `shuffle` with the same stride."""
    shuffled, restored, start = np.frombuffer(data, np.uint8), np.empty(len(data), np.uint8), 0
    for part in _strided_slices(len(data), stride):
        end = start + len(restored[part])
        restored[part] = shuffled[start:end]
        start = end
    return restored.tobytes()


def _strided_slices(length: int, stride: int) -> list[slice]:
    if stride < 1:
        raise ValueError(f"byte shuffle needs a stride of at least 1, found {stride}")
    return [slice(first, None, stride) for first in range(min(stride, length))]
