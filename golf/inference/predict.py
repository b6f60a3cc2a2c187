"""Predictions for a revealed stream: nats for a chunk, one row, or many rows; all by the same passes.

What: a `Predictor` holds a model as a callable `forward(ids_BT int64, last=n) -> logits_BnV float32` and the
window rule (golf/inference/windows.py). `nats` gives -ln p(x_t | x_<t) for the targets of a chunk, `row` the
whole distribution of the next token, `rows` that of many contexts. Each is a window of the same inputs and
the same length, so that the three agree up to the rounding that a batch's size brings (below 1e-5 nats in
float32). Logits become probabilities in float32, whatever the trunk computes in: |logsumexp| of a row stays
below 1e-5.

Cost: W positions for each S targets, so that the useful share of the plain loop is S/W: 1/8 for window 512
and stride 64, 1/32 for 2048. Exact scoring by this rule can save little of that. What a position becomes
depends, from the first attention on, on where its window begins; so overlapping windows can share only
embeddings and the first visit's projections (2 % of the products, not done), and only the last visit can
leave positions out: its queries, its feed-forward and the head are computed for the S targets alone, which
saves 9 % for `hadamard-ve128` and 11 % for `sp8192-parres-ttt` at window 2048, more in small models (27 % and
17 % in the pocket profile). That leaves 29 plain passes of the 32. Keys and values kept from earlier windows,
or a larger stride, are other predictors.

`full`, where given, is a forward for one shape only: full windows, `batch` of them, as a compiled model is
fast in; fewer windows are filled up with zeros. Neutral: None. Not covered: learning from what was scored
(golf/inference/adapt.py); the forwards may change between two calls, and `watch` sees what `nats` predicts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from golf.inference import windows
from golf.inference.windows import TokenBuffer, Window

Forward = Callable[..., Tensor]
Watch = Callable[[Tensor, Tensor, Tensor], None]


def quiet(fraction: float) -> None:
    """Progress that nobody watches."""


class Predictor:
    """A model under the window rule. Knows no socket; `device` is where the ids go."""

    def __init__(
        self,
        forward: Forward,
        *,
        window: int,
        stride: int,
        batch: int,
        device: torch.device | str = "cpu",
        full: Forward | None = None,
    ) -> None:
        self.forward, self.full = forward, full
        self.window, self.stride, self.batch = window, stride, batch
        self.device = torch.device(device)

    def _log_probs(self, inputs_BT: np.ndarray, targets: int) -> Tensor:
        """Inputs -> natural-log probabilities_BSV of what follows each of the last S = `targets` inputs."""
        ids_BT = torch.from_numpy(inputs_BT).to(self.device, non_blocking=True)
        rows = len(ids_BT)
        if self.full is not None and ids_BT.shape[1] == self.window:
            ids_BT = functional.pad(ids_BT, (0, 0, 0, self.batch - rows))
            logits_BSV = self.full(ids_BT, last=targets)[:rows]
        else:
            logits_BSV = self.forward(ids_BT, last=targets)
        if logits_BSV.dtype != torch.float32 or logits_BSV.shape[:2] != (rows, targets):
            found = f"{logits_BSV.dtype} {tuple(logits_BSV.shape)}"
            raise ValueError(f"a model must give float32 logits of the last {targets} inputs; got {found}")
        return functional.log_softmax(logits_BSV, dim=-1)

    @torch.inference_mode()
    def nats(
        self,
        tail: TokenBuffer,
        start: int,
        stop: int,
        progress: Callable[[float], None] = quiet,
        watch: Watch | None = None,
    ) -> np.ndarray:
        """-ln p(x_t | x_<t) for t = start .. stop - 1, float32, 0 for x_0; all of them revealed in `tail`.

        `progress` hears after each batch what part is done; `watch` sees its log_p_BSV, its truth_BS, and
        which of these are among the targets asked for (scored_BS, bool). Raises ValueError for tokens that
        are not kept."""
        if not tail.start <= start <= stop <= tail.stop:
            kept = f"{tail.start}..{tail.stop - 1}"
            raise ValueError(f"targets {start}..{stop - 1} lie outside the tokens kept, {kept}")
        if start == stop:
            return np.zeros(0, np.float32)
        parts = []
        for group in windows.batches(start, stop, self.window, self.stride, self.batch):
            targets = group[0].targets
            inputs_BT = np.stack([tail.inputs(w) for w in group])
            truth_BS = np.stack([tail.inputs(Window(w.first_target, targets, targets)) for w in group])
            log_p_BSV = self._log_probs(inputs_BT, targets)
            truth_on_device_BS = torch.from_numpy(truth_BS).to(self.device)
            parts.append(-log_p_BSV.gather(2, truth_on_device_BS[:, :, None]).flatten())
            if watch is not None:
                position_BS = np.array([w.first_target for w in group])[:, None] + np.arange(targets)
                scored_BS = torch.from_numpy((start <= position_BS) & (position_BS < stop)).to(self.device)
                watch(log_p_BSV, truth_on_device_BS, scored_BS)
            progress(min(1.0, (group[-1].first_target + targets - start) / (stop - start)))
        nats = torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)
        first = start // self.stride * self.stride
        if first == 0:  # block 0 has no number for x_0
            nats = np.concatenate([np.zeros(1, np.float32), nats])
        return np.abs(nats[start - first : stop - first])  # abs: a certain prediction costs 0, not -0

    def row(self, tail: TokenBuffer) -> np.ndarray:
        """Natural-log probabilities_V (float32) of the next token, given all revealed ones (at least one)."""
        return self.rows([tail])[0]

    @torch.inference_mode()
    def rows(self, tails: list[TokenBuffer]) -> np.ndarray:
        """`row` for several streams, each ending where its prediction is asked for: float32, k x V, k >=
        1."""
        asked = [windows.target_window(tail.stop, self.window, self.stride) for tail in tails]
        alike: dict[tuple[int, int], list[int]] = {}
        for i, w in enumerate(asked):
            alike.setdefault((w.length, w.targets), []).append(i)
        found: dict[int, np.ndarray] = {}
        for (_, targets), members in alike.items():
            for at in range(0, len(members), self.batch):
                group = members[at : at + self.batch]
                log_p_BSV = self._log_probs(np.stack([tails[i].inputs(asked[i]) for i in group]), targets)
                places = [tails[i].stop - asked[i].first_target for i in group]
                rows_BV = log_p_BSV[torch.arange(len(group)), torch.tensor(places)]
                found.update(zip(group, rows_BV.cpu().numpy(), strict=True))
        return np.stack([found[i] for i in range(len(tails))])
