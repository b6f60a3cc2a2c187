"""Claims: the models that are trained, intervals and outcomes, and comparisons of ways to pack."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from golf.bench import claims, compression, trained_models, work
from golf.bench.claims import LAYERS_SHARED, PLAIN, QUANTISED, ROTATED, Bench
from golf.bench.compression import Interval, paired
from golf.bench.contestants import BenchConfig
from golf.bench.evaluation import Text
from golf.bench.trained_models import TrainedModel
from golf.storage import arrays

V = 64
TINY = {
    "model": {
        "layers": 2,
        "width": 32,
        "heads": 2,
        "kv_heads": 1,
        "mlp_hidden": 64,
        "xsa_last": 1,
        "bigram_buckets": 32,
        "bigram_dim": 8,
        "ve_dim": 8,
        "ve_layers": [1],
    },
    "train": {"batch_tokens": 128, "seq_len": 16},
    "stats": {"hessian_batches": 2, "row_score_every": 1},
    "quant": {"fp16_limit": 500},
}
SPEC = ROTATED._replace(changes=TINY, times=1)


@pytest.fixture
def bench_config(tmp_path):
    """One shard of text with something to learn."""
    tokens = np.random.default_rng(0).integers(2, V, 40).repeat(100)[:3000].astype("<u2")
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(tokens)
    path = tmp_path / "train_000000.bin"
    path.write_bytes(header.tobytes() + tokens.tobytes())
    return BenchConfig([path], tmp_path / "none.model", V, 0.0, 1, compiled=False)


def log_nothing(line: str) -> None:
    """Discard the line."""


def parameters(spec: trained_models.ModelSpec) -> int:
    return sum(p.numel() for p in work.model_of(spec.config(), 1024).parameters())


def test_models_have_the_full_shapes_that_their_submissions_claim():
    assert parameters(ROTATED) == 27_038_810
    assert parameters(QUANTISED) == parameters(PLAIN) == 20_999_264
    shared = LAYERS_SHARED.config().model
    assert len(work.model_of(LAYERS_SHARED.config(), 1024).plan) == 12 and shared.layers == 4


@pytest.mark.slow
def test_an_interrupted_training_ends_like_one_that_was_not(bench_config, tmp_path, monkeypatch):
    monkeypatch.setattr(trained_models, "STEPS_BETWEEN_STATES", 2)
    whole = trained_models.train_or_read(SPEC, 5, bench_config, tmp_path / "whole", log_nothing)

    def cut(line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trained_models.calibrate, "measure", lambda *_: cut(""))
    with pytest.raises(KeyboardInterrupt):
        trained_models.train_or_read(SPEC, 5, bench_config, tmp_path / "cut", log_nothing)
    monkeypatch.undo()
    (state,) = (tmp_path / "cut").glob("*/state.arrays")
    assert arrays.read(state)[0]["steps"] == 4
    continued = trained_models.train_or_read(SPEC, 5, bench_config, tmp_path / "cut", log_nothing)
    assert not state.exists()
    for name, weight in whole.weights.items():
        assert torch.equal(weight, continued.weights[name]), name


@pytest.mark.slow
def test_a_finished_training_is_read_and_not_repeated(bench_config, tmp_path, monkeypatch):
    first = trained_models.train_or_read(SPEC, 2, bench_config, tmp_path, log_nothing)
    monkeypatch.setattr(trained_models, "train", lambda *_: pytest.fail("trained again"))
    again = trained_models.train_or_read(SPEC, 2, bench_config, tmp_path, log_nothing)
    assert all(torch.equal(weight, again.weights[name]) for name, weight in first.weights.items())


@pytest.fixture
def bench(bench_config, tmp_path):
    tokens = np.random.default_rng(1).integers(2, V, 161)
    return Bench(bench_config, 3, tmp_path, Text(tokens, np.full(160, 3)))


@pytest.mark.slow
def test_ways_to_pack_are_compared_on_the_same_weights_and_rows(bench):
    raw_N = bench.unpacked_nats(SPEC)
    assert raw_N.shape == (10,)
    half = bench.compress(SPEC, bits=None)
    assert half.squared_error == 0 and half.ratio > 1
    fine, coarse = bench.compress(SPEC, bits=8), bench.compress(SPEC, bits=3)
    assert coarse.squared_error > 100 * fine.squared_error > 0
    assert coarse.n_bytes < fine.n_bytes < half.n_bytes
    assert abs(paired(bench.nats(SPEC, bits=8) - raw_N, bench.text).mean) < abs(
        paired(bench.nats(SPEC, bits=2) - raw_N, bench.text).mean
    )


@pytest.mark.slow
def test_the_payload_is_what_the_compressor_gets(bench):
    """Noise does not compress, so that int8 codes of 8 bits take about the bytes of the payload."""
    model, random = bench.trained(SPEC), torch.Generator().manual_seed(1)
    noise = {name: torch.randn(weight.shape, generator=random) for name, weight in model.weights.items()}
    packed = compression.measure_compression(TrainedModel(model.config, noise, model.stats), V, bits=8)
    assert 0.95 < packed.ratio < 1.3


def test_an_interval_covers_the_sum_of_differences_at_its_rate():
    random, text = np.random.default_rng(0), Text(np.arange(2), np.array([1000]))
    found = [paired(random.normal(0.3, 2.0, 200), text) for _ in range(400)]
    truth = 0.3 * 200 / math.log(2) / 1000
    assert 0.92 < np.mean([each.low < truth < each.high for each in found]) < 0.98


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(-0.002, 0.001), "holds"),
        (Interval(0.002, 0.001), "fails"),
        (Interval(0.0005, 0.001), "undecided"),
    ],
)
def test_a_claim_of_less_holds_or_fails_only_with_its_whole_interval(interval, expected):
    assert claims.outcome(interval.low, interval.high) == expected


@pytest.mark.slow
def test_a_description_shows_heavy_tails_and_rows_under_the_floor(bench):
    model = bench.trained(SPEC)
    random = torch.Generator().manual_seed(0)
    weights = {
        name: 0.1 * torch.randn(weight.shape, generator=random) for name, weight in model.weights.items()
    }
    name = "blocks.1.mlp.up.weight"
    weights[name][:, 0] *= 40
    found = compression.describe_tensor(TrainedModel(model.config, weights, model.stats))
    assert found["blocks.0.mlp.up.weight"]["kurtosis"] == pytest.approx(3, abs=0.5)
    assert found[name]["kurtosis"] > 10 > found[name]["kurtosis_rotated"]
    assert found["blocks.0.mlp.up.weight"]["rows_under_floor"] == 1.0 > found[name]["rows_under_floor"]
    bits = found["blocks.0.mlp.up.weight"]["bits_a_number"]
    assert bits["floor"] < bits["plain"] <= 6


@pytest.mark.slow
def test_every_claim_on_packing_is_tested_on_small_models(bench_config, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "ROTATED", SPEC)
    low_rank = {
        **TINY,
        "model": {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "mlp_hidden": 64, "q_rank": 8},
    }
    plain = {**low_rank, "train": {**TINY["train"], "qat_bits": 0}}
    looped = {**plain, "model": {**low_rank["model"], "layers": 1, "loop_layers": [0], "loop_passes": 1}}
    for name, changes in (("QUANTISED", low_rank), ("PLAIN", plain), ("LAYERS_SHARED", looped)):
        monkeypatch.setattr(claims, name, getattr(claims, name)._replace(changes=changes))
    tokens = np.random.default_rng(1).integers(2, V, 161)
    bench = Bench(bench_config, 2, tmp_path, Text(tokens, np.full(160, 3)))
    found = [claim for test in claims.TESTS[:-1] for claim in test(bench)]
    assert len(found) == 4 + 4 + 2 + 1
    assert {claim.outcome for claim in found} <= {"holds", "fails", "undecided"}


def test_packing_and_scoring_are_not_repeated(bench, monkeypatch):
    first, packed = bench.nats(SPEC, bits=4), bench.compress(SPEC, bits=4)
    monkeypatch.setattr(compression, "measure_compression", lambda *_, **__: pytest.fail("packed again"))
    monkeypatch.setattr(compression, "nats", lambda *_: pytest.fail("scored again"))
    assert bench.nats(SPEC, bits=4) is first
    assert bench.compress(SPEC, bits=4) is packed


def test_unusable_settings_and_folders_end_in_a_line_and_not_in_a_traceback(tmp_path, capsys):
    for words, message in (
        (["--data", tmp_path, "--work", tmp_path], "no train_"),
        (["--data", tmp_path, "--work", tmp_path, "--steps", 0], "--steps 0"),
    ):
        assert claims.main([str(word) for word in words]) == 2
        assert message in capsys.readouterr().err
