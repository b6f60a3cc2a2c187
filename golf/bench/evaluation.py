"""Evaluate all contestants alike: bits per byte of the first validation tokens, in rows that do not overlap.

In float32; each row starts without earlier context, as the starting script validates. Bytes follow the
challenge's rule: the UTF-8 length of a token's piece, plus one for a leading space unless a special token
precedes. The judge's own count, sliding windows and packing are in harness/ and golf/stages/.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece
import torch
from torch.nn import functional

from golf.bench.interleaved import Weights
from golf.model import kernels
from golf.model.gpt import GPT
from golf.recipe.schema import Config

ROWS = 8
SPACE = "▁"


class Text(NamedTuple):
    """Validation tokens, and the bytes of each but the first, which is not predicted."""

    tokens: np.ndarray
    bytes: np.ndarray


def byte_counts(tokens: np.ndarray, tokenizer: Path) -> np.ndarray:
    """Bytes of tokens 1, 2, ...; token 0 only decides whether a space of token 1 counts."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    ids = range(model.vocab_size())
    special = np.array([model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids])
    leading = np.array([model.id_to_piece(i).startswith(SPACE) and not special[i] for i in ids])
    base = np.array([len(model.id_to_piece(i).removeprefix(SPACE).encode()) for i in ids])
    base[[model.is_byte(i) for i in ids]] = 1
    base[special] = 0
    before, targets = tokens[:-1], tokens[1:]
    counts: np.ndarray = base[targets] + (leading[targets] & ~special[before])
    return counts


def make_text(tokens: np.ndarray, tokenizer: Path, seq_len: int) -> Text:
    """The tokens cut to whole rows of `seq_len` targets; ValueError if there is none."""
    n = (len(tokens) - 1) // seq_len * seq_len
    if n < 1:
        raise ValueError(f"{len(tokens)} validation tokens are fewer than a row of {seq_len} + 1")
    used = tokens[: n + 1].astype(np.int64)
    return Text(used, byte_counts(used, tokenizer))


@torch.inference_mode()
def row_nats(weights: Weights, config: Config, vocab_size: int, text: Text) -> np.ndarray:
    """nats_N of each row, float64, with a recipe's model; `weights` must be exactly its parameters."""
    device, seq_len = torch.device("cpu"), config.train.seq_len
    model = GPT(config.model, vocab_size, attention=kernels.choose(device, torch.float32, config, []).name)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    ids_NT, targets_NT = (
        torch.from_numpy(part).view(-1, seq_len) for part in (text.tokens[:-1], text.tokens[1:])
    )
    found = [
        functional.cross_entropy(model(ids_BT).mT, targets_BT, reduction="none").double().sum(dim=1)
        for ids_BT, targets_BT in zip(ids_NT.split(ROWS), targets_NT.split(ROWS), strict=True)
    ]
    return torch.cat(found).numpy()


def bits_per_byte(nats_N: np.ndarray, text: Text) -> float:
    """nats_N of all rows -> bits per byte of the text."""
    return float(nats_N.sum()) / math.log(2) / int(text.bytes.sum())
