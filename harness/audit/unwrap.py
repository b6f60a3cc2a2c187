"""Code that a script or an archive carries packed: found and unpacked without being run, within limits.

Literals that decode as base 85 or base 64 and then decompress (lzma in its three containers, zlib, bz2, brotli) to text that
imports, again and again for wrappers in wrappers (#1394, #1413); sources in a zip archive that Python can run (code.pyz of
`pgolf export`). Not covered: keys computed at run time, pickles, archives in archives; promises.hidden says so of what a
script runs unread.
"""

from __future__ import annotations

import ast
import base64
import bz2
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from harness.audit.code.tree import walk

MAX_BYTES = 2_000_000
"""Of one unpacked source; a bomb ends here."""
MAX_MEMBERS = 400
"""Sources of an archive."""
MAX_DEPTH = 3
MIN_LITERAL = 400
RAW: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
DECODERS: tuple[Callable[[bytes], bytes], ...] = (base64.b85decode, base64.b64decode, base64.a85decode)
OPENERS: tuple[Callable[[], Any], ...] = (
    lambda: lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=1 << 28),
    lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=RAW), zlib.decompressobj, bz2.BZ2Decompressor)


def unwrapped(source: str, depth: int = 0) -> Iterator[str]:
    """Sources packed inside `source`, outermost first. Never raises for what the literals hold."""
    if depth >= MAX_DEPTH or len(source) > MAX_BYTES:
        return
    try:
        literals = [node.value for node in walk(ast.parse(source)) if isinstance(node, ast.Constant)
                    and isinstance(node.value, str | bytes) and len(node.value) >= MIN_LITERAL]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for literal in literals[:4]:
        data = literal if isinstance(literal, bytes) else literal.encode("utf-8", "replace")
        text = next(_texts(data), None)
        if text is not None:
            yield text
            yield from unwrapped(text, depth + 1)


def _texts(data: bytes) -> Iterator[str]:
    for packed in _decoded(data):
        for opener in OPENERS:
            try:
                text = opener().decompress(packed, MAX_BYTES + 1).decode("utf-8")
                if len(text) <= MAX_BYTES and "import " in text:  # what then does not parse is told as unread
                    yield text
            except (ValueError, lzma.LZMAError, zlib.error, OSError, EOFError, MemoryError):
                continue


def _decoded(data: bytes) -> Iterator[bytes]:
    yield data
    for decode in DECODERS:
        try:
            yield decode(data)
        except ValueError:
            continue


def archived(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and sources of a zip archive's Python files, MAX_BYTES together and MAX_MEMBERS at most.

    Raises ValueError where `data` is no such archive or holds more.
    """
    left = MAX_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".py")]
            if len(members) > MAX_MEMBERS:
                raise ValueError(f"{len(members):,} sources are more than {MAX_MEMBERS}")
            for member in members:
                with archive.open(member) as opened:
                    text = opened.read(left + 1)  # what the directory says of sizes is the packer's word
                left -= len(text)
                if left < 0:
                    raise ValueError(f"its sources are more than {MAX_BYTES:,} bytes")
                yield member.filename, text.decode("utf-8", "replace")
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"no archive that can be read ({type(error).__name__}: {error})") from error
