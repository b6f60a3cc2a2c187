"""`just windows`: one table over models and window rules, from artifacts on disk."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from golf.bench import windows
from golf.inference.windows import WindowRule
from golf.recipe.config import load
from golf.stages import pack
from golf.training.loader import HEADER_BYTES
from tests.golf.fakes.recipes import lively

RECIPE = """
model: {layers: 2, width: 16, heads: 2, kv_heads: 1, mlp_hidden: 16}
score: {window: 256, stride: 64, batch_windows: 4}
"""


@pytest.fixture
def folders(tmp_path, shared):
    """A dataset of 1,500 validation tokens in documents of 100, and two packed models."""
    random, config = np.random.default_rng(0), load(RECIPE)
    tokens = random.integers(300, 1024, 1500).astype("<u2")
    tokens[::100] = 1
    header = np.zeros(HEADER_BYTES // 4, "<i4")
    header[:3] = 20240520, 1, len(tokens)
    (tmp_path / "val_000000.bin").write_bytes(header.tobytes() + tokens.tobytes())
    shutil.copy(shared / "tokenizers" / "fineweb_1024_bpe.model", tmp_path / "tokenizer.model")
    seeds = []
    for seed in (1, 2):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        model = lively(config, seed, 1024)
        weights = {name: weight.detach() for name, weight in model.state_dict().items()}
        (folder / pack.ARTIFACT_FILE).write_bytes(pack.to_artifact(weights, {}, config, 1 << 30))
        (folder / "config.yaml").write_text(RECIPE)
        seeds.append(str(folder))
    return tmp_path, seeds


@pytest.mark.slow
def test_each_rule_has_a_row_of_means_over_the_models(folders, capsys):
    data, seeds = folders
    options = ["--data", str(data), "--tokens", "701", "--rows", "8", *seeds]
    assert windows.main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["models"], found["tokens"], found["window"]) == (2, 701, 256)
    assert [(each["align"], each["stride"]) for each in found["rows"]] == [
        ("stream", 64),
        ("stream", 256),
        ("documents", 64),
        ("documents", 256),
    ]
    flat, apart, aligned, _ = found["rows"]
    assert flat["difference"] == 0
    assert apart["difference"] == pytest.approx(apart["bits_per_byte"] - flat["bits_per_byte"])
    assert aligned["positions_per_token"] < 2 < flat["positions_per_token"]
    assert all(each["largest_row_difference_nats"] < 1e-4 for each in found["rows"])
    assert "| documents | 256 |" in windows.table(found)


def test_a_missing_artifact_is_an_error_with_its_name(folders, capsys):
    data, seeds = folders
    shutil.rmtree(seeds[1])
    assert windows.main(["--data", str(data), *seeds]) == 2
    assert "seed-2: no artifact.bin" in capsys.readouterr().err


def test_an_artifact_of_another_shape_is_an_error_that_names_profile_and_vocabulary(folders, capsys):
    data, seeds = folders
    (data / "seed-1" / "config.yaml").write_text(RECIPE.replace("width: 16", "width: 32"))
    assert windows.main(["--data", str(data), *seeds]) == 2
    told = capsys.readouterr().err
    assert "profile must be pocket (--profile), and its vocabulary the dataset's, 1,024" in told


def test_a_document_of_a_hundred_tokens_costs_one_pass_of_the_shortest_length():
    tokens = np.full(1000, 7)
    tokens[::100] = 1
    assert windows.positions_per_token(WindowRule(512, 64, 1), tokens, 4) == pytest.approx(1.28)
    assert windows.positions_per_token(WindowRule(512, 64), np.full(64 * 100, 7), 4) == pytest.approx(
        8, rel=0.05
    )
