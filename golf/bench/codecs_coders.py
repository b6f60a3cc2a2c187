"""Ways to store the quantised matrices of a model without loss, each with its exact inverse.

A `Coder` turns int8 matrices into bytes, and back, given their shapes. General compressors see the matrices
one after the other as a string of bytes, plain or rearranged:

    shuffled       all bytes at even positions, then all at odd ones (#1493)
    sorted rows    each matrix's rows reordered so that neighbours are similar (#1855); the order is stored

The entropy coders are golf's own (golf/storage/entropy.py) and a range coder with one histogram per matrix.
lrzip (ZPAQ) runs as a program, where it is installed.

What a coder's code costs in a submission: golf/bench/codecs_decoder.py.
"""

from __future__ import annotations

import itertools
import lzma
import math
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from constriction import stream

from golf.storage import codec, entropy

Matrices = list[np.ndarray]
Shapes = Sequence[tuple[int, int]]
_COUNT = struct.Struct("<I")


class Coder(NamedTuple):
    """One way to store matrices. `decode` raises ValueError for bytes that `encode` cannot have made."""

    name: str
    encode: Callable[[Matrices], bytes]
    decode: Callable[[bytes, Shapes], Matrices]
    sources: tuple[Any, ...] = ()
    """Functions and modules that a submission must ship to decode."""
    program: str = ""
    """Program that encodes and decodes; empty if it is in this process."""

    @property
    def available(self) -> bool:
        """Whether this machine can run it."""
        return not self.program or shutil.which(self.program) is not None


def _flat(matrices: Iterable[np.ndarray]) -> bytes:
    return b"".join(each.tobytes() for each in matrices)


def _split(data: bytes, shapes: Shapes) -> Matrices:
    ends = list(itertools.accumulate((rows * columns for rows, columns in shapes), initial=0))
    if len(data) != ends[-1]:
        raise ValueError(f"{len(data)} bytes for matrices of {ends[-1]} numbers")
    symbols_N = np.frombuffer(data, np.int8)
    return [
        symbols_N[start:end].reshape(s)
        for (start, end), s in zip(itertools.pairwise(ends), shapes, strict=True)
    ]


def general(
    name: str,
    compress: Callable[[bytes], bytes],
    decompress: Callable[[bytes, int], bytes],
    stride: int = 1,
    program: str = "",
) -> Coder:
    """A compressor of bytes on the matrices one after the other, shuffled with this stride."""

    def encode(matrices: Matrices) -> bytes:
        data = _flat(matrices)
        return compress(codec.shuffle(data, stride)) if data else b""

    def decode(data: bytes, shapes: Shapes) -> Matrices:
        n_bytes = sum(rows * columns for rows, columns in shapes)
        return _split(codec.unshuffle(decompress(data, n_bytes), stride) if data else b"", shapes)

    sources = (codec.unshuffle, codec._strided_slices) if stride > 1 else ()
    return Coder(name, encode, decode, sources, program)


def similar_order(symbols_RC: np.ndarray) -> np.ndarray:
    """order_R: from the row of least norm, always the nearest row (Euclidean) not yet taken."""
    row_RC = symbols_RC.astype(np.float32)
    square_R = np.square(row_RC).sum(axis=1)
    product_RR = row_RC @ row_RC.T
    order_R, taken_R = np.empty(len(row_RC), np.int64), np.zeros(len(row_RC), bool)
    last = int(square_R.argmin()) if len(row_RC) else 0
    for place in range(len(row_RC)):
        order_R[place], taken_R[last] = last, True
        last = int(np.where(taken_R, np.inf, square_R - 2 * product_RR[last]).argmin())
    return order_R


def _order_bits(rows: int) -> int:
    return max(rows - 1, 0).bit_length()


def write_order(order_R: np.ndarray) -> bytes:
    """A permutation of R rows in R times ceil(log2 R) bits, padded to whole bytes."""
    bit_RU = order_R[:, None] >> np.arange(_order_bits(len(order_R))) & 1
    return np.packbits(bit_RU.astype(np.uint8)).tobytes()


