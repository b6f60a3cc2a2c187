"""A flat file of named arrays: the one format for checkpoint and artifact. Our own, because pickle runs code.

Layout, little-endian:

    magic 8 | version u16 | header length u32 | digest 8 | header (JSON) | pad | array | pad | array ...

The header is `{"arrays": [[name, dtype, [dim, ...]], ...], "header": {...}}`. Offsets are not stored: each
array begins at the next multiple of ALIGN after the one before, so arrays cannot overlap, leave holes or run
out of order, and there is nothing about offsets to lie about. Padding is zero, and the file ends with the
last array. The digest is BLAKE2b over everything else, so that a cut, a flipped bit or a half-written file is
an error and never other weights.

`read` maps the file and returns read-only views. Names match NAME, dtypes come from DTYPES, and header,
count, rank and total size are bounded before anything is allocated. A hostile file gets a ValueError.

Not covered: who wrote it (the digest has no key), a file that is changed while it is mapped, and the meaning
of the arrays: NaN scales are refused by whoever uses scales (golf/stages/pack.py)."""

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
    """The number of bytes of one declared array; ValueError where anything is out of bounds."""
    if type(name) is not str or not NAME.fullmatch(name):
        raise ValueError(f"array name {str(name)[:60]!r} does not match {NAME.pattern}")
    if type(dtype) is not str or dtype not in DTYPES:
        raise ValueError(f"array {name}: dtype {str(dtype)[:60]!r} is none of {', '.join(DTYPES)}")
    if type(shape) is not list or len(shape) > MAX_RANK:
        raise ValueError(f"array {name}: shape {str(shape)[:60]} is no list of at most {MAX_RANK} sizes")
    n_bytes = DTYPES[dtype].itemsize
    for size in shape:
        if type(size) is not int or not 1 <= size <= MAX_BYTES:
            raise ValueError(f"array {name}: size {str(size)[:60]} is no whole number from 1 to {MAX_BYTES}")
        n_bytes *= size
    return n_bytes


def _layout(entries: list[Any], start: int) -> tuple[dict[str, tuple[int, np.dtype, list[int]]], int]:
    """Declared arrays -> {name: (offset, dtype, shape)} and the length that the file must have."""
    if len(entries) > MAX_ARRAYS:
        raise ValueError(f"{len(entries)} arrays; at most {MAX_ARRAYS} are read")
    places: dict[str, tuple[int, np.dtype, list[int]]] = {}
    end = start
    for entry in entries:
        if type(entry) is not list or len(entry) != 3:
            raise ValueError(f"array entry {str(entry)[:60]} is not [name, dtype, shape]")
        name, dtype, shape = entry
        n_bytes = _check_entry(name, dtype, shape)
        if name in places:
            raise ValueError(f"array {name} is declared twice")
        offset = _round_up(end)
        places[name] = (offset, DTYPES[dtype], shape)
        end = offset + n_bytes
    return places, end


def _digest(prefix: bytes, *rest: bytes | memoryview) -> bytes:
    hasher = hashlib.blake2b(prefix, digest_size=DIGEST_BYTES)
    for part in rest:
        hasher.update(part)
    return hasher.digest()


def to_bytes(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Header (JSON values) and arrays -> the file's bytes; the same input gives the same bytes. Order is
    kept."""
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
    places, end = _layout(entries, _PREFIX.size + len(text))
    if end > MAX_BYTES:
        raise ValueError(f"{end} bytes of arrays; a file holds at most {MAX_BYTES}")
    data = bytearray(end)
    data[_PREFIX.size : _PREFIX.size + len(text)] = text
    for body, (offset, _, _) in zip(bodies, places.values(), strict=True):
        data[offset : offset + body.nbytes] = body.tobytes()
    bare = _PREFIX.pack(MAGIC, VERSION, len(text), bytes(DIGEST_BYTES))
    digest = _digest(bare, memoryview(data)[_PREFIX.size :])
    data[: _PREFIX.size] = _PREFIX.pack(MAGIC, VERSION, len(text), digest)
    return bytes(data)


def from_bytes(data: bytes | memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `to_bytes`: (header, {name: read-only view into `data`}). Raises ValueError for anything
    else."""
    view = memoryview(data).toreadonly()
    if len(view) < _PREFIX.size:
        raise ValueError(f"no array file: {len(view)} bytes are fewer than its {_PREFIX.size} first")
    magic, version, n_header, digest = _PREFIX.unpack(view[: _PREFIX.size])
    if magic != MAGIC:
        raise ValueError(f"no array file: it begins with {magic!r}, not {MAGIC!r}")
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
    places, end = _layout(outer["arrays"], start)
    if end != len(view):
        raise ValueError(f"the header declares {end} bytes, the file has {len(view)}")
    _check_padding(view, start, places)
    bare = _PREFIX.pack(MAGIC, VERSION, n_header, bytes(DIGEST_BYTES))
    if _digest(bare, view[_PREFIX.size :]) != digest:
        raise ValueError("the file's digest does not match its content: cut, damaged or half written")
    arrays = {
        name: np.frombuffer(view, dtype, count=int(np.prod(shape, dtype=np.int64)), offset=offset).reshape(
            shape
        )
        for name, (offset, dtype, shape) in places.items()
    }
    return outer["header"], arrays


def _check_padding(view: memoryview, start: int, places: dict[str, tuple[int, np.dtype, list[int]]]) -> None:
    end = start
    for name, (offset, dtype, shape) in places.items():
        if any(view[end:offset]):
            raise ValueError(f"bytes that are not zero lie before array {name}")
        end = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def write_atomically(path: Path, data: bytes) -> None:
    """Bytes -> file that is either absent, or what it was, or complete: temporary file, fsync, rename,
    fsync."""
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
    """Write `to_bytes(header, arrays)` to `path`, atomically."""
    write_atomically(path, to_bytes(header, arrays))


def open_regular(path: Path, max_bytes: int) -> tuple[int, int]:
    """(descriptor, size) of a plain file of 1 .. max_bytes bytes; ValueError for a link, pipe, device or
    folder."""
    try:
        # O_NONBLOCK, because opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened: {error.strerror}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or not 1 <= facts.st_size <= max_bytes:
        os.close(descriptor)
        raise ValueError(f"{path}: no plain file of 1 to {max_bytes} bytes ({facts.st_size} bytes)")
    return descriptor, facts.st_size


def read(path: Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Map `path` and return (header, {name: read-only array}). Raises ValueError naming the file and what is
    wrong."""
    descriptor, n_bytes = open_regular(path, max_bytes)
    try:
        mapped = mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    try:
        return from_bytes(memoryview(mapped))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
