"""The layout of code.pyz: a program that Python runs, and one LZMA stream of sources beside it.

    code.pyz       zip archive, nothing compressed: __main__.py, sources.lzma
    sources.lzma   LZMA (`FORMAT_ALONE`) of name, source, name, source, ... with a zero byte between
    name           path of the source in its package, as golf/model/gpt.py; ascending

One stream instead of an archive's compression file by file saves a tenth. Compressed bytes depend on the
version of liblzma, so `digest` covers names and contents instead.

A bundle may come from anybody. `unpack` runs nothing and unpacks MAX_BYTES at most, whatever the stream
expands to. It refuses what `pack` would not write around the same stream: other members, gaps, bytes behind.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

PROGRAM, STREAM = "__main__.py", "sources.lzma"
EPOCH = (1980, 1, 1, 0, 0, 0)
MAX_FILE_BYTES = 16_000_000
"""Of a bundle; the challenge's cap on code and artifact together."""
MAX_BYTES = 16 << 20
"""Of all sources together, after decompression."""
MAX_SOURCES = 2_000
MAX_NAME = 200
NAME = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*\.py", re.ASCII)
MAX_DECODER_BYTES = 64 << 20
FILTERS: list[dict[str, Any]] = [
    {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 24, "pb": 0}
]
"""pb 0: text has no alignment. The dictionary covers MAX_BYTES."""


class Contents(NamedTuple):
    """What a bundle holds: the program that Python starts, and the sources that it imports, by name."""

    program: bytes
    sources: dict[str, bytes]

    def digest(self) -> str:
        """sha256 (hex) of names and contents, in the order of names."""
        digest = hashlib.sha256()
        for name, text in sorted({PROGRAM: self.program, **self.sources}.items()):
            digest.update(
                len(name).to_bytes(4, "little") + name.encode() + len(text).to_bytes(8, "little") + text
            )
        return digest.hexdigest()


def pack(contents: Contents) -> bytes:
    """The bytes of code.pyz. Equal contents give equal bytes by the same version of liblzma."""
    fields = [field for name, text in sorted(contents.sources.items()) for field in (name.encode(), text)]
    stream = lzma.compress(b"\0".join(fields), lzma.FORMAT_ALONE, filters=FILTERS)
    return stored({PROGRAM: contents.program, STREAM: stream})


def unpack(data: bytes) -> Contents:
    """The contents of code.pyz. Raises ValueError that says what is wrong."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{len(data):,} bytes, expected at most {MAX_FILE_BYTES:,}")
    program, stream = _members(data)
    if stored({PROGRAM: program, STREAM: stream}) != data:
        raise ValueError("it holds more than its members, or another layout of them")
    return Contents(program, sources_in(stream))


def stored(members: Mapping[str, bytes]) -> bytes:
    """A zip archive of uncompressed members, which depends on nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _members(data: bytes) -> tuple[bytes, bytes]:
    """The two members as they are stored: at most len(data) bytes, because neither is compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if names != [PROGRAM, STREAM]:
                raise ValueError(f"expected the members {PROGRAM} and {STREAM}, found {str(names)[:200]}")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("a member is compressed, expected two that are stored")
            program, stream = (archive.read(member) for member in members)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"no zip archive that can be read: {error}") from error
    return program, stream


def sources_in(stream: bytes) -> dict[str, bytes]:
    """The sources in the LZMA stream, by name. Raises ValueError that says what is wrong."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_DECODER_BYTES)
    try:
        content = decoder.decompress(stream, MAX_BYTES + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"{STREAM}: {error}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{STREAM}: unpacks to more than {MAX_BYTES:,} bytes")
    if not decoder.eof or decoder.unused_data:
        raise ValueError(f"{STREAM}: its end is missing, or something follows it")
    if content.count(b"\0") >= 2 * MAX_SOURCES:
        raise ValueError(f"{STREAM}: more than {MAX_SOURCES:,} sources")
    fields = content.split(b"\0")
    names = [name.decode("utf-8", "replace") for name in fields[::2]]
    for name in names:
        if len(name) > MAX_NAME or not NAME.fullmatch(name):
            raise ValueError(f"{STREAM}: {name[:MAX_NAME]!r} is not the path of a module")
    if len(fields) % 2 or names != sorted(set(names)):
        raise ValueError(f"{STREAM}: expected pairs of name and source, by ascending names")
    return dict(zip(names, fields[1::2], strict=True))
