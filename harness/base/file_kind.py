"""Say what a file is that is not what its reader expects: compressed, UTF-16, or behind a byte order mark.

A reader of text calls such a file "not valid Unicode", and a reader of shards names a wrong number, which
sends its owner looking for a damaged byte.
"""

from __future__ import annotations

import codecs

_KINDS = (
    (b"\x1f\x8b", "is gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is zstd: unpack it first"),
    (b"BZh", "is bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "is xz: unpack it first"),
    (b"PK\x03\x04", "is zip: unpack it first"),
    (codecs.BOM_UTF8, "starts with a byte order mark: save it as UTF-8 without one"),
    (codecs.BOM_UTF16_LE, "is UTF-16: save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "is UTF-16: save it as UTF-8"),
)


def not_plain(head: bytes) -> str | None:
    """What the file is whose first bytes are `head`, and what to do; None for any other file."""
    return next((what for magic, what in _KINDS if head.startswith(magic)), None)
