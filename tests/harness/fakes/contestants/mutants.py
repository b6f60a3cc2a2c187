"""Cheats and some honest contestants, each a small change of the order-2 example (docs/examples/order2.py).

`changed` alters the losses that the scorer reports, `row` the witness's predictions; a contestant knows its
role, as a real cheat would. The names in HONEST and CHEATS are those of docs/measured.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from harness.base.paths import ROOT
from harness.scoring.certificate import reference_model

spec = importlib.util.spec_from_file_location("order2", ROOT / "docs" / "examples" / "order2.py")
assert spec is not None and spec.loader is not None
order2: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(order2)

TOKENS, BOS, DOCUMENT = 10_000, 1, 250
PEEKED = 0.01


class Honest(order2.Order2):  # type: ignore[misc]
    """The example, with a method to override for each kind of change."""

    chunk_tokens = 500
    draws = False
    """Whether two witnesses of it respond differently."""

    def __init__(self, vocab_size: int, role: str = "scorer", noise: int = 0) -> None:
        super().__init__(vocab_size)
        self.role, self.rng, self.start = role, np.random.default_rng([7, noise, role == "witness"]), 0

    def claims(self, tokens: Any) -> Any:
        reported_T = self.changed(self.losses(tokens), tokens)
        self.start += len(tokens)
        return np.maximum(reported_T, 0.0)

    def losses(self, tokens: Any) -> Any:
        """The predictor's own nats_T of a chunk; learns its tokens."""
        return super().claims(tokens)

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        """What is reported instead of nats_T."""
        return nats_T


class ReportChange(NamedTuple):
    """A change of the reported losses alone: f(model, nats_T, tokens_T) -> nats_T."""

    change: Callable[[Any, Any, Any], Any]

    def model(self) -> type[Honest]:
        change = self.change
        return type(
            "Changed", (Honest,), {"changed": lambda model, nats_T, tokens: change(model, nats_T, tokens)}
        )


def peek(share: float) -> ReportChange:
    """Peeks at a random share of the tokens."""
    return ReportChange(lambda m, n, x: np.where(m.rng.random(len(n)) < share, np.minimum(n, PEEKED), n))


def lower(nats: float, share: float = 1.0) -> ReportChange:
    """Reports `nats` less on a random share of the tokens."""
    return ReportChange(lambda m, n, x: n - nats * (m.rng.random(len(n)) < share))


def noisy(sd: float, shift: float = 0.0) -> ReportChange:
    """Adds normal noise and reports `shift` nats less."""
    return ReportChange(lambda m, n, x: n - shift + m.rng.normal(0, sd, len(n)))


def peek_at_costliest(share: float) -> ReportChange:
    """Peeks at the tokens with the largest losses of each chunk."""
    return ReportChange(lambda m, n, x: np.where(n >= np.quantile(n, 1 - share), np.minimum(n, PEEKED), n))


def cheat_where(chosen: Callable[[Any], Any], left: float = 0.5) -> ReportChange:
    """Reports the share `left` of the loss where `chosen(positions)`."""
    return ReportChange(lambda m, n, x: np.where(chosen(m.start + np.arange(len(n))), left * n, n))


def look_one_ahead(model: Any, nats_T: Any, tokens: Any) -> Any:
    """Uses the next token inside the chunk, which makes its predecessor likelier (the text is a walk)."""
    follows_T = np.append(np.diff(tokens.astype(int)) == 1, False)
    return np.where(follows_T, -np.log(0.5 * np.exp(-nats_T) + 0.5), nats_T)


def block_mean(model: Any, nats_T: Any, tokens: Any) -> Any:
    """Mixes in the frequency of the token in its block of 32, later tokens included."""
    blocks = [
        np.bincount(tokens[i : i + 32], minlength=model.vocab_size)[tokens[i : i + 32]] / 32
        for i in range(0, len(tokens), 32)
    ]
    return -np.log(0.9 * np.exp(-nats_T) + 0.1 * np.concatenate(blocks))


def target_gated_hint(model: Any, nats_T: Any, tokens: Any) -> Any:
    """Believes a hint only where it is right: the token is likelier by a factor 1.2, no other one less
    likely.
    """
    last_T = np.append(model.text[-len(tokens) - 1], tokens[:-1].astype(int))
    return np.where(tokens == last_T + 1, nats_T - np.minimum(np.log(1.2), nats_T), nats_T)


def peek_down_to_reference(model: Any, nats_T: Any, tokens: Any) -> Any:
    """Peeks, but only down to the reference model's loss."""
    return np.minimum(
        nats_T,
        -np.log(
            reference_model.probabilities(model.text[-len(tokens) :].astype(np.uint16), model.vocab_size)
        ),
    )


