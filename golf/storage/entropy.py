"""Entropy coding of quantised matrices by rANS with static histograms, one per magnitude of numbers.

int8 matrices become `words` (the coder's stack), `counts_XA` (how often symbol a occurs in context x) and
`levels` (one small number per row and column). `decode` is the exact inverse. The context of a number is the
level of its row plus that of its column. Levels are half octaves of the mean square, so numbers of similar
magnitude share a histogram across matrices. The words reach the Shannon bound of the histograms,
`entropy_bytes(counts_XA)`, to within a few bytes.

A general compressor needs 0.5 to 2 % more than the histogram's entropy for such symbols, because it looks for
repeats that do not exist and its code words have whole bits. Contexts help if rows or columns differ in
scale: with a floor on the row steps, or in a matrix that is not rotated. A matrix that they do not help gets
one level for all rows and columns. Nearly equal rows, such as those of tokens rarely seen in training, are
better left to a general compressor, which finds repeats.

The decoder depends on integers only, so the same matrices give the same bytes on every machine. The coder's
stack starts with the word 1 and must end with it, and the decoded symbols must match `counts_XA`; otherwise,
as for truncated, extended or foreign words, ValueError is raised. Only the shapes that the caller expects
determine how much memory is used.

Neutral: not called. Source: rANS by Duda (arXiv:1311.2540), the coder of the constriction library (Bamler,
arXiv:2201.01741). Correlation between neighbours is not modelled. Counts and levels, small numbers and mostly
zero, are compressed by golf/storage/codec.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from constriction import stream

# `stream.stack` and `stream.model` are attributes of a compiled module; they cannot be imported.
AnsCoder, Categorical = stream.stack.AnsCoder, stream.model.Categorical

PRECISION = 24
"""Bits of the coder's probabilities, and the most bits that a symbol costs."""
EMPTY_STACK = np.array([1], np.uint32)
"""The stack before the first symbol is pushed and after the last is popped."""
LEVELS = 45
"""Levels of a mean square are 0 .. 44, in half octaves from 2^-8 (nearly all numbers 0) to 2^14 (127^2)."""
UNIT_LEVEL = 16
"""The level of mean square 2^0; also the level of a column that does not differ from its rows."""
_THRESHOLDS = [
    math.ldexp(math.sqrt(math.sqrt((2, 8)[half % 2])), half // 2)
    for half in range(-UNIT_LEVEL, LEVELS - 1 - UNIT_LEVEL)
]
"""The mean squares between neighbouring levels."""
_INVERSE = np.array(
    [int(math.ldexp(math.sqrt(1 + half % 2), 30 - (half + 1) // 2)) for half in range(LEVELS)]
)
"""2^22 divided by the mean square of each level, as whole numbers."""


class Coded(NamedTuple):
    """Encoded matrices: words (uint32), counts_XA (uint32), levels (uint8, for each matrix its rows', then
    its columns'). The A symbols are -(A // 2) .. A - A // 2 - 1.
    """

    words: np.ndarray
    counts_XA: np.ndarray
    levels: np.ndarray


def entropy_bytes(counts_XA: np.ndarray) -> float:
    """Shannon bound in bytes of symbols with these counts [..., A], each row having its own histogram."""
    counts_XA = counts_XA.astype(np.float64)
    p_XA = counts_XA / np.maximum(counts_XA.sum(axis=-1, keepdims=True), 1)
    return float(-(counts_XA * np.log2(np.where(p_XA > 0, p_XA, 1))).sum() / 8)


def shannon_bytes(symbols: np.ndarray) -> float:
    """Shannon bound in bytes of an int8 array of any shape, with one histogram and no contexts."""
    return entropy_bytes(np.bincount(symbols.ravel().view(np.uint8), minlength=256))


def _row_levels(square_RC: np.ndarray) -> np.ndarray:
    """uint8 level of each row's mean square: a sum of integers, one division, thresholds from exact roots."""
    return np.searchsorted(_THRESHOLDS, square_RC.sum(axis=1) / square_RC.shape[1]).astype(np.uint8)


def _column_levels(square_RC: np.ndarray, level_R: np.ndarray) -> np.ndarray:
    """uint8 level of each column's mean square relative to that expected from the levels of its rows."""
    return np.searchsorted(_THRESHOLDS, _INVERSE[level_R] @ square_RC / (len(square_RC) << 22)).astype(
        np.uint8
    )


def _levels(symbols_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels of a matrix that vary by row, by column, by both or not at all: whichever takes fewest bytes."""
    square_RC = np.square(symbols_RC, dtype=np.int64)
    rows, columns = square_RC.shape
    constant_R = np.broadcast_to(_row_levels(square_RC.reshape(1, -1)), rows)
    constant_C = np.full(columns, UNIT_LEVEL, np.uint8)
    choices = [
        (level_R, level_C)
        for level_R in (constant_R, _row_levels(square_RC))
        for level_C in (constant_C, _column_levels(square_RC, level_R))
    ]
    return min(choices, key=lambda levels: _cost(symbols_RC, *levels))


def _cost(symbols_RC: np.ndarray, level_R: np.ndarray, level_C: np.ndarray) -> float:
    """Shannon bound in bytes of a matrix and its levels, plus a penalty of one byte per non-zero count."""
    bin_RC = np.add.outer(level_R, level_C, dtype=np.int64) << 8 | symbols_RC.view(np.uint8)
    counts_XA = np.bincount(bin_RC.ravel(), minlength=2 * LEVELS << 8).reshape(-1, 256)
    return np.count_nonzero(counts_XA) + sum(
        map(entropy_bytes, (counts_XA, np.bincount(level_R), np.bincount(level_C)))
    )


def _by_context(level_R: np.ndarray, level_C: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Coding order of a flattened matrix, grouped by context, and (context, length) of each group."""
    context_N = np.add.outer(level_R, level_C, dtype=np.uint16).ravel()
    lengths = np.bincount(context_N)
    return np.argsort(context_N, kind="stable"), [(int(x), int(lengths[x])) for x in np.flatnonzero(lengths)]


def _model(counts_A: np.ndarray) -> Any:
    """The coder's model of one context: probabilities proportional to the counts to 24 bits, none of them 0.

    The library gives each symbol 2^-24 and distributes the rest in proportion to floats. Whole numbers that
    sum to exactly that rest are used unchanged.
    """
    rest = 2**PRECISION - len(counts_A)
    p_A = counts_A.astype(np.int64) * rest // int(counts_A.sum(dtype=np.int64))
    p_A[counts_A.argmax()] += rest - p_A.sum()
    return Categorical(p_A.astype(np.float64), perfect=False)


def _models(counts_XA: np.ndarray) -> dict[int, Any]:
    return {int(x): _model(counts_XA[x]) for x in np.flatnonzero(counts_XA.any(axis=1))}


def encode(matrices: Sequence[np.ndarray]) -> Coded:
    """int8 matrices (at least one, none empty) -> what `decode` needs besides their shapes.

    Raises ValueError for other input.
    """
    if not matrices or any(each.dtype != np.int8 or each.ndim != 2 or each.size == 0 for each in matrices):
        raise ValueError("entropy coding takes int8 matrices, at least one, none of them empty")
    n_symbols = max(2, *(max(-2 * int(each.min()), 2 * int(each.max()) + 1) for each in matrices))
    levels = [_levels(each) for each in matrices]
    groups: list[tuple[int, np.ndarray]] = []
    for each, (level_R, level_C) in zip(matrices, levels, strict=True):
        order, lengths = _by_context(level_R, level_C)
        symbols_N = each.ravel()[order].astype(np.int32) + n_symbols // 2
        ends = itertools.accumulate(length for _, length in lengths)
        groups += [(x, symbols_N[end - length : end]) for (x, length), end in zip(lengths, ends, strict=True)]
    counts_XA = np.zeros((1 + max(x for x, _ in groups), n_symbols), np.uint32)
    for x, symbols in groups:
        counts_XA[x] += np.bincount(symbols, minlength=n_symbols).astype(np.uint32)
    stack, models = AnsCoder(EMPTY_STACK), _models(counts_XA)
    for x, symbols in reversed(groups):
        stack.encode_reverse(symbols, models[x])
    return Coded(
        stack.get_compressed(), counts_XA, np.concatenate([part for pair in levels for part in pair])
    )


def _checked_levels(coded: Coded, shapes: Sequence[tuple[int, ...]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (row levels, column levels) of each matrix. Raises ValueError if the arrays are inconsistent."""
    words, counts_XA, levels = coded
    for array, dtype, ndim in ((words, np.uint32, 1), (counts_XA, np.uint32, 2), (levels, np.uint8, 1)):
        if array.dtype != dtype or array.ndim != ndim:
            raise ValueError(
                f"entropy-coded {array.dtype} of rank {array.ndim} where {np.dtype(dtype)} of rank {ndim} "
                "belongs"
            )
    if not 2 <= counts_XA.shape[1] <= 256:
        raise ValueError(f"entropy-coded histograms of {counts_XA.shape[1]} symbols; int8 has 2 to 256")
    if len(levels) != sum(rows + columns for rows, columns in shapes):
        raise ValueError(f"{len(levels)} levels for matrices of {sum(map(sum, shapes))} rows and columns")
    ends = list(itertools.accumulate(itertools.chain.from_iterable(shapes)))
    parts = np.split(levels, ends[:-1])
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    size_X = np.zeros(511, np.int64)
    for level_R, level_C in pairs:
        found_X = np.convolve(np.bincount(level_R), np.bincount(level_C))
        size_X[: len(found_X)] += found_X
    if not np.array_equal(np.trim_zeros(size_X, "b"), counts_XA.sum(axis=1, dtype=np.int64)):
        raise ValueError("entropy-coded histograms do not match the numbers of symbols in their contexts")
    return pairs


def decode(coded: Coded, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The int8 matrices, given their shapes. Raises ValueError if the arrays are inconsistent."""
    levels, (words, counts_XA, _) = _checked_levels(coded, shapes), coded
    stack, models = AnsCoder(words.astype(np.uint32)), _models(counts_XA)
    n_symbols, found_XA = counts_XA.shape[1], np.zeros_like(counts_XA)
    matrices: list[np.ndarray] = []
    for shape, (level_R, level_C) in zip(shapes, levels, strict=True):
        order, lengths = _by_context(level_R, level_C)
        matrix_N, start = np.empty(len(order), np.int8), 0
        for x, length in lengths:
            symbols = stack.decode(models[x], length)
            found_XA[x] += np.bincount(symbols, minlength=n_symbols).astype(np.uint32)
            matrix_N[order[start : start + length]] = symbols - n_symbols // 2
            start += length
        matrices.append(matrix_N.reshape(shape))
    if not np.array_equal(stack.get_compressed(), EMPTY_STACK) or not np.array_equal(found_XA, counts_XA):
        raise ValueError("entropy-coded words do not match their histograms: truncated, corrupted or forged")
    return matrices
