"""What a judged run compiles on a GPU, counted here without a compiler: one graph for each phase and shape,
all in the warm-up. The recipes are the submissions' own, at toy widths.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from golf.optim.schedule import TrainingProgress
from golf.recipe.config import Config, load
from golf.recipe.schema import HardwareConfig
from golf.runtime import compilation
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.stages import train
from golf.training import calibrate, loader as data, phases
from golf.training.trainer import Trainer
from tests.golf.fakes.recipes import ROOT, V, lively
from tests.golf.fakes.score_stage import score_stream, stream

ALONE = Ranks(0, 1, torch.device("cpu"))
PHASES = {"naive-baseline": 1, "hadamard-ve128": 1, "lowrank-q-qat": 2, "sp8192-hadamard-awq": 2}
"""Training's graphs; sp8192-parres-ttt trains the same model in the same phases, and measures less."""
SHAPES = {"naive-baseline": 2, "hadamard-ve128": 2, "lowrank-q-qat": 2, "sp8192-parres-ttt": 3}
"""Scoring's graphs: batches of windows, single windows, and for the last recipe the rows that it learns from;
sp8192-hadamard-awq scores by the same model and rule."""
BATCH = 256
SMALLEST = """
model: {layers: 1, width: 32, heads: 4, kv_heads: 2, mlp_hidden: 48, skips: false}
train: {seq_len: 16, batch_tokens: 256, warmup_steps: 0}
hardware: {precision: float32}
"""


def toy(name: str) -> Config:
    """A submission's recipe with its phases and techniques, but small."""
    config = load((ROOT / "submissions" / name / "config.yaml").read_text(), "pocket")
    model, stats = config.model, config.stats
    small = {"width": 32, "heads": 4, "kv_heads": 2, "mlp_hidden": 48, "bigram_dim": 8, "rope_dims": 0}
    ranks = {"q_rank": min(model.q_rank, 6), "ve_dim": min(model.ve_dim, 6)}
    batches = {name: min(getattr(stats, name), 1) for name in ("hessian_batches", "fisher_batches")}
    return replace(
        config,
        model=replace(model, **small, **ranks),
        train=replace(config.train, seq_len=16, batch_tokens=BATCH, warmup_steps=1),
        stats=replace(stats, batch_tokens=0, **batches),
        score=replace(config.score, window=32, stride=8, chunk_tokens=64, batch_windows=4),
        adapt=replace(config.adapt, seq_len=16, batch_rows=4),
        hardware=HardwareConfig(precision="float32"),
    )


@pytest.fixture
def graphs(monkeypatch):
    """The graphs compiled so far, on a device that compiles; each runs as it was traced."""
    torch._dynamo.reset()
    found: list[torch.fx.GraphModule] = []

    def backend(graph, inputs):
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", backend)
    monkeypatch.setattr(compilation, "wanted", lambda device: True)
    yield found
    torch._dynamo.config.error_on_recompile = False


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_training_has_one_graph_a_phase_and_compiles_nothing_after_the_warm_up(name, graphs, tmp_path):
    config = toy(name)
    trainer = Trainer(config, V, 0, ALONE)
    train.warm_up(trainer, tmp_path)
    assert len(graphs) == len(phases.possible(config)) == PHASES[name]
    compilation.refuse_from_now_on()
    for step in range(4):
        trainer.step(data.synthetic(step, range(8), BATCH, 16, V), TrainingProgress(step, step / 4))
    trainer.finish()
    calibrate.measure(trainer, (data.synthetic(step, range(8), BATCH, 16, V) for step in range(2)))
    assert len(graphs) == PHASES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_scoring_has_one_graph_a_shape_and_compiles_nothing_after_the_warm_up(name, graphs):
    config = toy(name)
    nats, _ = score_stream(lively(config).requires_grad_(False), config, stream(150))
    assert len(nats) == 150
    assert len(graphs) == SHAPES[name]


@pytest.mark.slow
def test_windows_aligned_to_documents_have_six_graphs_all_in_the_warm_up(graphs):
    config, tokens = toy("naive-baseline"), stream(150)
    config = replace(config, score=replace(config.score, align="documents", bos=int(tokens[0])))
    nats, _ = score_stream(lively(config).requires_grad_(False), config, tokens)
    assert len(nats) == 150
    assert len(graphs) == 6


def test_the_submissions_with_the_same_model_have_the_same_graphs():
    one, other = (toy(f"sp8192-{name}") for name in ("parres-ttt", "hadamard-awq"))
    assert (one.model, one.train, one.score, one.adapt) == (
        other.model,
        other.train,
        other.score,
        other.adapt,
    )


@pytest.mark.slow
def test_a_batch_of_another_shape_after_the_warm_up_ends_the_run_and_says_what_changed(graphs, tmp_path):
    trainer = Trainer(load(SMALLEST), V, 0, ALONE)
    train.warm_up(trainer, tmp_path)
    compilation.refuse_from_now_on()
    with pytest.raises(StageError, match=r"inside the judge's clock: .*expected 16, actual 8"):
        trainer.backward(data.synthetic(0, range(8), BATCH // 2, 16, V))
