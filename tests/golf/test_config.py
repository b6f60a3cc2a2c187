"""Recipes: strict reading with a guess for a typo, profiles that merge, a resolved text that names a run."""

from __future__ import annotations

import pytest

from golf.config import Config, ConfigError, ModelConfig, digest, load, resolved
from tests.golf.recipes import FULL, SUBMISSION

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
    "model: {layers: 3}\nmodel: {layers: 4}": "duplicate key 'model'",
    "a: &x [1]\nb: *x": "anchors and aliases",
    "model: !!python/name:os.system {}": "tags",
    "model: {1: 2}": "plain words",
    "<<: {model: {}}": "plain words",
    "--- {}\n--- {}": "not readable as YAML",
    "[1, 2]": "mapping of sections",
    "model: 3": "expected a mapping",
    "[" * 50: "deeper than 8|not readable",
    "profiles: {pockt: {}}": "unknown profile",
    "profiles: {solo: {model: {layers: -1}}}": "at least 1",
    "#" * 70_000: "characters",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_what_cannot_be_meant_is_refused_with_its_place(text):
    with pytest.raises(ConfigError, match=REFUSED[text]):
        load(text)


def test_a_bomb_of_aliases_is_refused_before_it_unfolds():
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


def test_the_digest_names_the_values_and_not_the_spelling():
    assert digest(load("{}")) == digest(Config()) == digest(load("model: {layers: 9} # the default"))
    assert digest(load(FULL)) != digest(Config())
