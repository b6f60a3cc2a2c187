"""A file of named arrays, used for checkpoints and artifacts. Unlike pickle, reading it runs no code.

Layout, little-endian:

    magic 8 | version u16 | header length u32 | digest 8 | header (JSON) | pad | array | pad | array ...

The header is `{"arrays": [[name, dtype, [dim, ...]], ...], "header": {...}}`. Offsets are not stored: each
array starts at the next multiple of ALIGN after the previous one, so a file cannot declare arrays that
overlap, leave gaps or are out of order. Padding is zero, and the file ends with the last array. The digest is
BLAKE2b of everything else; it detects truncated, corrupted and partly written files.

`read` maps the file and returns read-only views. Names must match NAME and dtypes be in DTYPES; header
size, number of arrays, rank and total size are checked before anything is allocated. A malformed file
raises ValueError.

Not covered: who wrote the file (the digest has no key), changes while it is mapped, and the values in it:
golf/stages/pack.py rejects invalid ones, such as NaN scales.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from golf.runtime import strict_json

MAGIC = b"flatarr\n"
VERSION = 1
ALIGN = 8
DIGEST_BYTES = 8
_PREFIX = struct.Struct(f"<8sHI{DIGEST_BYTES}s")

MAX_HEADER_BYTES = 1 << 20
MAX_ARRAYS = 4096
MAX_RANK = 4
MAX_BYTES = 1 << 32
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:-]{0,119}", re.ASCII)
DTYPES: dict[str, np.dtype] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
    )
}


def _round_up(n_bytes: int) -> int:
    return -(-n_bytes // ALIGN) * ALIGN


def _check_entry(name: object, dtype: object, shape: object) -> int:
    """Size in bytes of one declared array. Raises ValueError if name, dtype or shape is invalid."""
    if type(name) is not str or not NAME.fullmatch(name):
        raise ValueError(f"array name {str(name)[:60]!r} does not match {NAME.pattern}")
    if type(dtype) is not str or dtype not in DTYPES:
        raise ValueError(f"array {name}: dtype {str(dtype)[:60]!r} is not one of {', '.join(DTYPES)}")
    if type(shape) is not list or len(shape) > MAX_RANK:
        raise ValueError(f"array {name}: shape {str(shape)[:60]} is not a list of at most {MAX_RANK} sizes")
    n_bytes = DTYPES[dtype].itemsize
    for size in shape:
        if type(size) is not int or not 1 <= size <= MAX_BYTES:
            raise ValueError(
                f"array {name}: size {str(size)[:60]} is not a whole number from 1 to {MAX_BYTES}"
            )
        n_bytes *= size
    return n_bytes


def _layout(entries: list[Any], start: int) -> tuple[dict[str, tuple[int, np.dtype, list[int]]], int]:
    """Declared arrays -> {name: (offset, dtype, shape)} and the required length of the file."""
    if len(entries) > MAX_ARRAYS:
        raise ValueError(f"{len(entries)} arrays; at most {MAX_ARRAYS} are allowed")
    layout: dict[str, tuple[int, np.dtype, list[int]]] = {}
    end = start
    for entry in entries:
        if type(entry) is not list or len(entry) != 3:
            raise ValueError(f"array entry {str(entry)[:60]} is not [name, dtype, shape]")
        name, dtype, shape = entry
        n_bytes = _check_entry(name, dtype, shape)
        if name in layout:
            raise ValueError(f"array {name} is declared twice")
        offset = _round_up(end)
        layout[name] = (offset, DTYPES[dtype], shape)
        end = offset + n_bytes
    return layout, end


def _digest(prefix: bytes, *rest: bytes | memoryview) -> bytes:
    hasher = hashlib.blake2b(prefix, digest_size=DIGEST_BYTES)
    for part in rest:
        hasher.update(part)
    return hasher.digest()


def to_bytes(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Header (JSON values) and arrays, in their order -> the file's bytes. Deterministic.

    Raises ValueError for what `from_bytes` would not read.
    """
    entries: list[Any] = []
    bodies: list[np.ndarray] = []
    for name, array in arrays.items():
        dtype = array.dtype.name
        entry = [name, dtype, list(array.shape)]
        _check_entry(*entry)
        entries.append(entry)
        bodies.append(np.asarray(array, dtype=DTYPES[dtype], order="C"))
    text = strict_json.dumps({"arrays": entries, "header": header})
    strict_json.loads(text, max_bytes=MAX_HEADER_BYTES)
    layout, end = _layout(entries, _PREFIX.size + len(text))
    if end > MAX_BYTES:
        raise ValueError(f"{end} bytes of arrays; at most {MAX_BYTES} are allowed")
    data = bytearray(end)
    data[_PREFIX.size : _PREFIX.size + len(text)] = text
    for body, (offset, _, _) in zip(bodies, layout.values(), strict=True):
        data[offset : offset + body.nbytes] = body.tobytes()
    prefix = _PREFIX.pack(MAGIC, VERSION, len(text), bytes(DIGEST_BYTES))
    digest = _digest(prefix, memoryview(data)[_PREFIX.size :])
    data[: _PREFIX.size] = _PREFIX.pack(MAGIC, VERSION, len(text), digest)
    return bytes(data)


