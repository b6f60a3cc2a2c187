"""The judge's reference model: an adaptive n-gram that predicts every token from the text before it alone.

The certificate mixes a small share of it into the witness's rows, which bounds what any one token can have
gained (bound.py). It must be causal, normalised and cheap on 62 million tokens. It need not be good: each nat
by which it is worse makes G about a tenth larger. Interpolated absolute discounting (Ney, Essen and Kneser
1994) with counts of the earlier text only:

    P_0(x) = (n(x) + 1/2) / (t + V/2)                               Krichevsky and Trofimov
    P_k(x) = (max(n(ctx x) - D, 0) + D s(ctx) P_k-1(x)) / n(ctx)    P_k-1(x) where n(ctx) = 0

with s(ctx) the number of distinct tokens seen after ctx.

There is no loop over tokens: the counts before a position are ranks within groups of equal keys.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DISCOUNT = 0.75
ORDER = 2


def probabilities(
    tokens_T: npt.NDArray[np.uint16], vocab_size: int, order: int = ORDER
) -> npt.NDArray[np.float64]:
    """b_T: the probability of each token of the stream given those before it; b_0 is 1 / vocab_size.

    Every number lies in (0, 1], and at each position the probabilities of all tokens sum to 1. `order` is the
    number of tokens of context. Takes 0.5 to 1 s of CPU a million tokens.
    """
    tokens = tokens_T.astype(np.int64)
    n_tokens = len(tokens)
    assert vocab_size ** (order + 1) < 2**62, (
        f"{order} tokens of context over {vocab_size} entries do not fit a key"
    )
    assert n_tokens == 0 or int(tokens.max()) < vocab_size, (
        f"token {int(tokens.max())} of a vocabulary of {vocab_size}"
    )
    b_T = (_earlier(tokens_T)[0] + 0.5) / (np.arange(n_tokens) + 0.5 * vocab_size)
    context, base = np.zeros(n_tokens, np.int64), 1
    for length in range(1, order + 1):
        context[length:] += base * tokens[:-length]
        base *= vocab_size
        _discount(b_T[length:], context[length:], tokens[length:], vocab_size)
    return b_T


def _discount(
    b_T: npt.NDArray[np.float64],
    context_T: npt.NDArray[np.int64],
    tokens_T: npt.NDArray[np.int64],
    vocab_size: int,
) -> None:
    """Update the lower order's probabilities b_T by the counts of a longer context, in place."""
    seen_pair, _ = _earlier(context_T * vocab_size + tokens_T)
    seen, by_context = _earlier(context_T)
    is_new = (seen_pair == 0)[by_context]
    new = is_new.cumsum() - is_new  # distinct pairs before, over all contexts
    starts = np.flatnonzero(seen[by_context] == 0)
    distinct = np.empty(len(b_T), np.int64)
    distinct[by_context] = new - np.repeat(new[starts], np.diff(np.append(starts, len(b_T))))
    known = seen > 0
    counts = np.maximum(seen_pair[known] - DISCOUNT, 0)
    b_T[known] = (counts + DISCOUNT * distinct[known] * b_T[known]) / seen[known]


def _earlier(keys_T: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How often each key occurred before its position, and the stable order that sorts the keys."""
    order = np.argsort(keys_T, kind="stable")
    ordered = keys_T[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]
    counts = np.empty(len(ordered), np.int64)
    counts[order] = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    return counts, order