def read_order(data: bytes, rows: int) -> np.ndarray:
    """The inverse of `write_order`. Raises ValueError for what is no permutation."""
    width = _order_bits(rows)
    bit_N = np.unpackbits(np.frombuffer(data, np.uint8), count=rows * width)
    order_R = bit_N.reshape(rows, width) @ (1 << np.arange(width))
    if not np.array_equal(np.sort(order_R), np.arange(rows)):
        raise ValueError(f"the stored order of {rows} rows is no permutation")
    return order_R


def sorted_rows(inner: Coder) -> Coder:
    """`inner` on matrices with similar rows beside each other; their orders precede its bytes."""

    def encode(matrices: Matrices) -> bytes:
        orders = [similar_order(each) for each in matrices]
        rearranged = [each[order] for each, order in zip(matrices, orders, strict=True)]
        return b"".join(map(write_order, orders)) + inner.encode(rearranged)

    def decode(data: bytes, shapes: Shapes) -> Matrices:
        sizes = [-(-rows * _order_bits(rows) // 8) for rows, _ in shapes]
        ends = list(itertools.accumulate(sizes, initial=0))
        if len(data) < ends[-1]:
            raise ValueError(f"{len(data)} bytes, but the orders of the rows take {ends[-1]}")
        matrices = []
        for symbols_RC, (start, end) in zip(
            inner.decode(data[ends[-1] :], shapes), itertools.pairwise(ends), strict=True
        ):
            matrix_RC = np.empty_like(symbols_RC)
            matrix_RC[read_order(data[start:end], len(symbols_RC))] = symbols_RC
            matrices.append(matrix_RC)
        return matrices

    return Coder(
        f"{inner.name}, sorted rows",
        encode,
        decode,
        (*inner.sources, read_order, _order_bits, decode),
        inner.program,
    )


def _join(parts: Iterable[bytes]) -> bytes:
    return b"".join(_COUNT.pack(len(part)) + part for part in parts)


def _parts(data: bytes) -> Iterator[bytes]:
    while data:
        if len(data) < _COUNT.size or len(data) < _COUNT.size + _COUNT.unpack_from(data)[0]:
            raise ValueError("the entropy coder's bytes are truncated")
        end = _COUNT.size + _COUNT.unpack_from(data)[0]
        yield data[_COUNT.size : end]
        data = data[end:]


def _small(array: np.ndarray) -> bytes:
    return codec.compress_brotli(array.tobytes(), 11)


def _unsmall(data: bytes, dtype: type, most: int) -> np.ndarray:
    content = codec.decompress_brotli(data, most * np.dtype(dtype).itemsize)
    if len(content) % np.dtype(dtype).itemsize:
        raise ValueError(f"{len(content)} bytes hold no whole number of {np.dtype(dtype)}")
    return np.frombuffer(content, dtype)


def _not_empty(shapes: Shapes) -> list[tuple[int, int]]:
    return [(rows, columns) for rows, columns in shapes if rows and columns]


def _with_empty(matrices: Matrices, shapes: Shapes) -> Matrices:
    rest = iter(matrices)
    return [next(rest) if math.prod(shape) else np.empty(shape, np.int8) for shape in shapes]


def _encode_contexts(matrices: Matrices) -> bytes:
    full = [each for each in matrices if each.size]
    if not full:
        return b""
    coded = entropy.encode(full)
    n_symbols = struct.pack("<H", coded.counts_XA.shape[1])
    return _join((coded.words.tobytes(), _small(coded.counts_XA), _small(coded.levels), n_symbols))


def _decode_contexts(data: bytes, shapes: Shapes) -> Matrices:
    full = _not_empty(shapes)
    if not full and not data:
        return _with_empty([], shapes)
    words, counts, levels, n_symbols = _exactly(4, data)
    width = int.from_bytes(n_symbols, "little")
    count_N = _unsmall(counts, np.uint32, 511 * 256)
    if not width or len(count_N) % width or len(words) % 4:
        raise ValueError("the entropy coder's arrays have impossible sizes")
    coded = entropy.Coded(
        np.frombuffer(words, np.uint32),
        count_N.reshape(-1, width),
        _unsmall(levels, np.uint8, max(sum(map(sum, full)), 1)),
    )
    return _with_empty(entropy.decode(coded, full), shapes)


def _exactly(n: int, data: bytes) -> list[bytes]:
    parts = list(itertools.islice(_parts(data), n + 1))
    if len(parts) != n:
        raise ValueError(f"{len(parts)} parts where {n} belong")
    return parts


def _encode_histograms(matrices: Matrices) -> bytes:
    full = [each.ravel().view(np.uint8) for each in matrices if each.size]
    if not full:
        return b""
    counts_XA = np.array([np.bincount(each, minlength=256) for each in full], np.uint32)
    coder = stream.queue.RangeEncoder()
    for symbols_N, counts_A in zip(full, counts_XA, strict=True):
        coder.encode(symbols_N.astype(np.int32), entropy._model(counts_A))
    return _join((_small(counts_XA), coder.get_compressed().tobytes()))


def _decode_histograms(data: bytes, shapes: Shapes) -> Matrices:
    full = _not_empty(shapes)
    if not full and not data:
        return _with_empty([], shapes)
    counts, words = _exactly(2, data)
    count_N = _unsmall(counts, np.uint32, 256 * len(full))
    if len(count_N) != 256 * len(full) or len(words) % 4:
        raise ValueError("the range coder's arrays have impossible sizes")
    coder, found = stream.queue.RangeDecoder(np.frombuffer(words, np.uint32)), []
    for shape, counts_A in zip(full, count_N.reshape(-1, 256), strict=True):
        if counts_A.sum(dtype=np.int64) != math.prod(shape):
            raise ValueError("a histogram does not match the size of its matrix")
        symbols_N = coder.decode(entropy._model(counts_A), math.prod(shape)).astype(np.uint8)
        if not np.array_equal(np.bincount(symbols_N, minlength=256), counts_A):
            raise ValueError("the range coder's words do not match their histograms")
        found.append(symbols_N.view(np.int8).reshape(shape))
    return _with_empty(found, shapes)


def _run_lrzip(data: bytes, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given"), Path(folder, "made")
        given.write_bytes(data)
        # One thread, since each compresses a part for itself; priority 0, since it would lower its own.
        command = ["lrzip", "-q", "-N", "0", "-p", "1", *options, "-o", str(made), str(given)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not made.exists():
            raise ValueError(f"lrzip ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
        return made.read_bytes()


def _lzma_without_context(data: bytes) -> bytes:
    """LZMA2 whose literals depend neither on the previous byte nor on their position."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def _compressor(name: str, level: int, stride: int = 1) -> Coder:
    compress, decompress = codec.CODECS[name]
    shuffled = ", shuffled" if stride > 1 else ""
    return general(f"{name} {level}{shuffled}", lambda data: compress(data, level), decompress, stride)


def coders() -> list[Coder]:
    """Every coder, general compressors first."""
    plain = [_compressor(name, level) for name, level in (("zstd", 22), ("brotli", 11), ("lzma", 9))]
    shuffled = [_compressor(name, level, 2) for name, level in (("zstd", 22), ("brotli", 11), ("lzma", 9))]
    bare = general("lzma 9, lc=0 pb=0", _lzma_without_context, codec.decompress_lzma)
    zpaq = general(
        "lrzip (ZPAQ)",
        lambda data: _run_lrzip(data, "-z", "-L", "9"),
        lambda data, n_bytes: _run_lrzip(data, "-d"),
        program="lrzip",
    )
    histograms = Coder(
        "range coder, a histogram per matrix",
        _encode_histograms,
        _decode_histograms,
        (_decode_histograms, _exactly, _parts, entropy._model, _encode_histograms),
    )
    contexts = Coder("golf's rANS with contexts", _encode_contexts, _decode_contexts, (entropy,))
    general_ones = [*plain, *shuffled, *map(sorted_rows, plain), bare, zpaq, sorted_rows(zpaq)]
    return [*general_ones, histograms, contexts]
