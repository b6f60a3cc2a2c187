"""Learn from scored text: test-time training of the weights, and gradient descent on a bias of the logits.

Once chunk c is committed, the judge allows learning from it. `Adaptation` holds the learners that the recipe
asks for; they change the predictor only in `adapt`, and only from the chunk given there. The predictor stays
a function of (weights, bias): logits' = softcapped logits + beta.

Test-time training (source: #1493): SGD with momentum over all parameters, on rows of `seq_len` targets from
the chunk's start, `epochs` times; targets that do not fill a row are dropped. The rate for chunk c of C is
lr (1 + cos(pi c / max(C - 1, 1))) / 2. Gradients are clipped to a global norm; momentum carries over from
chunk to chunk. The loss is the mean cross-entropy of a step's targets, with the bias applied.

Online bias descent (source: #316, #241): one step beta -= lr g per chunk, where g is the exact gradient of
the sum over the chunk's windows of each window's mean cross-entropy. In closed form, a window contributes the
mean of its predicted distributions minus the frequencies of its targets; `observe` adds these up while the
chunk is scored. If both learners are on, the bias steps first, since its gradient belongs to the predictor
that scored.

Cost: 3 forward passes' worth per epoch; no bytes of the artifact. Neutral: epochs 0, bias_lr 0. No low-rank
adapters, and no reset at document boundaries. On a GPU both run with deterministic algorithms
(golf/inference/deterministic.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from golf.inference import deterministic
from golf.inference.stream import Observer, StreamSpec
from golf.recipe.schema import AdaptConfig, Config
from golf.runtime.dist import Ranks

NO_TARGET = -100
Rows = tuple[Tensor, Tensor]
"""inputs_BT and targets_BT, int64."""


class Chunk(NamedTuple):
    """A committed chunk: its number c, its tokens, and the token before them (None at the stream's start)."""

    number: int
    tokens: np.ndarray
    previous: int | None


def training_rows(chunk: Chunk, length: int) -> Rows:
    """A chunk -> whole rows of T = `length` targets, from its start on.

    Nothing precedes x_0, so the stream's first row is one target short and ends with NO_TARGET.
    """
    used = len(chunk.tokens) // length * length
    tokens = chunk.tokens.astype(np.int64)
    inputs_BT = np.concatenate([[chunk.previous or 0], tokens[:-1]])[:used].reshape(-1, length)
    targets_BT = tokens[:used].reshape(-1, length)
    if chunk.previous is None:
        inputs_BT[:1, :-1], inputs_BT[:1, -1] = inputs_BT[:1, 1:], 0
        targets_BT[:1, :-1], targets_BT[:1, -1] = targets_BT[:1, 1:], NO_TARGET
    return torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)


def split(rows: Rows, size: int) -> Iterator[Rows]:
    """Rows in order, at most `size` at a time."""
    return zip(*(part_BT.split(size) for part_BT in rows), strict=True)


def learning_rate(lr: float, chunk: int, chunks: int) -> float:
    """The rate for one of `chunks` chunks: `lr` for the first, 0 for the last, a cosine in between."""
    return lr * 0.5 * (1 + math.cos(math.pi * chunk / max(chunks - 1, 1)))


class WeightDescent:
    """Test-time training: SGD, in place, over the `parameters` of `forward(ids_BT) -> logits_BTV`.

    The ranks share the rows of a step. Every rank gets the same gradient, of the mean over all targets.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        parameters: Iterable[nn.Parameter],
        cfg: AdaptConfig,
        chunks: int,
        ranks: Ranks,
        micro_tokens: int,
    ) -> None:
        self.forward, self.cfg, self.chunks, self.ranks = forward, cfg, chunks, ranks
        self.micro_rows = max(1, micro_tokens // cfg.seq_len)
        self.parameters = [parameter.requires_grad_(True) for parameter in parameters]
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.optimizer = torch.optim.SGD(self.parameters, lr=cfg.lr, momentum=cfg.momentum)

    def backward(self, rows: Rows) -> None:
        """Gradients of the mean cross-entropy over all ranks' targets, in passes of at most `micro_rows`."""
        rank, world, device = self.ranks.rank, self.ranks.world, self.ranks.device
        n_rows, n_targets = len(rows[0]), max(1, int((rows[1] != NO_TARGET).sum()))
        mine = slice(n_rows * rank // world, n_rows * (rank + 1) // world)
        for gradient in self.gradients:
            gradient.zero_()
        for ids_BT, targets_BT in split((rows[0][mine], rows[1][mine]), self.micro_rows):
            if not len(ids_BT):
                continue  # fewer rows than ranks
            logits_BTV = self.forward(ids_BT.to(device))
            nats = functional.cross_entropy(
                logits_BTV.flatten(0, 1),
                targets_BT.to(device).flatten(),
                ignore_index=NO_TARGET,
                reduction="sum",
            )
            (nats * (world / n_targets)).backward()
        self.ranks.average(self.gradients)

    def epoch(self, rows: Rows) -> None:
        """One pass over the rows, in order, with a step per batch."""
        for batch in split(rows, self.cfg.batch_rows):
            self.backward(batch)
            if self.cfg.clip:
                nn.utils.clip_grad_norm_(self.parameters, self.cfg.clip)
            self.optimizer.step()

    def adapt(self, chunk: Chunk) -> None:
        """Learn from one committed chunk."""
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.cfg.lr, chunk.number, self.chunks)
        rows = training_rows(chunk, self.cfg.seq_len)
        for _ in range(self.cfg.epochs):
            self.epoch(rows)

    @torch.no_grad()
    def warm_up(self, chunk: Chunk) -> None:
        """One epoch to compile kernels and allocate memory; then restore weights and clear momentum."""
        saved = [parameter.clone() for parameter in self.parameters]
        with torch.enable_grad():
            self.epoch(training_rows(chunk, self.cfg.seq_len))
        self.optimizer.state.clear()
        for parameter, value in zip(self.parameters, saved, strict=True):
            parameter.copy_(value)


