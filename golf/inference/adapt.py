"""Learning from what was scored: test-time training of the weights, and online descent of a bias of the
logits.

What: after chunk c is committed the judge allows it to be learned from. `Adaptation` holds what the recipe
asks for, and changes the predictor only there, in `adapt`, from the chunk that it is handed. The predictor
stays a function of (weights, bias): logits' = softcapped logits + beta.

Test-time training (source: #1493): SGD with momentum over all parameters, on rows of `seq_len` targets from
the chunk's start, `epochs` times; targets that fill no row are left out; rate lr (1 + cos(pi c / max(C - 1,
1))) / 2 for chunk c of C; gradients clipped to a global norm; momentum kept from chunk to chunk. The loss is
the mean cross-entropy of a step's targets in the predictor with its bias.

Online bias descent (source: #316, #241): one step beta -= lr g a chunk, where g is the exact gradient of the
sum over the chunk's windows of each window's mean cross-entropy. In closed form a window contributes the mean
of its predicted distributions less the frequencies of its targets, which `watch` sums up while the chunk is
scored. Where both are on, the bias takes its step first: its gradient is that of the predictor that scored.

Cost: 3 plain passes an epoch; no byte of the artifact. Neutral: epochs 0, bias_lr 0. Not covered: low-rank
adapters, resets at document borders, and tokens that are not scored yet, of which nothing here ever hears.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from golf.recipe.schema import AdaptConfig
from golf.runtime.dist import Ranks

NO_TARGET = -100
Rows = tuple[Tensor, Tensor]
"""inputs_BT and targets_BT, int64."""
Watch = Callable[[Tensor, Tensor, Tensor], None]


class Chunk(NamedTuple):
    """A committed chunk: its number c, its tokens, and the one before them (None at the stream's start)."""

    number: int
    tokens: np.ndarray
    before: int | None


def sequences(chunk: Chunk, length: int) -> Rows:
    """A chunk -> rows of T = `length` targets from its start on, whole ones only.

    Nothing precedes x_0, so the stream's first row is one target short: it has NO_TARGET at its end.
    """
    used = len(chunk.tokens) // length * length
    tokens = chunk.tokens.astype(np.int64)
    inputs_BT = np.concatenate([[chunk.before or 0], tokens[:-1]])[:used].reshape(-1, length)
    targets_BT = tokens[:used].reshape(-1, length)
    if chunk.before is None:
        inputs_BT[:1, :-1], inputs_BT[:1, -1] = inputs_BT[:1, 1:], 0
        targets_BT[:1, :-1], targets_BT[:1, -1] = targets_BT[:1, 1:], NO_TARGET
    return torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)


def cut(rows: Rows, most: int) -> Iterator[Rows]:
    """Rows in order, at most `most` at a time."""
    return zip(*(part_BT.split(most) for part_BT in rows), strict=True)


def rate(lr: float, chunk: int, chunks: int) -> float:
    """Learning rate for one of `chunks` chunks: `lr` at the first, 0 at the last, a cosine between."""
    return lr * 0.5 * (1 + math.cos(math.pi * chunk / max(chunks - 1, 1)))


