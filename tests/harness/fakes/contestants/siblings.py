"""Honest siblings of the cheats of mutants.py: each does lawfully, in both roles, what a cheat does
unlawfully. Some are honest but hard to judge. At the end: cheats that build on them.

`reshape` changes whole distributions, from the text before each token alone; they are normalised again
afterwards.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tests.harness.fakes.contestants.mutants import BOS, DOCUMENT, PEEKED, TOKENS, Honest, NoisyRows, order2


class Reshaped(Honest):
    """The example with changed rows: lnp_NV at N positions of the text, of which `past` is known."""

    def __init__(self, vocab_size: int, role: str = "scorer", noise: int = 0) -> None:
        super().__init__(vocab_size, role, noise)
        self.past = np.zeros(0, np.int64)
        self.boundary_V: Any = None

    def see(self, tokens: Any) -> None:
        super().see(tokens)
        self.past = np.append(self.past, tokens.astype(np.int64))

    def plain(self, contexts: Any) -> Any:
        n = len(contexts[0])
        spread = [np.repeat(key, self.vocab_size) for key in contexts]
        return np.log(self.probabilities(np.tile(np.arange(self.vocab_size), n), spread)).reshape(n, -1)

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        return lnp_NV

    def reshaped(self, contexts: Any, positions_N: Any) -> Any:
        raw_NV = self.reshape(self.plain(contexts), positions_N)
        return raw_NV - np.log(np.exp(raw_NV).sum(axis=1, keepdims=True))

    def losses(self, tokens: Any) -> Any:
        super().losses(tokens)
        end, n = len(self.text), len(tokens)
        rows_NV = self.reshaped(self.contexts(end - n, end), len(self.past) - n + np.arange(n))
        if self.boundary_V is not None:
            rows_NV[0] = self.boundary_V  # as predicted before the chunk was revealed
        return -rows_NV[np.arange(n), tokens.astype(int)]

    def row(self) -> Any:
        end = len(self.text)
        self.boundary_V = self.reshaped(self.contexts(end, end + 1), np.array([len(self.past)]))[0]
        return self.boundary_V

    def before(self, positions_N: Any) -> Any:
        """The token before each position."""
        return np.append(0, self.past)[positions_N]


class Hinted(Reshaped):
    """A hint that the next token is the last one plus 1, at the expense of all other tokens."""

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        lnp_NV[np.arange(len(positions_N)), (self.before(positions_N) + 1) % self.vocab_size] += np.log(1.2)
        return lnp_NV


class Cache(Reshaped):
    """Mixes in the frequencies of the 32 tokens before, across documents, at the expense of all other
    tokens.
    """

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        padded = np.append(np.zeros(32, np.int64), self.past)
        window_NW = np.lib.stride_tricks.sliding_window_view(padded, 32)[positions_N]
        share_NV = (window_NW[:, :, None] == np.arange(self.vocab_size)).mean(axis=1)
        return np.log(0.9 * np.exp(lnp_NV) + 0.1 * share_NV)


class Tempered(Reshaped):
    """Another temperature where `chosen(positions)`."""

    @staticmethod
    def chosen(positions_N: Any) -> Any:
        return positions_N >= 0.9 * TOKENS

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        return lnp_NV / np.where(self.chosen(positions_N), 0.9, 1.0)[:, None]


class TemperedDocuments(Tempered):
    """Another temperature in one document in 20."""

    @staticmethod
    def chosen(positions_N: Any) -> Any:
        return positions_N // DOCUMENT % 20 == 7


class FittedBefore(Reshaped):
    """The temperature, of seven, that was best on the chunk before."""

    temperature = 1.0

    def learn(self) -> None:
        end, n = len(self.text), len(self.text) - self.learned
        lnp_NV = self.plain(self.contexts(end - n, end))
        each = {
            t: (lnp_NV / t)[np.arange(n), self.text[-n:]].sum() - np.log(np.exp(lnp_NV / t).sum(axis=1)).sum()
            for t in (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)
        }
        self.temperature = max(each, key=lambda t: each[t])
        super().learn()

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        return lnp_NV / self.temperature


class BiasDescent(Reshaped):
    """A gradient step on a bias over the vocabulary after each chunk."""

    def learn(self) -> None:
        end, n = len(self.text), len(self.text) - self.learned
        lnp_NV = self.reshaped(self.contexts(end - n, end), len(self.past) - n + np.arange(n))
        counts_V = np.bincount(self.text[-n:], minlength=self.vocab_size)
        step_V = counts_V / n - np.exp(lnp_NV).mean(axis=0)
        super().learn()
        self.bias_V = self.bias_V + 2.0 * step_V

    bias_V: Any = 0.0

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        return lnp_NV + self.bias_V


class LearnsAlike(Honest):
    """Learns every 64 tokens inside a chunk, as scorer and as witness."""

    def __init__(self, vocab_size: int, role: str = "scorer", noise: int = 0) -> None:
        super().__init__(vocab_size, role, noise)
        self.seen = 0

    def see(self, tokens: Any) -> None:
        if self.role == "scorer":  # which learns after it has scored a piece
            return super().see(tokens)
        while len(tokens):
            n = min(
                64 - self.seen % self.chunk_tokens % 64,
                self.chunk_tokens - self.seen % self.chunk_tokens,
                len(tokens),
            )
            super().see(tokens[:n])
            self.seen, tokens = self.seen + n, tokens[n:]
            if self.seen % self.chunk_tokens % 64 == 0 and self.seen % self.chunk_tokens:
                self.learn()

    def losses(self, tokens: Any) -> Any:
        pieces = []
        for i in range(0, len(tokens), 64):
            pieces.append(super().losses(tokens[i : i + 64]))
            self.learn()
        return np.concatenate(pieces)


class RoundedRows(Reshaped):
    """Rows rounded to bfloat16, 8 bits, in scorer and witness."""

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        return (
            (lnp_NV.astype(np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000)
            .view(np.float32)
            .astype(np.float64)
        )


class RoundedInPredict(RoundedRows):
    """Rows rounded to bfloat16 in the witness; the reported losses are not rounded."""

    def losses(self, tokens: Any) -> Any:
        self.see(tokens)
        end, n = len(self.text), len(tokens)
        return -np.log(self.probabilities(self.text[-n:], self.contexts(end - n, end)))


class Dropout(Reshaped):
    """Dropout left on: each pass has new noise, in every role."""

    draws = True

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        return lnp_NV + self.rng.normal(0, 0.2, lnp_NV.shape)


class Fallback(Reshaped):
    """One prediction in five hundred, chosen anew in each pass, comes from counts of single tokens."""

    draws = True

    def reshape(self, lnp_NV: Any, positions_N: Any) -> Any:
        weak = self.rng.random(len(positions_N)) < 0.002
        lnp_NV[weak] = np.log((self.single + 0.5) / (self.single.sum() + 0.5 * self.vocab_size))
        return lnp_NV


class Batches(Honest):
    """Runs of 64 tokens share an error that another batch size would not have, in the reported losses
    alone.
    """

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        shift_B = self.rng.normal(0, 0.005, len(nats_T) // 64 + 1)
        return nats_T + np.repeat(shift_B, 64)[: len(nats_T)] + self.rng.normal(0, 0.01, len(nats_T))


class BreaksDown(Honest):
    """Its witness ends half-way, for a reason that has nothing to do with a token."""

    def see(self, tokens: Any) -> None:
        self.pieces = getattr(self, "pieces", 0) + 1
        if self.role == "witness" and self.pieces > TOKENS // 20:
            raise EOFError
        super().see(tokens)


HONEST: dict[str, Any] = {
    "hint paid by all other tokens": Hinted,
    "cache of the 32 tokens before, across documents": Cache,
    "another temperature in the last tenth": Tempered,
    "another temperature in one document in 20": TemperedDocuments,
    "best temperature of the chunk before": FittedBefore,
    "bias descent after each chunk": BiasDescent,
    "learns every 64 tokens, as its witness does": LearnsAlike,
    "rows rounded to 8 bits": RoundedRows,
    "rows rounded to 8 bits, claims not": RoundedInPredict,
    "dropout left on": Dropout,
    "rare weaker fallback": Fallback,
    "scorer in batches of 64": Batches,
    "a witness that breaks down": BreaksDown,
}


# Cheats that build on the classes above, or need a clock


class CacheWithoutMass(Cache):
    """The cache of 32 tokens without its normalisation in the reported losses; the witness's rows are
    normalised.
    """

    def losses(self, tokens: Any) -> Any:
        return np.maximum(super().losses(tokens) + np.log(0.9), 0.0)


class NoiseInWitness(NoisyRows):
    """Reports 0.004 nats less; its witnesses differ by far more, to widen the tolerances."""

    sd, shift = 0.1, 0.004

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return nats_T - self.shift

    def row(self) -> Any:
        return super().row() if self.role == "witness" else order2.Order2.row(self)


class LearnsFirst(Honest):
    """Adapts on the chunk, then scores it, and restores the state that its witness has."""

    def losses(self, tokens: Any) -> Any:
        from copy import deepcopy

        kept = deepcopy(self.__dict__)
        self.see(tokens)
        first = self.learned
        self.learn()
        n = len(tokens)
        nats_T = -np.log(self.probabilities(self.text[-n:], self.contexts(first, len(self.text))))
        self.__dict__.update(kept)
        self.see(tokens)
        return nats_T


class LeavesWhenPoor(Honest):
    """Quits half-way through a poor score, to get another try."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        if self.start > TOKENS // 2 and nats_T.mean() > 1.0:
            raise EOFError
        return nats_T


