"""Bits per byte of ordinary compressors on the validation text, which reports show beside every score.

The decoded documents are joined by one space and compressed as one stream, by `xz -9e` (lzma) and `bz2
-9` (bz2): bits of the compressed file over bytes of the text. On the whole official validation prefix:
2.557 and 2.528. Rounded to three decimals, since versions of liblzma may differ by a few bytes. The size
of the decoder is not counted.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Iterable

DECIMALS = 3


def bits_per_byte(documents: Iterable[bytes]) -> dict[str, float]:
    """{"xz -9e": bpb, "bz2 -9": bpb} of the documents joined by one space; empty for a text of no bytes.

    A text that repeats itself so much that its value would be rounded to 0 gets the least value above it.
    """
    coders: dict[str, lzma.LZMACompressor | bz2.BZ2Compressor] = {
        "xz -9e": lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME),
        "bz2 -9": bz2.BZ2Compressor(9),
    }
    compressed = dict.fromkeys(coders, 0)
    n_bytes = 0
    for index, document in enumerate(documents):
        block = b" " + document if index else document
        n_bytes += len(block)
        for name, coder in coders.items():
            compressed[name] += len(coder.compress(block))
    if n_bytes == 0:
        return {}
    return {
        name: max(round(8 * (compressed[name] + len(coder.flush())) / n_bytes, DECIMALS), 10**-DECIMALS)
        for name, coder in coders.items()
    }
