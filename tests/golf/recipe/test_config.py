"""Recipes: strict parsing, suggestions for typos, merging of profiles, the resolved text and its digests."""

from __future__ import annotations

import dataclasses

import pytest

from golf.recipe.config import as_tree, digest, load, resolved, training_digest
from golf.recipe.schema import Config, ModelConfig, OptimConfig
from golf.recipe.section import ConfigError, Range
from tests.golf.fakes.recipes import FULL, SUBMISSION

REFUSED = {
    "model: {layrs: 3}": "model.layrs: unknown key; did you mean 'layers'",
    "modle: {layers: 3}": "modle: unknown key; did you mean 'model'",
    "model: {layers: true}": "model.layers: expected int",
    "model: {layers: 3.0}": "model.layers: expected int",
    "model: {layers: '3'}": "model.layers: expected int",
    "model: {smear: 1}": "model.smear: expected bool",
    "model: {ve_layers: 9}": "expected a list",
    "model: {init: fancy}": "expected one of default, orthogonal",
    "model: {softcap: .nan}": "not a finite number",
    "model: {width: 500}": "multiple of model.heads",
    "model: {ve_dim: 8}": "needs model.ve_layers",
    "model: {ve_dim: 8, ve_layers: [9]}": "must be distinct layers",
    "optim: {adam_eps: 1e-8}": "write 1.0e-8",
    "optim: {warmdown: 1.5}": "fraction of the run",
    "train: {batch_tokens: 1000}": "multiple of 8 \\* seq_len",
    "train: {qat_bits: 1}": "qat_bits must be 0 or 2..8",
    "stats: {batch_tokens: 1000}": "multiple of 8 \\* train.seq_len",
    "model: {layers: 0}": "model.layers must be at least 1, not 0",
    "model: {embed_std: 0.0}": "model.embed_std must be positive",
    "model: {mlp_slope: 1.5}": "model.mlp_slope must be in 0..1, not 1.5",
    "model: {q_rank: 512}": "q_rank 512 must be below model.width",
    "model: {parallel_last: 10}": "parallel_last 10 must be 0..9",
    "model: {loop_layers: [2, 4]}": "consecutive layers",
    "model: {loop_layers: [4, 3]}": "consecutive layers",
    "model: {loop_layers: [8, 9]}": "consecutive layers in 0..8",
    "quant: {bits: 9}": "quant.bits must be in 2..8",
    "quant: {down_bits: 1}": "down_bits must be 0 or 2..8",
    "quant: {codec: zlib}": "quant.level 22 must be 1..9 for zlib",
    "quant: {gptq: true}": "quant.gptq needs stats.hessian_batches",
    "quant: {awq: true}": "quant.awq needs stats.hessian_batches",
    "quant: {fisher: true}": "quant.fisher needs stats.fisher_batches",
    "quant: {row_bits: true}": "quant.row_bits needs stats.row_score_every",
    "hardware: {ranks: 3}": "must be 1, 2, 4 or 8",
    "model: {layers: 3}\nmodel: {layers: 4}": "duplicate key 'model'",
    "a: &x [1]\nb: *x": "anchors and aliases",
    "model: !!python/name:os.system {}": "tags",
    "model: {1: 2}": "plain strings",
    "<<: {model: {}}": "plain strings",
    "--- {}\n--- {}": "not readable as YAML",
    "[1, 2]": "mapping of sections",
    "model: 3": "expected a mapping",
    "[" * 50: "deeper than 8|not readable",
    "profiles: {pockt: {}}": "unknown profile",
    "profiles: {solo: {model: {layers: -1}}}": "at least 1",
    "#" * 70_000: "characters",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_an_invalid_recipe_is_refused_with_the_place_of_the_error(text):
    with pytest.raises(ConfigError, match=REFUSED[text]):
        load(text)


def test_a_yaml_alias_bomb_is_refused_before_it_expands():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(ConfigError, match="anchors and aliases"):
        load("\n".join(lines))


def test_profiles_merge_mappings_and_replace_lists():
    text = "model: {layers: 4, ve_dim: 8, ve_layers: [2, 3]}\nprofiles: {pocket: {model: {ve_layers: [1]}}}"
    assert load(text, "record").model.ve_layers == (2, 3)
    assert load(text, "pocket").model == ModelConfig(layers=4, ve_dim=8, ve_layers=(1,))


@pytest.mark.parametrize("profile", ["record", "solo", "pocket"])
def test_the_resolved_text_reads_back_as_the_same_recipe(profile):
    config = load(SUBMISSION.read_text(), profile)
    assert load(resolved(config)) == config
    assert digest(load(resolved(config))) == digest(config)


def test_the_digest_depends_on_the_values_and_not_on_the_spelling():
    assert digest(load("{}")) == digest(Config()) == digest(load("model: {layers: 9} # the default"))
    assert digest(load(FULL)) != digest(Config())


def test_a_config_made_in_code_is_checked_like_one_that_is_read():
    with pytest.raises(ConfigError, match="must be at least 1"):
        ModelConfig(layers=0)
    with pytest.raises(ConfigError, match="must be positive"):
        OptimConfig(muon_lr=0.0)


def test_a_range_prints_what_it_allows():
    assert [str(r) for r in (Range(2), Range(0, open=True), Range(0, 1), Range(0, 1, open=True))] == [
        "at least 2",
        "positive",
        "in 0..1",
        "in 0..1 (ends excluded)",
    ]
    assert [Range(0, 1, open=True).contains(x) for x in (0, 0.5, 1)] == [False, True, False]


def test_only_recipes_that_train_alike_share_a_training_digest():
    base = load("{}")
    same = [load(text) for text in ("quant: {bits: 5}", "score: {stride: 32}", "adapt: {epochs: 3}")]
    other = [
        load(text)
        for text in (
            "model: {smear: true}",
            "optim: {clip: 0.3}",
            "train: {qat_bits: 6}",
            "stats: {hessian_batches: 4}",
        )
    ]
    assert {training_digest(c) for c in same} == {training_digest(base)}
    assert len({training_digest(c) for c in [base, *other]}) == 5
    assert len({digest(c) for c in [base, *same, *other]}) == 8


def test_the_resolved_tree_has_every_section_and_nothing_else():
    assert list(as_tree(Config())) == [section.name for section in dataclasses.fields(Config)]