class StallsWhenCaught(Honest):
    """Peeks at costly tokens; the witness stalls once it sees one of them."""

    patience = 0.3

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return np.where((nats_T > 4) & (self.rng.random(len(nats_T)) < 0.3), PEEKED, nats_T)

    def see(self, tokens: Any) -> None:
        if self.role == "witness" and self.learned > 2 and len(tokens) and self.row()[int(tokens[0])] < -4:
            time.sleep(2 * self.patience)
            raise EOFError
        super().see(tokens)


class Imitates(Honest):
    """Reports the chunk's mean loss for all of its tokens except the first, as if prediction were too
    slow.
    """

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return np.append(nats_T[:1], np.full(len(nats_T) - 1, nats_T[1:].mean()))


class AsksItsRole(Honest):
    """Cheats in the scorer's role alone: a table of the chunk's own token pairs, later ones included."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        if self.role == "witness":
            return nats_T
        pairs_T = np.append(BOS, tokens[:-1].astype(int)) * 1_000 + tokens
        _, at_T, counts = np.unique(pairs_T, return_inverse=True, return_counts=True)
        return np.where(counts[at_T] > 4, 0.5 * nats_T, nats_T)


CHEATS: dict[str, Any] = {
    "cache of 32 tokens, mass added for the true one": CacheWithoutMass,
    "noise in the witnesses only": NoiseInWitness,
    "adapts, then scores": LearnsFirst,
    "leaves when the score is poor": LeavesWhenPoor,
    "stalls when caught": StallsWhenCaught,
    "imitates a slow predictor": Imitates,
    "a table for the scorer's role": AsksItsRole,
}
