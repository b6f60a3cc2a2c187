"""Entropy coding of quantised matrices: static histograms, one for each scale of number, on an rANS coder.

What: int8 matrices become `words` (the coder's stack), `counts_KS` (how often symbol s stands in context k)
and `levels` (one small number for each row and column). `decode` is the exact inverse. The context of a
number is its row's level plus its column's: half octaves of the mean square, so that numbers which are about
equally large share a histogram, whatever matrix they stand in. A histogram is a context's whole model, and
what it cannot know is the Shannon bound `entropy_bytes(counts_KS)`, which the words reach to a few bytes;
only the product of row and column scale is modelled.

Why: a general compressor spends 0.5 to 2 % more than the histogram's entropy on such symbols, because it
looks for repeats that are not there and its code words are whole bits. Contexts pay where rows or columns
differ in scale: below a floor of the row steps, or in the columns of a matrix that is not rotated; a matrix
where they would not pay takes one level for all rows and columns. Near-equal rows, as of tokens that training
has hardly seen, are better left to a general compressor, which finds repeats.

Integers decide everything that the decoder depends on; the same matrices give the same bytes on every
machine. The coder's stack begins with the word 1 and must be left with it, and the decoded symbols must be
counted as `counts_KS` says: words that are cut, longer or of something else are a ValueError. How much memory
is taken, the shapes that the caller expects decide alone.

Neutral value: not to call it. Sources: rANS by Duda (arXiv:1311.2540), the coder by the constriction library
(Bamler, arXiv:2201.01741). Not covered: correlation between neighbours, adaptive models, and the bytes of
counts and levels (small numbers, mostly zero: golf/storage/codec.py has them)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from constriction import stream

AnsCoder, Categorical = (
    stream.stack.AnsCoder,
    stream.model.Categorical,
)  # no modules that an import could name

PRECISION = 24
"""Bits of the coder's probabilities: a symbol costs at most so many."""
MARK = np.array([1], np.uint32)
"""The stack before the first symbol is pushed and after the last is popped."""
LEVELS = 45
"""Levels of a mean square are 0 .. 44, in half octaves from 2^-8 (hardly a number differs from 0) to 2^14
(127^2)."""
SAME = 16
"""The level of 2^0: of a column that is as its rows are."""
_BORDERS = [
    math.ldexp(math.sqrt(math.sqrt((2, 8)[half % 2])), half // 2) for half in range(-SAME, LEVELS - 1 - SAME)
]
_INVERSE = np.array(
    [int(math.ldexp(math.sqrt(1 + half % 2), 30 - (half + 1) // 2)) for half in range(LEVELS)]
)
"""2^22 divided by the mean square of each level, as whole numbers."""


class Coded(NamedTuple):
    """Matrices as `encode` leaves them: words [W] uint32, counts_KS [K, S] uint32, levels [sum of rows +
    columns] uint8.

    S symbols are -(S // 2) .. S - S // 2 - 1. Levels: of each matrix its rows', then its columns'.
    """

    words: np.ndarray
    counts_KS: np.ndarray
    levels: np.ndarray


def entropy_bytes(counts_KS: np.ndarray) -> float:
    """Shannon's bound in bytes for symbols drawn from rows of counts, each coded by its own row: any shape
    [..., S]."""
    counts_KS = counts_KS.astype(np.float64)
    share_KS = counts_KS / np.maximum(counts_KS.sum(axis=-1, keepdims=True), 1)
    return float(-(counts_KS * np.log2(np.where(share_KS > 0, share_KS, 1))).sum() / 8)


def shannon_bytes(symbols: np.ndarray) -> float:
    """The same bound for one int8 array of any shape under a histogram of its own, without contexts."""
    return entropy_bytes(np.bincount(symbols.ravel().view(np.uint8), minlength=256))


def _row_levels(square_RC: np.ndarray) -> np.ndarray:
    """uint8 level of each row's mean square: a sum of integers, one division, borders from exact roots."""
    return np.searchsorted(_BORDERS, square_RC.sum(axis=1) / square_RC.shape[1]).astype(np.uint8)


def _column_levels(square_RC: np.ndarray, level_R: np.ndarray) -> np.ndarray:
    """uint8 level of each column's mean square, beside what its rows' levels let expect."""
    return np.searchsorted(_BORDERS, _INVERSE[level_R] @ square_RC / (len(square_RC) << 22)).astype(np.uint8)


def _levels(symbols_RC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The levels of a matrix, told apart by row, by column, by both or not at all: whatever takes the fewest
    bytes."""
    square_RC = np.square(symbols_RC, dtype=np.int64)
    rows, columns = square_RC.shape
    same_R = np.broadcast_to(_row_levels(square_RC.reshape(1, -1)), rows)
    same_C = np.full(columns, SAME, np.uint8)
    choices = [
        (level_R, level_C)
        for level_R in (same_R, _row_levels(square_RC))
        for level_C in (same_C, _column_levels(square_RC, level_R))
    ]
    return min(choices, key=lambda levels: _cost(symbols_RC, *levels))


def _cost(symbols_RC: np.ndarray, level_R: np.ndarray, level_C: np.ndarray) -> float:
    """Bytes of a matrix and its levels by Shannon's bound, and one byte a count: what fitting a histogram
    gains by luck."""
    place_RC = np.add.outer(level_R, level_C, dtype=np.int64) << 8 | symbols_RC.view(np.uint8)
    counts_KS = np.bincount(place_RC.ravel(), minlength=2 * LEVELS << 8).reshape(-1, 256)
    return np.count_nonzero(counts_KS) + sum(
        map(entropy_bytes, (counts_KS, np.bincount(level_R), np.bincount(level_C)))
    )


def _by_context(level_R: np.ndarray, level_C: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Places of a flattened matrix in the order in which they are coded, and the (context, length) of each
    run of it."""
    context_N = np.add.outer(level_R, level_C, dtype=np.uint16).ravel()
    lengths = np.bincount(context_N)
    return np.argsort(context_N, kind="stable"), [(int(k), int(lengths[k])) for k in np.flatnonzero(lengths)]


def _model(counts_S: np.ndarray) -> Categorical:
    """The coder's model of one context, with probabilities as close to the counts as 24 bits go, none of them
    0.

    The library gives each symbol 2^-24 and shares out the rest in proportion to floats: whole numbers that
    sum to just this rest come out as they are."""
    rest = 2**PRECISION - len(counts_S)
    share_S = counts_S.astype(np.int64) * rest // int(counts_S.sum(dtype=np.int64))
    share_S[counts_S.argmax()] += rest - share_S.sum()
    return Categorical(share_S.astype(np.float64), perfect=False)


def _models(counts_KS: np.ndarray) -> dict[int, Categorical]:
    return {int(k): _model(counts_KS[k]) for k in np.flatnonzero(counts_KS.any(axis=1))}


def encode(matrices: Sequence[np.ndarray]) -> Coded:
    """int8 matrices [R, C], at least one, none of them empty -> what `decode` needs besides their shapes."""
    if not matrices or any(each.dtype != np.int8 or each.ndim != 2 or each.size == 0 for each in matrices):
        raise ValueError("entropy coding takes int8 matrices, at least one, none of them empty")
    n_symbols = max(2, *(max(-2 * int(each.min()), 2 * int(each.max()) + 1) for each in matrices))
    levels = [_levels(each) for each in matrices]
    runs: list[tuple[int, np.ndarray]] = []
    for each, (level_R, level_C) in zip(matrices, levels, strict=True):
        order, lengths = _by_context(level_R, level_C)
        symbols_N = each.ravel()[order].astype(np.int32) + n_symbols // 2
        ends = itertools.accumulate(length for _, length in lengths)
        runs += [(k, symbols_N[end - length : end]) for (k, length), end in zip(lengths, ends, strict=True)]
    counts_KS = np.zeros((1 + max(k for k, _ in runs), n_symbols), np.uint32)
    for k, symbols in runs:
        counts_KS[k] += np.bincount(symbols, minlength=n_symbols).astype(np.uint32)
    stack, models = AnsCoder(MARK), _models(counts_KS)
    for k, symbols in reversed(runs):
        stack.encode_reverse(symbols, models[k])
    return Coded(
        stack.get_compressed(), counts_KS, np.concatenate([part for pair in levels for part in pair])
    )


def _split(coded: Coded, shapes: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (row levels, column levels) of each matrix; ValueError where the three arrays contradict each
    other."""
    words, counts_KS, levels = coded
    for array, dtype, ndim in ((words, np.uint32, 1), (counts_KS, np.uint32, 2), (levels, np.uint8, 1)):
        if array.dtype != dtype or array.ndim != ndim:
            raise ValueError(
                f"entropy-coded {array.dtype} of rank {array.ndim} where {np.dtype(dtype)} of rank {ndim} "
                "belongs"
            )
    if not 2 <= counts_KS.shape[1] <= 256:
        raise ValueError(f"entropy-coded histograms of {counts_KS.shape[1]} symbols; int8 has 2 to 256")
    if len(levels) != sum(rows + columns for rows, columns in shapes):
        raise ValueError(f"{len(levels)} levels for matrices of {sum(map(sum, shapes))} rows and columns")
    ends = list(itertools.accumulate(itertools.chain.from_iterable(shapes)))
    parts = np.split(levels, ends[:-1])
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    expected_K = np.zeros(511, np.int64)
    for level_R, level_C in pairs:
        found_K = np.convolve(np.bincount(level_R), np.bincount(level_C))
        expected_K[: len(found_K)] += found_K
    if not np.array_equal(np.trim_zeros(expected_K, "b"), counts_KS.sum(axis=1, dtype=np.int64)):
        raise ValueError("entropy-coded histograms hold other numbers of symbols than their contexts")
    return pairs


def decode(coded: Coded, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The inverse of `encode`: int8 matrices of these shapes. Raises ValueError where the arrays contradict
    each other."""
    levels, (words, counts_KS, _) = _split(coded, shapes), coded
    stack, models = AnsCoder(words.astype(np.uint32)), _models(counts_KS)
    n_symbols, found_KS = counts_KS.shape[1], np.zeros_like(counts_KS)
    matrices: list[np.ndarray] = []
    for shape, (level_R, level_C) in zip(shapes, levels, strict=True):
        order, lengths = _by_context(level_R, level_C)
        matrix_N, start = np.empty(len(order), np.int8), 0
        for k, length in lengths:
            symbols = stack.decode(models[k], length)
            found_KS[k] += np.bincount(symbols, minlength=n_symbols).astype(np.uint32)
            matrix_N[order[start : start + length]] = symbols - n_symbols // 2
            start += length
        matrices.append(matrix_N.reshape(shape))
    if not np.array_equal(stack.get_compressed(), MARK) or not np.array_equal(found_KS, counts_KS):
        raise ValueError("entropy-coded words are not those of these histograms: cut, damaged or forged")
    return matrices
