"""One evaluator for all contestants: bits per byte of the first validation tokens, in rows that do not
overlap.

Float32, every row from its own start without what came before it, as the starting script validates. Bytes by
the rule of the challenge, from the tokenizer: a piece's UTF-8 length, and one more for a leading space unless
a control piece precedes. Not covered: the judge's own count, sliding windows and packing (harness/,
golf/stages/score.py)."""

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
    """Validation tokens, the first of which is not predicted, and the bytes of each other one."""

    tokens: np.ndarray
    bytes: np.ndarray


def byte_counts(tokens: np.ndarray, tokenizer: Path) -> np.ndarray:
    """Bytes of the tokens 1, 2, ...; token 0 only decides whether the space of the next counts."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    ids = range(model.vocab_size())
    border = np.array([model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids])
    leading = np.array([model.id_to_piece(i).startswith(SPACE) and not border[i] for i in ids])
    base = np.array(
        [
            0
            if border[i]
            else 1
            if model.is_byte(i)
            else len(model.id_to_piece(i).removeprefix(SPACE).encode())
            for i in ids
        ]
    )
    before, targets = tokens[:-1], tokens[1:]
    counts: np.ndarray = base[targets] + (leading[targets] & ~border[before])
    return counts


def text(tokens: np.ndarray, tokenizer: Path, seq_len: int) -> Text:
    """Whole rows of the tokens; ValueError where there is not one."""
    n = (len(tokens) - 1) // seq_len * seq_len
    if n < 1:
        raise ValueError(f"{len(tokens)} validation tokens are fewer than a row of {seq_len} + 1")
    used = tokens[: n + 1].astype(np.int64)
    return Text(used, byte_counts(used, tokenizer))


@torch.inference_mode()
def row_nats(weights: Weights, config: Config, vocab_size: int, measured: Text) -> np.ndarray:
    """Score weights as the model of a recipe: nats of each row [N], float64; every parameter must be there,
    and no other."""
    device, seq_len = torch.device("cpu"), config.train.seq_len
    model = GPT(config.model, vocab_size, attention=kernels.choose(device, torch.float32).name)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    ids_NT, targets_NT = (
        torch.from_numpy(part).view(-1, seq_len) for part in (measured.tokens[:-1], measured.tokens[1:])
    )
    found = [
        functional.cross_entropy(model(ids_BT).mT, targets_BT, reduction="none").double().sum(dim=1)
        for ids_BT, targets_BT in zip(ids_NT.split(ROWS), targets_NT.split(ROWS), strict=True)
    ]
    return torch.cat(found).numpy()


def bits_per_byte(nats_N: np.ndarray, measured: Text) -> float:
    """Nats of rows -> bits per byte of the whole text."""
    return float(nats_N.sum()) / math.log(2) / int(measured.bytes.sum())
