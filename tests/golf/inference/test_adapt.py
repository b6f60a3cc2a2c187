"""The learners: what they learn from, by which rule, and that it helps. See test_score.py for the stage."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional

from golf.inference.adapt import (
    NO_TARGET,
    Adaptation,
    BiasDescent,
    Chunk,
    WeightDescent,
    learning_rate,
    training_rows,
)
from golf.inference.predict import Predictor
from golf.inference.stream import StreamSpec
from golf.inference.windows import TokenBuffer
from golf.recipe.config import Config, load
from golf.recipe.schema import AdaptConfig, ModelConfig
from golf.runtime.dist import Ranks
from tests.golf.fakes.recipes import FULL, V, lively
from tests.golf.fakes.score_stage import ThreadRanks, ThreadReduce

CONFIG = load(FULL)
ALONE = Ranks(0, 1, torch.device("cpu"))
CHUNK = CONFIG.score.chunk_tokens
N_CHUNKS = 9


def words(n: int, seed: int = 0, low: int = 0, high: int = V) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, n).astype(np.uint16)


def chunks(tokens: np.ndarray) -> list[Chunk]:
    """A stream cut as the stage cuts it."""
    starts = range(0, len(tokens), CHUNK)
    return [Chunk(c, tokens[s : s + CHUNK], int(tokens[s - 1]) if s else None) for c, s in enumerate(starts)]


def weight_descent(model, ranks: Ranks = ALONE, micro_tokens: int = 1 << 16, **changes) -> WeightDescent:
    cfg = replace(CONFIG.adapt, **changes)
    return WeightDescent(model, model.parameters(), cfg, N_CHUNKS, ranks, micro_tokens)


def state(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@settings(deadline=None, max_examples=80)
@given(start=st.integers(0, 200), n=st.integers(1, 100), length=st.integers(1, 30))
def test_rows_hold_each_target_once_next_to_the_token_before_it_and_drop_incomplete_rows(start, n, length):
    positions = np.arange(start, start + n).astype(np.uint16)
    inputs_BT, targets_BT = training_rows(Chunk(0, positions, start - 1 if start else None), length)
    assert inputs_BT.shape == targets_BT.shape == (n // length, length)
    real = targets_BT != NO_TARGET
    assert targets_BT[real].tolist() == list(range(max(start, 1), start + n // length * length))
    assert torch.equal(inputs_BT[real], targets_BT[real] - 1)
    if start == 0 and n >= length:  # x_0 has nothing before it
        assert (~real).nonzero().tolist() == [[0, length - 1]]


def test_the_rates_published_for_1238_chunks():
    assert learning_rate(0.005, 0, 1238) == 0.005
    assert learning_rate(0.005, 1237, 1238) == 0
    assert learning_rate(0.005, 619, 1238) == pytest.approx(0.0025, rel=2e-3)
    assert learning_rate(0.005, 0, 1) == 0.005  # the only chunk is the last one: nothing is learned from it
    assert all(learning_rate(0.005, c, 1238) > learning_rate(0.005, c + 1, 1238) for c in range(1237))


def by_hand(model, cfg: AdaptConfig, stream: list[Chunk]) -> None:
    """Test-time training written out: gradients from autograd, norm, momentum and step as formulas."""
    parameters = list(model.parameters())
    momenta = [torch.zeros_like(parameter) for parameter in parameters]
    for chunk in stream:
        for _ in range(cfg.epochs):
            for ids_BT, truth_BT in zip(
                *(x.split(cfg.batch_rows) for x in training_rows(chunk, cfg.seq_len)), strict=True
            ):
                loss = functional.cross_entropy(
                    model(ids_BT).flatten(0, 1), truth_BT.flatten(), ignore_index=NO_TARGET
                )
                gradients = torch.autograd.grad(loss, parameters)
                norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
                with torch.no_grad():
                    for parameter, momentum, gradient in zip(parameters, momenta, gradients, strict=True):
                        momentum.mul_(cfg.momentum).add_(gradient * min(1.0, cfg.clip / float(norm)))
                        parameter -= learning_rate(cfg.lr, chunk.number, N_CHUNKS) * momentum


@pytest.mark.parametrize(
    "changes", [{}, {"clip": 1e9}, {"momentum": 0.0, "batch_rows": 3}, {"seq_len": 24}], ids=str
)
def test_test_time_training_is_sgd_with_momentum_kept_from_chunk_to_chunk(changes):
    model = lively(CONFIG)
    twin = copy.deepcopy(model)
    learner = weight_descent(model, **changes)
    stream = chunks(words(3 * CHUNK))
    for chunk in stream:
        learner.adapt(chunk)
    by_hand(twin, learner.cfg, stream)
    for (name, learned), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(learned, expected, rtol=1e-4, atol=2e-6, msg=name)


def test_every_parameter_is_trained():
    model = lively(CONFIG)
    before = state(model)
    weight_descent(model).adapt(chunks(words(CHUNK))[0])
    still = [
        name
        for (name, now), then in zip(model.named_parameters(), before, strict=True)
        if torch.equal(now, then)
    ]
    assert not still


@pytest.mark.parametrize("micro_tokens", [1, 16, 40])
def test_passes_cut_to_memory_give_the_same_step(micro_tokens):
    model = lively(CONFIG)
    twin = copy.deepcopy(model)
    weight_descent(model).adapt(chunks(words(CHUNK))[0])
    weight_descent(twin, micro_tokens=micro_tokens).adapt(chunks(words(CHUNK))[0])
    for learned, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(learned, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("batch_rows", [1, 3, 4])
def test_three_ranks_learn_what_one_does_even_where_a_step_has_fewer_rows(batch_rows):
    alone = lively(CONFIG)
    models = [copy.deepcopy(alone) for _ in range(3)]
    chunk, reduce = chunks(words(CHUNK))[0], ThreadReduce(3)
    weight_descent(alone, batch_rows=batch_rows).adapt(chunk)
    learners = [
        weight_descent(model, ThreadRanks(rank, 3, ALONE.device, reduce), batch_rows=batch_rows)
        for rank, model in enumerate(models)
    ]
    threads = [threading.Thread(target=learner.adapt, args=(chunk,)) for learner in learners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    for learned, *others in zip(alone.parameters(), *(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(others[0], learned, rtol=1e-4, atol=2e-6)
        assert torch.equal(others[0], others[1])
        assert torch.equal(others[0], others[2])


def random_pass(
    seed: int = 0, rows: int = 3, targets: int = 8
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """logits_BSV, truth_BS, and scored_BS with one window scored in part."""
    random = torch.Generator().manual_seed(seed)
    logits_BSV = torch.randn(rows, targets, V, generator=random)
    scored_BS = torch.ones(rows, targets, dtype=torch.bool)
    scored_BS[-1, 5:] = False
    return logits_BSV, torch.randint(V, (rows, targets), generator=random), scored_BS


def test_the_closed_form_is_the_gradient_of_the_sum_over_windows_of_the_mean_cross_entropy():
    learner, beta_V = BiasDescent(V, 0.1, ALONE), torch.zeros(V, requires_grad=True)
    for _ in range(3):  # each from where the last step led
        loss = torch.zeros(())
        for seed in range(2):
            logits_BSV, truth_BS, scored_BS = random_pass(seed)
            learner.observe(torch.log_softmax(logits_BSV + learner.beta_V, -1), truth_BS, scored_BS)
            for logits_SV, truth_S, scored_S in zip(logits_BSV, truth_BS, scored_BS, strict=True):
                loss = loss + functional.cross_entropy((logits_SV + beta_V)[scored_S], truth_S[scored_S])
        (gradient_V,) = torch.autograd.grad(loss, beta_V)
        torch.testing.assert_close(learner.gradient_V, gradient_V, rtol=1e-4, atol=1e-6)
        assert gradient_V.abs().max() > 0.01
        with torch.no_grad():
            beta_V -= 0.1 * gradient_V
        learner.adapt()
        torch.testing.assert_close(learner.beta_V, beta_V.detach(), rtol=1e-4, atol=1e-6)


def test_a_bias_that_predicts_the_frequencies_stays_as_it_is():
    learner = BiasDescent(8, 0.1, ALONE)
    truth_BS = torch.arange(8).repeat(2, 1)
    learner.observe(torch.full((2, 8, 8), 1 / 8).log(), truth_BS, torch.ones(2, 8, dtype=torch.bool))
    learner.adapt()
    assert learner.beta_V.abs().max() < 1e-7
    learner.observe(torch.full((2, 8, 8), 1 / 8).log(), truth_BS * 0, torch.zeros(2, 8, dtype=torch.bool))
    assert learner.gradient_V.abs().max() == 0  # nothing scored, nothing learned


def scored_and_learned(
    tokens: np.ndarray, cfg: AdaptConfig, config: Config = CONFIG, compiled: bool = False
) -> list[float]:
    """Mean nats of each chunk of a stream, learning from each once it is scored."""
    model, score = lively(config), config.score
    forward = torch.compile(model, dynamic=False, backend="aot_eager") if compiled else model
    adaptation = Adaptation(
        forward, model.parameters(), replace(config, adapt=cfg), StreamSpec(V, len(tokens), CHUNK), ALONE
    )
    predictor = Predictor(
        adaptation.biased(model),
        window=score.window,
        stride=score.stride,
        batch=score.batch_windows,
        full=adaptation.biased(forward),
    )
    buffer, means = TokenBuffer(0, tokens), []
    for chunk in chunks(tokens):
        start = chunk.number * CHUNK
        means.append(
            float(predictor.nats(buffer, start, start + len(chunk.tokens), observe=adaptation.observe).mean())
        )
        adaptation.adapt(chunk)
    return means


def test_a_bias_learns_that_half_of_the_vocabulary_never_comes():
    tokens = words(8 * CHUNK, high=V // 2)
    fixed = scored_and_learned(tokens, AdaptConfig(bias_lr=1e-30))
    learned = scored_and_learned(tokens, AdaptConfig(bias_lr=1.0))
    assert learned[0] == fixed[0]
    assert learned[-1] < fixed[-1] - 0.3


@pytest.mark.slow
def test_weights_learn_a_text_that_repeats_itself():
    tokens = np.tile(words(12), 8 * CHUNK // 12)
    fixed = scored_and_learned(tokens, AdaptConfig(epochs=1, lr=1e-30, seq_len=16, batch_rows=2))
    learned = scored_and_learned(tokens, AdaptConfig(epochs=3, lr=0.05, seq_len=16, batch_rows=2))
    assert learned[0] == fixed[0]
    assert learned[-1] < fixed[-1] - 0.5


@pytest.mark.slow
def test_a_compiled_model_learns_and_predicts_with_what_it_learned():
    shallow = replace(CONFIG, model=ModelConfig(layers=1, width=16, heads=2, kv_heads=1, mlp_hidden=16))
    tokens = np.tile(words(12), 4 * CHUNK // 12)
    learning = AdaptConfig(epochs=3, lr=0.05, seq_len=16, batch_rows=2, bias_lr=0.1)
    plain = scored_and_learned(tokens, learning, shallow)
    assert plain[-1] < scored_and_learned(tokens, AdaptConfig(bias_lr=1e-30), shallow)[-1] - 0.1
    assert scored_and_learned(tokens, learning, shallow, compiled=True) == pytest.approx(plain, abs=1e-4)


def test_a_warm_up_changes_nothing():
    model = lively(CONFIG)
    twin = copy.deepcopy(model)
    before = state(model)
    both, fresh = (
        Adaptation(each, each.parameters(), CONFIG, StreamSpec(V, N_CHUNKS * CHUNK, CHUNK), ALONE)
        for each in (model, twin)
    )
    logits_BSV, truth_BS, scored_BS = random_pass()
    both.observe(torch.log_softmax(logits_BSV, -1), truth_BS, scored_BS)
    both.warm_up(words(CHUNK))
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    for adaptation in (both, fresh):
        adaptation.observe(torch.log_softmax(logits_BSV, -1), truth_BS, scored_BS)
        adaptation.adapt(chunks(words(CHUNK))[0])
    assert torch.equal(both.bias.beta_V, fresh.bias.beta_V)
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True)
    )


def test_a_chunk_too_short_for_one_row_is_an_error():
    with pytest.raises(ValueError, match=r"adapt\.seq_len 16: a chunk has only 8 tokens"):
        Adaptation(None, [], CONFIG, StreamSpec(V, 100, 8), ALONE)
