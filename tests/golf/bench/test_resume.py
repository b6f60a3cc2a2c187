"""Continuing a saved training gives the same tensors, and the state of another training is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golf.bench import resume
from golf.optim.schedule import TrainingProgress
from golf.recipe.config import load
from golf.runtime.dist import Ranks
from golf.training import loader as data
from golf.training.trainer import Trainer
from tests.golf.fakes.recipes import FULL, V

ALONE = Ranks(0, 1, torch.device("cpu"))
CONFIG = load(FULL)


def make_loader() -> data.Loader:
    tokens = np.tile(np.arange(1, 24), 300)
    return data.LOADERS[CONFIG.train.loader]([("s", tokens)], V, range(8), CONFIG.train.seq_len)


@pytest.mark.slow
def test_a_continued_training_equals_one_that_was_never_interrupted(tmp_path):
    whole, first, second = (Trainer(CONFIG, V, seed, ALONE) for seed in (7, 7, 7))
    loader = make_loader()
    for step in range(8):
        whole.step(loader.batch(256), TrainingProgress(step, step / 8))
    loader = make_loader()
    for step in range(4):
        first.step(loader.batch(256), TrainingProgress(step, step / 8))
    resume.save(first, tmp_path / "state.arrays", 4)
    loader = make_loader()
    done = resume.load(second, tmp_path / "state.arrays")
    for _ in range(done):
        loader.batch(256)
    for step in range(done, 8):
        second.step(loader.batch(256), TrainingProgress(step, step / 8))
    expected, found = whole.state(), second.state()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["weight:tok_emb.weight"], first.state()["weight:tok_emb.weight"])


def test_a_state_of_another_training_is_refused(tmp_path):
    resume.save(Trainer(CONFIG, V, 7, ALONE), tmp_path / "state.arrays", 4)
    for text, seed in ((FULL, 8), (FULL.replace("q_rank: 6", "q_rank: 5"), 7)):
        with pytest.raises(ValueError, match="not the state of this training"):
            resume.load(Trainer(load(text), V, seed, ALONE), tmp_path / "state.arrays")
