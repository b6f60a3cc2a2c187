"""Predict a revealed stream: nats of a chunk, or distributions of next tokens, all by the same passes.

A `Predictor` holds a model as a callable `forward(ids_BT int64, last=n) -> logits_BnV float32` and applies
the window rule (golf/inference/windows.py). `score` gives -ln p(x_t | x_<t) for the targets of a chunk, `row`
the distribution of the next token, `rows` those of many contexts. Each is a window with the same inputs and,
unless windows are aligned to documents, the same length, so the three agree up to rounding that depends on
the batch size (below 1e-5 nats in float32). Logits become probabilities in float32, whatever the trunk's
dtype: |logsumexp| of a row stays below 1e-5.

Cost: W positions per S targets, so a fraction S/W of the positions is useful: 1/8 for window 512 and stride
64, 1/32 for 2048. Little of this cost can be saved without changing the predictions. After the first
attention, a position's state depends on where its window begins, so overlapping windows could share only
embeddings and the first layer's projections (2 % of the products; not done). In the last layer, queries,
feed-forward and head are computed only for the S targets, which saves 9 % for `hadamard-ve128` and 11 % for
`sp8192-parres-ttt` at window 2048 (27 % and 17 % in the pocket profile): scoring then costs as much as 29
passes over the text instead of 32. Cached keys and values, or a larger stride, would change the predictions;
so do windows aligned to documents, whose passes use every position of a document's first W.

The chunk's tokens go to the device once, and its numbers come back once: batches are gathered there.

`full` is an optional forward for few shapes, as a compiled model needs: each of `WindowRule.shapes` in full
batches, filled up with zeros, and full windows alone. If `singles`, up to an eighth of a batch is computed
one by one: on a GPU a single window takes much less time than a batch, though more than its share of one, and
may round differently. Neutral: None. The forwards may change between two calls (golf/inference/adapt.py
learns from what was scored).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from golf.inference.stream import Observer
from golf.inference.windows import TokenBuffer, WindowRule

Forward = Callable[..., Tensor]
ALONE_SHARE = 8
"""Up to one in this many windows of a batch are computed alone where shapes are compiled."""


class Predictor:
    """A model under the window rule; `device` is where the model is. `bos` aligns windows to documents."""

    def __init__(
        self,
        forward: Forward,
        *,
        window: int,
        stride: int,
        batch: int,
        bos: int | None = None,
        device: torch.device | str = "cpu",
        full: Forward | None = None,
        singles: bool = True,
    ) -> None:
        self.forward, self.full, self.batch = forward, full, batch
        self.most_alone = max(1, batch // ALONE_SHARE) if singles else 0
        self.rule = WindowRule(window, stride, bos)
        self.device = torch.device(device)

    def _logits(self, ids_BT: Tensor, targets: int) -> Tensor:
        """ids_BT -> logits_BSV, by `full` where it has this shape."""
        (rows, length), window = ids_BT.shape, self.rule.window
        if self.full is None or (length, targets) not in self.rule.shapes:
            return self.forward(ids_BT, last=targets)
        if rows <= self.most_alone:
            if targets == length:
                ids_BT, targets = functional.pad(ids_BT, (0, window - length)), window
            alone = [self.full(ids_1T, last=targets)[:, :length] for ids_1T in ids_BT.split(1)]
            return torch.cat(alone)
        missing = self.rule.rows(length, self.batch) - rows
        return self.full(functional.pad(ids_BT, (0, 0, 0, missing)), last=targets)[:rows]

    def _log_probs(self, ids_BT: Tensor, targets: int) -> Tensor:
        """ids_BT -> ln p_BSV of what follows each of the last S = `targets` inputs."""
        logits_BSV = self._logits(ids_BT, targets)
        if logits_BSV.dtype != torch.float32 or logits_BSV.shape[:2] != (len(ids_BT), targets):
            found = f"{logits_BSV.dtype} {tuple(logits_BSV.shape)}"
            raise ValueError(f"a model must give float32 logits of the last {targets} inputs; got {found}")
        return functional.log_softmax(logits_BSV, dim=-1)

    @torch.inference_mode()
    def score(
        self,
        buffer: TokenBuffer,
        start: int,
        stop: int,
        progress: Callable[[float], None] = lambda fraction: None,
        observe: Observer | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Tensor:
        """-ln p(x_t | x_<t) for t = start .. stop - 1, float32 on the device; all of them are in `buffer`.

        0 for x_0, and for the targets of other ranks than this one of `world`. After each batch, `progress`
        gets the fraction that is done, and `observe` the batch's predictions. A GPU may still compute them.
        Raises ValueError for targets outside the buffer.
        """
        if not buffer.start <= start <= stop <= buffer.stop:
            kept = f"{buffer.start}..{buffer.stop - 1}"
            raise ValueError(f"targets {start}..{stop - 1} lie outside the tokens kept, {kept}")
        windows = self.rule.share(self.rule.windows(buffer, start, stop), rank, world)
        n, base = stop - start, min((window.start for window in windows), default=start)
        known = buffer.after(base)[: stop - base].astype(np.int64)
        ids_N = torch.from_numpy(np.pad(known, (0, self.rule.window + 1))).to(self.device)
        places = [(w.start - base, w.first_target - base, w.low - base, w.high - base) for w in windows]
        place_N4 = torch.tensor(places, device=self.device, dtype=torch.int64).view(len(windows), 4)
        nats_N, done = torch.zeros(n + 1, device=self.device), 0
        for batch in self.rule.batches(windows, self.batch):
            start_B1, first_B1, low_B1, high_B1 = place_N4[done : done + len(batch)].split(1, dim=1)
            input_BT = start_B1 + torch.arange(batch[0].length, device=self.device)
            target_BS = first_B1 + torch.arange(batch[0].targets, device=self.device)
            read_BS = (low_B1 <= target_BS) & (target_BS < high_B1)
            ids_BT = torch.where(input_BT < high_B1 - 1, ids_N[input_BT], 0)
            log_p_BSV, truth_BS = self._log_probs(ids_BT, batch[0].targets), ids_N[target_BS]
            nats_BS = -log_p_BSV.gather(2, truth_BS[:, :, None])[:, :, 0]
            nats_N[torch.where(read_BS, target_BS - (start - base), n)] = nats_BS  # place n: not read
            if observe is not None:
                observe(log_p_BSV, truth_BS, read_BS)
            done += len(batch)
            progress(done / len(windows))
        return nats_N[:n].abs()  # abs turns the -0 of a certain prediction into 0

    def nats(self, buffer: TokenBuffer, start: int, stop: int, observe: Observer | None = None) -> np.ndarray:
        """`score` of all targets in this process, on the host."""
        return self.score(buffer, start, stop, observe=observe).cpu().numpy()

    def row(self, buffer: TokenBuffer) -> np.ndarray:
        """ln p_V (float32) of the next token, given all revealed ones (at least one)."""
        return self.rows([buffer])[0]

    @torch.inference_mode()
    def rows(self, contexts: list[TokenBuffer]) -> np.ndarray:
        """`row` for k >= 1 contexts, each ending before the token to predict: float32 [k, V].

        Raises ValueError for contexts that are empty or lack tokens that the rule needs.
        """
        if any(context.stop < 1 for context in contexts):
            raise ValueError("token 0 of a stream is not predicted: nothing comes before it")
        needed = [self.rule.windows(each, each.stop, each.stop + 1)[0] for each in contexts]
        order = sorted(range(len(contexts)), key=lambda i: needed[i].order)
        rows, done = [], 0
        for batch in self.rule.batches([needed[i] for i in order], self.batch):
            inputs_BT = np.zeros((len(batch), batch[0].length), np.int64)
            for i, row_T in zip(order[done:], inputs_BT, strict=False):
                known = contexts[i].after(needed[i].start)
                row_T[: len(known)] = known
            ids_BT = torch.from_numpy(inputs_BT).to(self.device)
            log_p_BSV = self._log_probs(ids_BT, batch[0].targets)
            places = [window.low - window.first_target for window in batch]
            rows.append(log_p_BSV[torch.arange(len(batch)), torch.tensor(places)])
            done += len(batch)
        rows_KV = torch.cat(rows).cpu().numpy()
        return rows_KV[np.argsort(order)]

    @torch.inference_mode()
    def warm_up(self, observe: Observer | None = None) -> None:
        """Run every compiled shape once on zeros; `observe` sees the predictions."""
        sizes = [
            (length, targets, self.rule.rows(length, self.batch)) for length, targets in self.rule.shapes
        ]
        alone = [(length, targets, 1) for length, targets, _ in sizes if length == self.rule.window]
        for length, targets, rows in sizes + alone * (self.most_alone > 0):
            ids_BT = torch.zeros(rows, length, dtype=torch.int64, device=self.device)
            log_p_BSV = self._log_probs(ids_BT, targets)
            if observe is not None:
                observe(log_p_BSV, ids_BT[:, -targets:], ids_BT[:, -targets:] == 0)
