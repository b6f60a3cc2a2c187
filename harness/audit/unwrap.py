"""Find and unpack code that a script or an archive carries packed, without running it and within limits.

Packed code is a literal that decodes as base 85 or base 64 and decompresses (lzma in its three containers,
zlib, gzip, raw deflate, bz2, brotli) to text that imports or executes something, repeatedly for wrappers in
wrappers (#1394, #1413); or the sources in a zip archive that Python can run, also those in the one stream of
code.pyz (`pgolf export`; harness/run/bundle_archive.py).
Code that is too large or too deeply packed is reported. Keys computed at run time, pickles and archives in
archives are not unpacked; `code/promises.py` reports scripts that run unread code.
"""

from __future__ import annotations

import ast
import base64
import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import brotli

from harness.audit.code.tree import parsed, walk
from harness.run.bundle_archive import PROGRAM, STREAM, unpack

MAX_BYTES = 2_000_000
"""Of one unpacked source; unpacking a bomb stops here."""
MAX_MEMBERS = 400
"""Python files of one archive."""
MAX_DEPTH = 4
MAX_LITERALS = 12
"""Literals of one source that are tried, the longest ones; public wrappers have one or two."""
MIN_LITERAL = 400
RUNS = re.compile(r"\bimport\b|\bexec\s*\(|__import__")
"""Code worth reading imports or executes something."""
RAW: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
DECODERS: tuple[Callable[[bytes], bytes], ...] = (base64.b85decode, base64.b64decode, base64.a85decode)


class Packed(NamedTuple):
    """One source that was packed, or the reason why it was not unpacked."""

    text: str | None
    reason: str = ""


def _brotli(data: bytes, n_bytes: int) -> bytes:
    return bytes(brotli.Decompressor().process(data, output_buffer_limit=n_bytes))


OPENERS: tuple[Callable[[bytes, int], bytes], ...] = (
    lambda data, n_bytes: lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=1 << 27).decompress(data, n_bytes),
    lambda data, n_bytes: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=RAW).decompress(data, n_bytes),
    lambda data, n_bytes: zlib.decompressobj(47).decompress(data, n_bytes),  # zlib or gzip, by its header
    lambda data, n_bytes: zlib.decompressobj(-15).decompress(data, n_bytes),
    lambda data, n_bytes: bz2.BZ2Decompressor().decompress(data, n_bytes),
    _brotli,
    lambda data, n_bytes: data[:n_bytes],
)  # encoded and not compressed


def unwrapped(source: str, depth: int = 0) -> Iterator[Packed]:
    """The sources packed inside `source`, outermost first. Never raises because of what the literals hold."""
    if len(source) > MAX_BYTES:
        return
    try:
        literals = [
            node.value
            for node in walk(parsed(source))
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str | bytes)
            and len(node.value) >= MIN_LITERAL
            and _dense(node.value)
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # whoever parses the source for the rules reports it as unread
    longest = sorted(literals, key=len, reverse=True)[:MAX_LITERALS]
    for literal in literals:
        if literal not in longest:
            continue
        packed = _text(literal if isinstance(literal, bytes) else literal.encode("utf-8", "replace"))
        if packed is None:
            continue
        if packed.text is not None and depth >= MAX_DEPTH:
            yield Packed(None, f"it is packed more than {MAX_DEPTH} times")
            continue
        yield packed
        if packed.text is not None:
            yield from unwrapped(packed.text, depth + 1)


def _dense(literal: str | bytes) -> bool:
    """Whether a literal may be packed code: base 64 and base 85 have no spaces, prose has."""
    return isinstance(literal, bytes) or " " not in literal.strip()


def _text(data: bytes) -> Packed | None:
    """The source in these bytes, by the first decoder and decompressor that give one."""
    bomb = None
    for packed in _decoded(data):
        for opener in OPENERS:
            try:
                raw = opener(packed, MAX_BYTES + 1)
                if len(raw) > MAX_BYTES:
                    if RUNS.search(raw[:100_000].decode("ascii", "ignore")):
                        bomb = Packed(None, f"it unpacks to more than {MAX_BYTES:,} bytes")
                    continue
                text = raw.decode("utf-8")
            except (ValueError, lzma.LZMAError, zlib.error, brotli.error, OSError, EOFError, MemoryError):
                continue
            if RUNS.search(text):  # if it does not parse, it is reported as unread
                return Packed(text)
    return bomb


def _decoded(data: bytes) -> Iterator[bytes]:
    yield data
    for decode in DECODERS:
        try:
            yield decode(data)
        except ValueError:
            continue


def archived(data: bytes) -> Iterator[tuple[str, str]]:
    """The names and sources of a zip archive's Python files: MAX_BYTES in total, MAX_MEMBERS at most.

    Where the archive holds the stream of a code bundle, it must be one, and its sources follow. Raises
    ValueError where `data` is not such an archive or exceeds the limits.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if any(member.filename == STREAM for member in members):
                program, sources = unpack(data)
                texts = iter({PROGRAM: program, **sources}.items())
                yield from _limited(len(sources) + 1, texts)
            else:
                members = [member for member in members if member.filename.endswith(".py")]
                yield from _limited(len(members), _read(archive, members))
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise ValueError(f"no archive that can be read ({type(error).__name__}: {error})") from error


def _read(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
    """Each member's name and its first MAX_BYTES + 1 bytes: sizes in the directory are the packer's claim."""
    for member in members:
        with archive.open(member) as opened:
            yield member.filename, opened.read(MAX_BYTES + 1)


def _limited(n_sources: int, texts: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    """The decoded texts. Raises ValueError beyond MAX_MEMBERS sources, and beyond MAX_BYTES in total."""
    if n_sources > MAX_MEMBERS:
        raise ValueError(f"{n_sources:,} sources are more than {MAX_MEMBERS}")
    left = MAX_BYTES
    for name, text in texts:
        left -= len(text)
        if left < 0:
            raise ValueError(f"its sources are more than {MAX_BYTES:,} bytes")
        yield name, text.decode("utf-8", "replace")
