"""Code that a script carries packed: found and unpacked without being run, within limits.

Literals that decode as base 85 or base 64 and then decompress (lzma in its three containers, zlib, bz2) to text that imports,
again and again for wrappers in wrappers (#1394, #1413). Not covered: brotli, keys computed at run time, pickles.
"""

from __future__ import annotations

import ast
import base64
import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

MAX_BYTES = 2_000_000
"""Of one unpacked source; a bomb ends here."""
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
        literals = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
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