class WeightDescent:
    """Test-time training: SGD over `parameters`, which `forward(ids_BT) -> logits_BTV` reads, in place.

    The ranks share the rows of a step; each gradient is that of the mean over all its targets, on every rank
    the same."""

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
        """Gradients of the mean cross-entropy of the targets, over all ranks, in as few passes as memory
        allows."""
        rank, world, device = self.ranks.rank, self.ranks.world, self.ranks.device
        n_rows, n_targets = len(rows[0]), max(1, int((rows[1] != NO_TARGET).sum()))
        mine = slice(n_rows * rank // world, n_rows * (rank + 1) // world)
        for gradient in self.gradients:
            gradient.zero_()
        for ids_BT, targets_BT in cut((rows[0][mine], rows[1][mine]), self.micro_rows):
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
        """One pass over the rows, in order, a step for each batch of them."""
        for batch in cut(rows, self.cfg.batch_rows):
            self.backward(batch)
            if self.cfg.clip:
                nn.utils.clip_grad_norm_(self.parameters, self.cfg.clip)
            self.optimizer.step()

    def adapt(self, chunk: Chunk) -> None:
        """Learn from one committed chunk."""
        self.optimizer.param_groups[0]["lr"] = rate(self.cfg.lr, chunk.number, self.chunks)
        rows = sequences(chunk, self.cfg.seq_len)
        for _ in range(self.cfg.epochs):
            self.epoch(rows)

    @torch.no_grad()
    def rehearse(self, chunk: Chunk) -> None:
        """One epoch on made-up tokens, for kernels and memory; weights and momentum are then as they were."""
        saved = [parameter.clone() for parameter in self.parameters]
        with torch.enable_grad():
            self.epoch(sequences(chunk, self.cfg.seq_len))
        self.optimizer.state.clear()
        for parameter, value in zip(self.parameters, saved, strict=True):
            parameter.copy_(value)


class BiasDescent:
    """beta_V and the gradient of the chunk that is being scored, of which the ranks each watch a share of the
    windows."""

    def __init__(self, vocab_size: int, lr: float, ranks: Ranks) -> None:
        self.lr, self.ranks = lr, ranks
        self.beta_V = torch.zeros(vocab_size, device=ranks.device)
        self.gradient_V = torch.zeros_like(self.beta_V)

    def watch(self, log_p_BSV: Tensor, truth_BS: Tensor, scored_BS: Tensor) -> None:
        """Add the windows of one pass: their predictions, their targets, and which of these are scored."""
        weight_N = (scored_BS / scored_BS.sum(dim=1, keepdim=True).clamp(min=1)).flatten()  # N = B S
        self.gradient_V += torch.mv(log_p_BSV.exp().flatten(0, 1).T, weight_N)
        self.gradient_V.index_add_(0, truth_BS.flatten(), weight_N, alpha=-1)

    def adapt(self) -> None:
        """One step from what was watched, and a new sum for the next chunk."""
        self.ranks.all_reduce(self.gradient_V)
        self.beta_V -= self.lr * self.gradient_V
        self.gradient_V.zero_()

    def reset(self) -> None:
        """No bias, nothing watched."""
        self.beta_V.zero_()
        self.gradient_V.zero_()


class Adaptation:
    """The learners of a recipe, and `biased`: any forward of the model with the bias that they learn.

    `forward(ids_BT) -> logits_BTV` is the model, as it is to be trained, and `parameters` are its own. Raises
    ValueError for chunks too short for one row."""

    def __init__(
        self,
        forward: Callable[..., Tensor],
        parameters: Iterable[nn.Parameter],
        cfg: AdaptConfig,
        *,
        vocab_size: int,
        n_tokens: int,
        chunk_tokens: int,
        ranks: Ranks,
        micro_tokens: int,
    ) -> None:
        if cfg.epochs and cfg.seq_len > chunk_tokens:
            raise ValueError(f"adapt.seq_len {cfg.seq_len}: a chunk has only {chunk_tokens} tokens")
        self.bias = BiasDescent(vocab_size, cfg.bias_lr, ranks) if cfg.bias_lr else None
        chunks = -(-n_tokens // chunk_tokens)
        self.training = (
            WeightDescent(self.biased(forward), parameters, cfg, chunks, ranks, micro_tokens)
            if cfg.epochs
            else None
        )

    def biased(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`forward` with the bias added to its logits; `forward` itself where none is learned."""
        if self.bias is None:
            return forward
        beta_V = self.bias.beta_V
        return lambda ids_BT, **options: forward(ids_BT, **options) + beta_V

    @property
    def watch(self) -> Watch | None:
        """What wants to see the predictions of a chunk as they are made, if anything does."""
        return self.bias.watch if self.bias else None

    def adapt(self, chunk: Chunk) -> None:
        """Learn from a committed chunk, all of whose windows were watched."""
        if self.bias:
            self.bias.adapt()
        if self.training:
            self.training.adapt(chunk)

    def rehearse(self, tokens: np.ndarray) -> None:
        """Run everything once on made-up tokens and undo it exactly, what was watched before included."""
        if self.bias:
            self.bias.adapt()
            self.bias.reset()
        if self.training:
            self.training.rehearse(Chunk(0, tokens, None))