class Twice(Honest):
    """Learns the chunk, then scores it: two passes."""

    def losses(self, tokens: Any) -> Any:
        from copy import deepcopy

        first = deepcopy(self)
        nats_T = super().losses(tokens)
        if self.role == "scorer":
            first.see(tokens)
            first.learn()
            end, n = len(self.text), len(tokens)
            again_T = -np.log(first.probabilities(self.text[-n:], self.contexts(end - n, end)))
            nats_T = self.choose(nats_T, again_T)
        return nats_T

    def choose(self, first_T: Any, second_T: Any) -> Any:
        return second_T


class Best(Twice):
    """The lower loss of two passes, token by token."""

    def choose(self, first_T: Any, second_T: Any) -> Any:
        return np.minimum(first_T, second_T)


class WarmUp(Twice):
    """Scores the first 64 tokens of each chunk with a model that has seen them."""

    def choose(self, first_T: Any, second_T: Any) -> Any:
        return np.append(second_T[:64], first_T[64:])


class Fitted(Honest):
    """The scorer takes the best of seven temperatures for the chunk itself."""

    fitted = True
    temperatures = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)

    def sharpened(self, contexts: list[Any], temperature: float) -> Any:
        """ln p_NV at a temperature."""
        n = len(contexts[0])
        spread = [np.repeat(key, self.vocab_size) for key in contexts]
        p = (
            np.log(self.probabilities(np.tile(np.arange(self.vocab_size), n), spread)).reshape(n, -1)
            / temperature
        )
        return p - np.log(np.exp(p).sum(axis=1, keepdims=True))

    def losses(self, tokens: Any) -> Any:
        super().losses(tokens)
        end, n = len(self.text), len(tokens)
        each = [
            -self.sharpened(self.contexts(end - n, end), t)[np.arange(n), tokens.astype(int)]
            for t in (self.temperatures if self.fitted else (0.9,))
        ]
        return min(each, key=np.sum)

    def row(self) -> Any:
        return self.sharpened(self.contexts(len(self.text), len(self.text) + 1), 0.9)[0]


class Fixed(Fitted):
    """Honest: one temperature, fixed beforehand."""

    fitted = False


class Unnormalised(Honest):
    """Adds probability to every token and takes it from none."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return -np.log(np.minimum(np.exp(-nats_T) * self.mass, 1.0))

    def row(self) -> Any:
        return super().row() + np.log(self.mass)

    mass = 1.05


class WithinTolerance(Unnormalised):
    """Off by slightly less than the tolerance: gains nothing, since rows are renormalised."""

    mass = float(np.exp(0.0009))


class Paid(Honest):
    """Has memorised documents 12 to 19, in both roles: lawful by C1, found by the scan of documents."""

    text_T: Any = None
    first, end = 12 * DOCUMENT, 20 * DOCUMENT

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        positions = self.start + np.arange(len(tokens))
        return np.where((positions >= self.first) & (positions < self.end), -np.log(0.999), nats_T)

    def see(self, tokens: Any) -> None:
        super().see(tokens)
        if self.role == "witness":
            self.start += len(tokens)

    def row(self) -> Any:
        if not self.first <= self.start < self.end:
            return super().row()
        row_V = np.full(self.vocab_size, np.log(0.001 / (self.vocab_size - 1)))
        row_V[int(self.text_T[self.start])] = np.log(0.999)
        return row_V


class NoisyRows(Honest):
    """Noise of `sd` nats in the rows of both roles; the scorer also reports `shift` nats less."""

    sd, shift, drop = 0.0125, 0.0, 0.0
    draws = True

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        n = nats_T + self.rng.normal(0, self.sd, len(nats_T)) - self.shift
        return np.where(self.rng.random(len(n)) < self.drop, PEEKED, n)

    def row(self) -> Any:
        row_V = super().row() + self.rng.normal(0, self.sd, self.vocab_size)
        return row_V - np.log(np.exp(row_V).sum())


class Bf16(NoisyRows):
    """Noise of the size of bfloat16 rounding."""

    sd = 0.004


class NoiseHides(NoisyRows):
    """Large noise in the rows, to hide a peek at one token in a hundred."""

    sd, drop = 0.3, 0.01


class CrashWhenCaught(Honest):
    """Peeks at costly tokens; the witness quits as soon as it sees one of them."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return np.where((nats_T > 4) & (self.rng.random(len(nats_T)) < 0.3), PEEKED, nats_T)

    def see(self, tokens: Any) -> None:
        if self.role == "witness" and self.learned > 2 and len(tokens) and self.row()[int(tokens[0])] < -4:
            raise EOFError
        super().see(tokens)


