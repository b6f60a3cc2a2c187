"""The checkpoint: it reads back as written, and files that the recipe cannot have produced are refused."""

from __future__ import annotations

import pytest
import torch

from golf.quant.stats import TensorStats
from golf.recipe.config import load
from golf.storage import arrays
from golf.training import checkpoint
from golf.training.checkpoint import Training
from tests.golf.fakes.recipes import FULL, V, lively

CONFIG = load(FULL)
TRAINING = Training(CONFIG, V, seed=7, steps=4)
MAX_BYTES = 1 << 22


def some_statistics() -> dict[str, TensorStats]:
    """Everything that FULL measures, with random numbers in [0, 1)."""
    return {
        name: TensorStats(
            **{checkpoint.ENDINGS[ending]: torch.rand(shape) for ending, shape in shapes.items()}
        )
        for name, shapes in checkpoint.statistics_of(CONFIG, V).items()
    }


@pytest.fixture
def folder(tmp_path):
    checkpoint.write(tmp_path, TRAINING, lively(CONFIG).state_dict(), some_statistics())
    return tmp_path


def test_what_is_written_comes_back(tmp_path):
    weights, stats = lively(CONFIG).state_dict(), some_statistics()
    checkpoint.write(tmp_path, TRAINING, weights, stats)
    found = checkpoint.read_weights(tmp_path, CONFIG, V, MAX_BYTES)
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    measured = checkpoint.read_statistics(tmp_path, CONFIG, V, MAX_BYTES)
    assert list(measured) == list(stats)
    for name, expected in stats.items():
        for one, other in zip(measured[name], expected, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_hessians_belong_to_weights_that_multiply_and_fisher_to_every_matrix():
    measured = checkpoint.statistics_of(CONFIG, V)
    shape = checkpoint.shapes_of(CONFIG, V)["blocks.1.mlp.down.weight"]
    assert measured["blocks.1.mlp.down.weight"] == {
        "hessian": (shape[1], shape[1]),
        "activation": (shape[1],),
        "fisher": shape,
        "row_score": (shape[0],),
    }
    assert set(measured["bigram.table.weight"]) == {"fisher", "row_score"}
    assert "hessian" in measured["tok_emb.weight"]
    assert "blocks.0.attn_scale" not in measured


def test_recipes_that_differ_after_training_share_a_checkpoint_and_others_do_not(folder):
    checkpoint.read_weights(folder, load(FULL.replace("window: 32", "window: 16")), V, MAX_BYTES)
    other = load(FULL.replace("muon_decay: 0.04", "muon_decay: 0.05"))
    for read in (checkpoint.read_weights, checkpoint.read_statistics):
        with pytest.raises(ValueError, match="another recipe"):
            read(folder, other, V, MAX_BYTES)
        with pytest.raises(ValueError, match="vocabulary of 97, expected 98"):
            read(folder, CONFIG, V + 1, MAX_BYTES)


def test_a_recipe_that_measures_nothing_has_no_statistics(tmp_path):
    bare = load("stats: {}")
    checkpoint.write(tmp_path, Training(bare, V, 7, 4), {}, {})
    assert not (tmp_path / checkpoint.STATISTICS_FILE).exists()
    assert checkpoint.read_statistics(tmp_path, bare, V, MAX_BYTES) == {}


def corrupt(content: dict, how: str) -> dict:
    name = "blocks.0.mlp.up.weight:hessian"
    changes = {
        "missing": {key: array for key, array in content.items() if key != name},
        "unknown": content | {"more": content[name]},
        "half": content | {name: content[name].astype("float16")},
        "shape": content | {name: content[name][:-1]},
        "nan": content | {name: content[name] * float("nan")},
        "negative": content | {name: -content[name]},
    }
    return changes[how]


@pytest.mark.parametrize("how", ["missing", "unknown", "half", "shape", "nan", "negative"])
def test_statistics_that_the_recipe_cannot_produce_are_refused(folder, how):
    path = folder / checkpoint.STATISTICS_FILE
    header, content = arrays.read(path)
    arrays.write(path, header, corrupt(content, how))
    with pytest.raises(ValueError, match="statistics"):
        checkpoint.read_statistics(folder, CONFIG, V, MAX_BYTES)


@pytest.mark.parametrize("change", [{"kind": "golf-checkpoint-1"}, {"more": 1}, {"recipe_sha256": "0"}])
def test_a_header_of_another_kind_or_recipe_is_refused(folder, change):
    path = folder / checkpoint.WEIGHTS_FILE
    header, content = arrays.read(path)
    arrays.write(path, header | change, content)
    with pytest.raises(ValueError, match="weights"):
        checkpoint.read_weights(folder, CONFIG, V, MAX_BYTES)


def test_a_file_larger_than_allowed_is_not_read(folder):
    with pytest.raises(ValueError, match="no plain file of 1 to 100 bytes"):
        checkpoint.read_weights(folder, CONFIG, V, 100)
