"""Predict a revealed stream: nats of a chunk, or distributions of next tokens, all by the same passes.

A `Predictor` holds a model as a callable `forward(ids_BT int64, last=n) -> logits_BnV float32` and applies
the window rule (golf/inference/windows.py). `nats` gives -ln p(x_t | x_<t) for the targets of a chunk, `row`
the distribution of the next token, `rows` those of many contexts. Each is a window with the same inputs and
length, so the three agree up to rounding that depends on the batch size (below 1e-5 nats in float32). Logits
become probabilities in float32, whatever the trunk's dtype: |logsumexp| of a row stays below 1e-5.

Cost: W positions per S targets, so a fraction S/W of the positions is useful: 1/8 for window 512 and stride
64, 1/32 for 2048. Little of this cost can be saved without changing the predictions. After the first
attention, a position's state depends on where its window begins, so overlapping windows could share only
embeddings and the first layer's projections (2 % of the products; not done). In the last layer, queries,
feed-forward and head are computed only for the S targets, which saves 9 % for `hadamard-ve128` and 11 % for
`sp8192-parres-ttt` at window 2048 (27 % and 17 % in the pocket profile): scoring then costs as much as 29
passes over the text instead of 32. Cached keys and values, or a larger stride, would change the predictions.

`full` is an optional forward for one shape only, `batch` full windows, as a compiled model needs; missing
windows are padded with zeros. Neutral: None. The forwards may change between two calls
(golf/inference/adapt.py learns from what was scored).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from golf.inference import windows
from golf.inference.stream import Observer
from golf.inference.windows import TokenBuffer, Window

Forward = Callable[..., Tensor]


class Predictor:
    """A model under the window rule; `device` is where the model is."""

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
        """inputs_BT -> ln p_BSV of what follows each of the last S = `targets` inputs."""
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
        buffer: TokenBuffer,
        start: int,
        stop: int,
        progress: Callable[[float], None] = lambda fraction: None,
        observe: Observer | None = None,
    ) -> np.ndarray:
        """-ln p(x_t | x_<t) for t = start .. stop - 1, float32, 0 for x_0; all of them must be in `buffer`.

        After each batch, `progress` gets the fraction that is done, and `observe` the batch's predictions.
        Raises ValueError for targets outside the buffer.
        """
        if not buffer.start <= start <= stop <= buffer.stop:
            kept = f"{buffer.start}..{buffer.stop - 1}"
            raise ValueError(f"targets {start}..{stop - 1} lie outside the tokens kept, {kept}")
        if start == stop:
            return np.zeros(0, np.float32)
        parts = []
        for group in windows.batches(start, stop, self.window, self.stride, self.batch):
            targets = group[0].targets
            inputs_BT = np.stack([buffer.inputs(w) for w in group])
            truth_BS = np.stack([buffer.inputs(Window(w.first_target, targets, targets)) for w in group])
            log_p_BSV = self._log_probs(inputs_BT, targets)
            truth_on_device_BS = torch.from_numpy(truth_BS).to(self.device)
            parts.append(-log_p_BSV.gather(2, truth_on_device_BS[:, :, None]).flatten())
            if observe is not None:
                position_BS = np.array([w.first_target for w in group])[:, None] + np.arange(targets)
                scored_BS = torch.from_numpy((start <= position_BS) & (position_BS < stop)).to(self.device)
                observe(log_p_BSV, truth_on_device_BS, scored_BS)
            progress(min(1.0, (group[-1].first_target + targets - start) / (stop - start)))
        nats = torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)
        first = start // self.stride * self.stride
        if first == 0:  # block 0 has no number for x_0
            nats = np.concatenate([np.zeros(1, np.float32), nats])
        return np.abs(nats[start - first : stop - first])  # abs turns the -0 of a certain prediction into 0

    def row(self, buffer: TokenBuffer) -> np.ndarray:
        """ln p_V (float32) of the next token, given all revealed ones (at least one)."""
        return self.rows([buffer])[0]

    @torch.inference_mode()
    def rows(self, contexts: list[TokenBuffer]) -> np.ndarray:
        """`row` for k >= 1 contexts, each ending before the token to predict: float32 [k, V]."""
        needed = [windows.target_window(context.stop, self.window, self.stride) for context in contexts]
        same_shape: dict[tuple[int, int], list[int]] = {}
        for i, w in enumerate(needed):
            same_shape.setdefault((w.length, w.targets), []).append(i)
        found: dict[int, np.ndarray] = {}
        for (_, targets), members in same_shape.items():
            for at in range(0, len(members), self.batch):
                group = members[at : at + self.batch]
                log_p_BSV = self._log_probs(np.stack([contexts[i].inputs(needed[i]) for i in group]), targets)
                places = [contexts[i].stop - needed[i].first_target for i in group]
                rows_BV = log_p_BSV[torch.arange(len(group)), torch.tensor(places)]
                found.update(zip(group, rows_BV.cpu().numpy(), strict=True))
        return np.stack([found[i] for i in range(len(contexts))])
