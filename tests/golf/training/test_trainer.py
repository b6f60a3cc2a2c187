"""Training steps on several ranks over gloo give the weights of a single process that reads all rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from golf.optim.schedule import TrainingProgress
from golf.recipe.config import load
from golf.runtime.dist import ALONE, Ranks
from golf.training import calibrate, loader as data
from golf.training.trainer import Trainer
from tests.golf.fakes.gloo import on_ranks
from tests.golf.fakes.recipes import FULL, ROOT, V

STEPS = 4
RECIPE = FULL.replace("qat_bits: 6, ", "")
"""Without rounding to a grid, where the last bit of a weight can decide between two codes."""


def trained(ranks: Ranks, hardware: str) -> dict[str, torch.Tensor]:
    """The weights and row scores after a few steps of a small recipe, and the Fisher diagonal after them."""
    trainer = Trainer(load(RECIPE + f"hardware: {{precision: float32, {hardware}}}\n"), V, 0, ranks)
    for step in range(STEPS):
        ids, targets = data.synthetic(step, range(8), 256, 16, V)
        mine = slice(2 * trainer.logical.start, 2 * trainer.logical.stop)
        trainer.step(data.Batch(ids[mine], targets[mine]), TrainingProgress(step, step / STEPS))
    found = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    scores = calibrate.row_scores(trainer)
    fisher = calibrate.fisher(trainer, [data.Batch(ids[mine], targets[mine])])
    found |= {f"{name}:row_score": one.row_score_R for name, one in scores.items()}
    return found | {f"{name}:fisher": one.fisher_RC for name, one in fisher.items()}


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return trained(ALONE, "banks: true")


@pytest.mark.slow
@pytest.mark.parametrize(("world", "banks"), [(2, "true"), (2, "false"), (4, "true"), (8, "true")], ids=str)
def test_several_ranks_train_the_weights_of_one_up_to_rounding(alone, world, banks):
    ranks = on_ranks(world, trained, f"banks: {banks}")
    for name, tensor in alone.items():
        scale = tensor.abs().max().item()
        torch.testing.assert_close(ranks[0][name], tensor, atol=1e-3 * scale, rtol=0, msg=name)
        assert all(torch.equal(other[name], ranks[0][name]) for other in ranks[1:]), name


@pytest.mark.parametrize("name", ["sp8192-hadamard-awq", "sp8192-parres-ttt"])
def test_a_rank_of_eight_trains_on_its_share_of_a_record_batch_in_one_pass(name):
    config = load((ROOT / "submissions" / name / "config.yaml").read_text())
    share = torch.zeros(config.train.batch_tokens // 8 // config.train.seq_len, config.train.seq_len)
    trainer = SimpleNamespace(config=config, ranks=ALONE)
    assert [len(part.ids_BT) for part in Trainer.micro_batches(trainer, data.Batch(share, share))] == [48]