def from_bytes(data: bytes | memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `to_bytes`: (header, {name: read-only view}). Raises ValueError for malformed data."""
    view = memoryview(data).toreadonly()
    if len(view) < _PREFIX.size:
        raise ValueError(f"not an array file: {len(view)} bytes, fewer than the prefix of {_PREFIX.size}")
    magic, version, n_header, digest = _PREFIX.unpack(view[: _PREFIX.size])
    if magic != MAGIC:
        raise ValueError(f"not an array file: it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise ValueError(f"array file of version {version}; this program reads version {VERSION}")
    if n_header > min(MAX_HEADER_BYTES, len(view) - _PREFIX.size):
        raise ValueError(f"header of {n_header} bytes in a file of {len(view)}; at most {MAX_HEADER_BYTES}")
    start = _PREFIX.size + n_header
    outer = strict_json.loads(bytes(view[_PREFIX.size : start]), max_bytes=MAX_HEADER_BYTES)
    if type(outer) is not dict or set(outer) != {"arrays", "header"}:
        raise ValueError("the file's header must have exactly the keys arrays and header")
    if type(outer["arrays"]) is not list or type(outer["header"]) is not dict:
        raise ValueError("in the file's header arrays must be a list and header a mapping")
    layout, end = _layout(outer["arrays"], start)
    if end != len(view):
        raise ValueError(f"the header declares {end} bytes, the file has {len(view)}")
    _check_padding(view, start, layout)
    prefix = _PREFIX.pack(MAGIC, VERSION, n_header, bytes(DIGEST_BYTES))
    if _digest(prefix, view[_PREFIX.size :]) != digest:
        raise ValueError(
            "the file's digest does not match its content: truncated, corrupted or partly written"
        )
    arrays = {
        name: np.frombuffer(view, dtype, count=int(np.prod(shape, dtype=np.int64)), offset=offset).reshape(
            shape
        )
        for name, (offset, dtype, shape) in layout.items()
    }
    return outer["header"], arrays


def _check_padding(view: memoryview, start: int, layout: dict[str, tuple[int, np.dtype, list[int]]]) -> None:
    end = start
    for name, (offset, dtype, shape) in layout.items():
        if any(view[end:offset]):
            raise ValueError(f"the padding before array {name} is not zero")
        end = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves either the old file or the complete new one: temporary file, fsync,
    rename, fsync of the folder.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(path: Path, header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `to_bytes(header, arrays)` to `path` atomically."""
    write_atomically(path, to_bytes(header, arrays))


def open_regular(path: Path, max_bytes: int) -> tuple[int, int]:
    """(descriptor, size) of a regular file of 1 .. max_bytes bytes; raises ValueError for anything else."""
    try:
        # O_NONBLOCK because opening a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not 1 <= status.st_size <= max_bytes:
        os.close(descriptor)
        raise ValueError(f"{path}: no plain file of 1 to {max_bytes} bytes ({status.st_size} bytes)")
    return descriptor, status.st_size


def read(path: Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Map `path`; return (header, {name: read-only array}). Raises ValueError with path and reason."""
    descriptor, n_bytes = open_regular(path, max_bytes)
    try:
        mapped = mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    try:
        return from_bytes(memoryview(mapped))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