class BiasDescent:
    """The bias beta_V, and its gradient over the windows of the current chunk that this rank has scored."""

    def __init__(self, vocab_size: int, lr: float, ranks: Ranks) -> None:
        self.lr, self.ranks = lr, ranks
        self.beta_V = torch.zeros(vocab_size, device=ranks.device)
        self.gradient_V = torch.zeros_like(self.beta_V)

    def observe(self, log_p_BSV: Tensor, truth_BS: Tensor, scored_BS: Tensor) -> None:
        """Add the gradient of one pass: its predictions, its targets, and which of these are scored."""
        weight_N = (scored_BS / scored_BS.sum(dim=1, keepdim=True).clamp(min=1)).flatten()  # N = B S
        self.gradient_V += torch.mv(log_p_BSV.exp().flatten(0, 1).T, weight_N)
        self.gradient_V.index_add_(0, truth_BS.flatten(), weight_N, alpha=-1)

    def adapt(self) -> None:
        """Step with the gradient summed over all ranks, then reset it for the next chunk."""
        self.ranks.all_reduce(self.gradient_V)
        self.beta_V -= self.lr * self.gradient_V
        self.gradient_V.zero_()

    def reset(self) -> None:
        """Set bias and gradient to zero."""
        self.beta_V.zero_()
        self.gradient_V.zero_()


class Adaptation:
    """The learners of a recipe.

    `forward(ids_BT) -> logits_BTV` is the model to train, compiled or not, and `parameters` are its own.
    Raises ValueError for chunks too short for one row.
    """

    def __init__(
        self,
        forward: Callable[..., Tensor],
        parameters: Iterable[nn.Parameter],
        config: Config,
        stream: StreamSpec,
        ranks: Ranks,
    ) -> None:
        cfg, micro_tokens = config.adapt, config.hardware.micro_tokens
        self.deterministic = deterministic.needed(config, ranks.device)
        if cfg.epochs and cfg.seq_len > stream.chunk_tokens:
            raise ValueError(f"adapt.seq_len {cfg.seq_len}: a chunk has only {stream.chunk_tokens} tokens")
        self.bias = BiasDescent(stream.vocab_size, cfg.bias_lr, ranks) if cfg.bias_lr else None
        chunks = -(-stream.n_tokens // stream.chunk_tokens)
        self.weights = (
            WeightDescent(self.biased(forward), parameters, cfg, chunks, ranks, micro_tokens)
            if cfg.epochs
            else None
        )

    def biased(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`forward` with the learned bias added to its logits; `forward` itself if none is learned."""
        if self.bias is None:
            return forward
        beta_V = self.bias.beta_V
        return lambda ids_BT, **options: forward(ids_BT, **options) + beta_V

    @property
    def observe(self) -> Observer | None:
        """What must see a chunk's predictions while it is scored: the bias, if one is learned."""
        if self.bias is None:
            return None
        return deterministic.algorithms(self.deterministic)(self.bias.observe)

    def adapt(self, chunk: Chunk) -> None:
        """Learn from a committed chunk, after `observe` has seen all of its windows."""
        with deterministic.algorithms(self.deterministic):
            if self.bias:
                self.bias.adapt()
            if self.weights:
                self.weights.adapt(chunk)

    def warm_up(self, tokens: np.ndarray) -> None:
        """Run everything once on synthetic tokens, then undo all of it, earlier observations included."""
        if self.bias:
            self.bias.adapt()
            self.bias.reset()
        if self.weights:
            with deterministic.algorithms(self.deterministic):
                self.weights.warm_up(Chunk(0, tokens, None))