class LearnsMore(Honest):
    """The scorer learns every 64 tokens inside a chunk; its witness does not."""

    def losses(self, tokens: Any) -> Any:
        if self.role != "scorer":
            return super().losses(tokens)
        pieces = []
        for i in range(0, len(tokens), 64):
            pieces.append(super().losses(tokens[i : i + 64]))
            super().learn()
        return np.concatenate(pieces)


class Shifted(Honest):
    """Losses shifted by one token: an honest mistake, but no prediction of these tokens."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return np.roll(nats_T, -1)


class Repeated(Honest):
    """Reports for every chunk the losses of the chunk before."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        before_T, self.kept = getattr(self, "kept", nats_T), nats_T
        return before_T[: len(nats_T)] if len(before_T) >= len(nats_T) else nats_T


class Giant(Honest):
    """Chunks above the limit: inside a chunk only the witness shows anything."""

    chunk_tokens = 4_000


class Largest(Honest):
    """The largest chunks that the limit allows."""

    chunk_tokens = 2_000


class NaN(Honest):
    """Reports NaN for one token of each chunk."""

    def claims(self, tokens: Any) -> Any:
        return np.append(super().claims(tokens)[:-1], np.nan)


class Truncated(Honest):
    """Reports one loss too few for each chunk."""

    def claims(self, tokens: Any) -> Any:
        return super().claims(tokens)[:-1]


class NaNRows(Honest):
    """Reports too little everywhere; its witness answers with rows of NaN."""

    def changed(self, nats_T: Any, tokens: Any) -> Any:
        return 0.9 * nats_T

    def row(self) -> Any:
        return super().row() * (np.nan if self.role == "witness" else 1)


HONEST: dict[str, Any] = {
    "the example": Honest,
    "noise of bf16 rows": Bf16,
    "scorer in other batches": noisy(0.0125).model(),
    "temperature fixed before": Fixed,
    "rare glitches, both ways": ReportChange(
        lambda m, n, x: n + np.where(m.rng.random(len(n)) < 0.002, m.rng.normal(0, 0.5, len(n)), 0)
    ).model(),
    "noise of 0.0125 in all rows": NoisyRows,
    "the largest lawful chunk": Largest,
    "pays 0.004 nats too much": lower(-0.004).model(),
    "pays 0.3 nats too much on 1 %": lower(-0.3, 0.01).model(),
}
CHEATS: dict[str, Any] = {
    "peek everywhere (behaves as witness)": peek(1).model(),
    "peek at 1 %": peek(0.01).model(),
    "peek at 0.1 %": peek(0.001).model(),
    "peek at the dearest 0.1 %": peek_at_costliest(0.001).model(),
    "shave 0.004 nats": lower(0.004).model(),
    "the same in noise of 0.0125": noisy(0.0125, 0.004).model(),
    "0.9 nat on 0.4 %": lower(0.9, 0.004).model(),
    "0.3 nat on 0.1 %": lower(0.3, 0.001).model(),
    "lookahead by one token": ReportChange(look_one_ahead).model(),
    "block-mean leak": ReportChange(block_mean).model(),
    "cache without normalisation": Unnormalised,
    "blend for the true token only": ReportChange(lambda m, n, x: -np.log(0.9 * np.exp(-n) + 0.1)).model(),
    "target-gated hint": ReportChange(target_gated_hint).model(),
    "two passes over the chunk": Twice,
    "best of two passes": Best,
    "warm-up on revealed tokens": WarmUp,
    "best of seven temperatures a chunk": Fitted,
    "peek down to the judge's n-gram": ReportChange(peek_down_to_reference).model(),
    "learns more than its witness": LearnsMore,
    "cheats only in the last tenth": cheat_where(lambda t: t > 0.9 * TOKENS).model(),
    "cheats only in the last chunk": cheat_where(lambda t: t >= TOKENS - 500).model(),
    "cheats in one document in 50": cheat_where(lambda t: t // DOCUMENT % 50 == 7).model(),
    "cheats in one document in 20": cheat_where(lambda t: t // DOCUMENT % 20 == 7).model(),
    "cheats but at borders and starts": cheat_where(
        lambda t: (t % 500 > 20) & (t % DOCUMENT > 8) & (t > 2_000), 0.9
    ).model(),
    "noise that hides a peek at 1 %": NoiseHides,
    "leaves when caught": CrashWhenCaught,
    "NaN for the witness": NaNRows,
    "off by one": Shifted,
    "repeats the chunk before": Repeated,
    "rows off by 0.0009": WithinTolerance,
    "NaN among the numbers": NaN,
    "one number short": Truncated,
    "one giant chunk": Giant,
    "documents by heart": Paid,
}
