"""Everything that the model makes lies on the device of its inputs.

The submissions' record models run on PyTorch's `meta` device, which has shapes and no numbers. There, as on
a GPU, a tensor that was made on the CPU cannot be combined with the others.
"""

from __future__ import annotations

import pytest
import torch

from golf.model import gpt, kernels
from golf.model.layers import rotary
from golf.recipe.config import load
from golf.runtime.dist import Ranks
from golf.training import phases
from golf.training.loader import Batch
from golf.training.trainer import Trainer
from tests.golf.fakes.recipes import ROOT

SUBMISSIONS = sorted(path.parent.name for path in (ROOT / "submissions").glob("*/config.yaml"))
META = torch.device("meta")


def train_once(name: str, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Forward, loss and backward of one row in every phase of a submission's record recipe."""
    monkeypatch.setattr(kernels, "choose", lambda *args: kernels.Choice("sdpa", "for meta"))
    monkeypatch.setattr("golf.training.trainer.initialise", lambda *args: None)
    config = load((ROOT / "submissions" / name / "config.yaml").read_text())
    vocab_size = 8192 if name.startswith("sp8192") else 1024
    trainer = Trainer(config, vocab_size, 0, Ranks(0, 1, META))
    ids_BT = torch.empty(1, config.train.seq_len, dtype=torch.int64)
    for phase in phases.possible(config):
        trainer.enter(phase)
        assert trainer.backward(Batch(ids_BT, ids_BT)).device == META
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_training_step_of_the_record_model_makes_nothing_on_another_device(name, monkeypatch):
    trainer = train_once(name, monkeypatch)
    tensors = [*trainer.parameters.values(), *(p.grad for p in trainer.parameters.values())]
    assert all(tensor.device == META for tensor in [*tensors, *trainer.model.buffers()])


@pytest.mark.slow
def test_a_table_made_on_the_cpu_is_found(monkeypatch):
    monkeypatch.setattr(
        gpt,
        "rotary",
        lambda positions, dims, base, device: rotary(positions, dims, base, torch.device("cpu")),
    )
    with pytest.raises(RuntimeError, match="device"):
        train_once("naive-baseline", monkeypatch)
