"""General compressors for the artifact's bytes, by name, with bounded decompression.

What: `CODECS[name]` is (compress(data, level), decompress(data, max_bytes)); the second gives the original or raises
ValueError.

Why bounded: forty bytes of zstd can declare, or unfold to, gigabytes. The size that the frame declares is checked
before anything is allocated, the output buffer has exactly that size and decoding stops at its end, and bytes after
the frame are refused, so that an artifact has no room for what nobody reads.

Neutral value: none; an artifact is always compressed. Source: #586 (zstd, level 22). Not covered: brotli, byte
shuffle, entropy coding of our own.
"""

from __future__ import annotations

from collections.abc import Callable

import zstandard


def compress_zstd(data: bytes, level: int) -> bytes:
    """One zstd frame that declares its content size. Equal input gives equal bytes as long as zstd's version stays."""
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
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"no whole zstd frame: {error}") from error


CODECS: dict[str, tuple[Callable[[bytes, int], bytes], Callable[[bytes | memoryview, int], bytes]]] = {
    "zstd": (compress_zstd, decompress_zstd),
}
