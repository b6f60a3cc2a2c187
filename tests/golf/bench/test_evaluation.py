"""Bits per byte: the challenge's rule for bytes, and a text with a known result."""

from __future__ import annotations

import math

import numpy as np
import pytest

from golf.bench import evaluation
from golf.bench.evaluation import Text
from golf.bench.work import model_of
from golf.recipe.config import load

TINY = """
model: {layers: 1, width: 8, heads: 1, kv_heads: 1, mlp_hidden: 8, skips: false}
train: {batch_tokens: 64, seq_len: 8}
"""


def test_a_model_of_zeros_gives_every_token_the_same_share():
    config, tokens = load(TINY), np.arange(17) % 16
    weights = {name: np.zeros(p.shape, np.float32) for name, p in model_of(config, 16).named_parameters()}
    text = Text(tokens, np.full(16, 2))
    nats_N = evaluation.row_nats(weights, config, 16, text)
    assert nats_N == pytest.approx([8 * math.log(16)] * 2)
    assert evaluation.bits_per_byte(nats_N, text) == pytest.approx(math.log2(16) / 2)


def test_weights_that_are_not_the_model_are_refused():
    config = load(TINY)
    weights = {name: np.zeros(p.shape, np.float32) for name, p in model_of(config, 16).named_parameters()}
    weights["more"] = np.zeros(1, np.float32)
    with pytest.raises(RuntimeError, match="more"):
        evaluation.row_nats(weights, config, 16, Text(np.arange(9), np.ones(8)))


def test_bytes_of_real_text_are_its_utf8_length(shared):
    import sentencepiece

    tokenizer = shared / "tokenizers" / "fineweb_1024_bpe.model"
    text = "The price is 5 € — naïve ☃ words."
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    tokens = np.array([model.bos_id(), *model.encode(text)])
    assert evaluation.byte_counts(tokens, tokenizer).sum() == len(text.encode())


def test_text_is_cut_to_whole_rows_and_needs_one(shared):
    tokenizer = shared / "tokenizers" / "fineweb_1024_bpe.model"
    cut = evaluation.make_text(np.arange(300, 330), tokenizer, 8)
    assert len(cut.tokens) == 25 and len(cut.bytes) == 24
    with pytest.raises(ValueError, match="fewer than a row"):
        evaluation.make_text(np.arange(8), tokenizer, 8)
