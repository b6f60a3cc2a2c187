"""What the predictor and the learners of a score stage both refer to: the stream's sizes, and observers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class StreamSpec(NamedTuple):
    """What a stage knows of a stream in advance."""

    vocab_size: int
    n_tokens: int
    chunk_tokens: int


Observer = Callable[[Tensor, Tensor, Tensor], None]
"""Called with log_p_BSV, truth_BS, and scored_BS (bool): which of these targets were asked for."""
