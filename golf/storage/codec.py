"""General compressors for the artifact's bytes, by name, with bounded decompression; and the byte shuffle
before them.

What: `CODECS[name]` is (compress(data, level), decompress(data, max_bytes)); the second gives the original, 1
to max_bytes long, or raises ValueError. `shuffle` brings bytes of equal significance together, `unshuffle`
undoes it.

Why bounded: forty bytes of zstd can declare, or unfold to, gigabytes. A zstd frame declares its size, which
is checked before anything is allocated; the other three do not, so their output is taken in pieces and given
up as soon as it is too long. A cut stream and bytes after its end are refused, so that an artifact has no
room for what nobody reads.

Equal input gives equal bytes as long as the compressor's version stays. Neutral value: shuffle with stride 1;
an artifact is always compressed. Sources: #586 (zstd, level 22), #1493 (byte shuffle of stride 2, brotli 11;
LZMA2 without a container for its code), the challenge's starting script (zlib). Not covered: what to compress
(golf/stages/pack.py) and codes of known distribution (golf/storage/entropy.py)."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable

import brotli
import numpy as np
import zstandard

PIECE_BYTES = 1 << 20
"""Decompressed bytes that are looked at together; a decoder hands over at most twice as many at once."""
SMALLEST_DICTIONARY, LARGEST_DICTIONARY = 1 << 12, 64 << 20
"""LZMA's limits: what it takes at all, and what its level 9 uses."""


def compress_zstd(data: bytes, level: int) -> bytes:
    """One zstd frame that declares its content size."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False).compress(data)


def decompress_zstd(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one frame, 1 to max_bytes long. Raises ValueError for anything else."""
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            raise ValueError("zstd frame does not declare how long its content is")
        if declared == 0:  # the library returns at once here and would not look at what follows
            raise ValueError("zstd frame declares no content")
        if declared > max_bytes:
            raise ValueError(f"zstd frame declares {declared} bytes; at most {max_bytes} are read")
        return zstandard.ZstdDecompressor().decompress(
            data, max_output_size=max_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise ValueError(f"no whole zstd frame: {error}") from error


def _unfold(
    name: str, decode: Callable[[bytes | memoryview], bytes], data: bytes | memoryview, max_bytes: int
) -> bytes:
    """All that `decode` gives for the whole of `data` and then, called with nothing, until it gives
    nothing."""
    content = bytearray()
    try:
        piece = decode(data)
        while piece:
            if len(content) + len(piece) > max_bytes:
                raise ValueError(f"{name} stream unfolds to more than the {max_bytes} bytes that are read")
            content += piece
            piece = decode(b"")
    except (brotli.error, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"no whole {name} stream: {error}") from error
    if not content:
        raise ValueError(f"{name} stream holds no content")
    return bytes(content)


def _need_end(name: str, at_end: bool, rest: bytes) -> None:
    if not at_end:
        raise ValueError(f"{name} stream is cut off")
    if rest:
        raise ValueError(f"{len(rest)} bytes follow the {name} stream")


def compress_brotli(data: bytes, level: int) -> bytes:
    """One brotli stream with the widest standard window, 16 MiB."""
    return brotli.compress(data, quality=level, lgwin=24)


def decompress_brotli(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one stream, 1 to max_bytes long. Raises ValueError for anything else."""
    decoder = brotli.Decompressor()
    content = _unfold(
        "brotli", lambda new: decoder.process(new, output_buffer_limit=PIECE_BYTES), data, max_bytes
    )
    _need_end(
        "brotli", decoder.is_finished(), b""
    )  # bytes after the stream are an error of the decoder's own
    return content


def compress_lzma(data: bytes, level: int) -> bytes:
    """LZMA2 chunks and their end mark without a container, whose header and checks would say nothing new."""
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": level}])


def decompress_lzma(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one LZMA2 stream, 1 to max_bytes long. Raises ValueError for anything else.

    The dictionary is ours to choose, no header names it: what fits `max_bytes` never points back farther than
    that."""
    dictionary = min(max(max_bytes, SMALLEST_DICTIONARY), LARGEST_DICTIONARY)
    decoder = lzma.LZMADecompressor(
        lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": dictionary}]
    )
    content = _unfold(
        "lzma", lambda new: b"" if decoder.eof else decoder.decompress(new, PIECE_BYTES), data, max_bytes
    )
    _need_end("lzma", decoder.eof, decoder.unused_data)
    return content


def compress_zlib(data: bytes, level: int) -> bytes:
    """One zlib stream."""
    return zlib.compress(data, level)


def decompress_zlib(data: bytes | memoryview, max_bytes: int) -> bytes:
    """The content of exactly one stream, 1 to max_bytes long. Raises ValueError for anything else."""
    decoder = zlib.decompressobj()
    content = _unfold(
        "zlib", lambda new: decoder.decompress(new or decoder.unconsumed_tail, PIECE_BYTES), data, max_bytes
    )
    _need_end("zlib", decoder.eof, decoder.unused_data)
    return content


CODECS: dict[str, tuple[Callable[[bytes, int], bytes], Callable[[bytes | memoryview, int], bytes]]] = {
    "zstd": (compress_zstd, decompress_zstd),
    "brotli": (compress_brotli, decompress_brotli),
    "lzma": (compress_lzma, decompress_lzma),
    "zlib": (compress_zlib, decompress_zlib),
}


def shuffle(data: bytes, stride: int) -> bytes:
    """All bytes at places 0 mod stride, then 1 mod stride, and so on; any length. Stride 1 changes nothing.
    Source: #1493."""
    places = _shuffled_places(len(data), stride)
    taken = np.frombuffer(data, np.uint8)
    return b"".join(taken[place].tobytes() for place in places)


def unshuffle(data: bytes, stride: int) -> bytes:
    """The inverse of `shuffle` with the same stride."""
    places = _shuffled_places(len(data), stride)
    taken, given, start = np.frombuffer(data, np.uint8), np.empty(len(data), np.uint8), 0
    for place in places:
        end = start + len(given[place])
        given[place] = taken[start:end]
        start = end
    return given.tobytes()


def _shuffled_places(length: int, stride: int) -> list[slice]:
    if stride < 1:
        raise ValueError(f"byte shuffle needs a stride of at least 1, found {stride}")
    return [slice(first, None, stride) for first in range(min(stride, length))]
