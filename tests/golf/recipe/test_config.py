"""Recipes: every mistake with its place, merging of profiles, the resolved text and its digests."""

from __future__ import annotations

import dataclasses

import pytest

from golf.recipe.config import PROFILES, as_tree, digest, load, resolved, training_digest
from golf.recipe.mistakes import ConfigError
from golf.recipe.schema import Config, ModelConfig, OptimConfig
from golf.recipe.section import Range
from tests.golf.fakes.recipes import FULL, ROOT, SUBMISSION

HORIZON = "expected an integer that counts steps, or a fraction of the run in 0..1"
NO_DATA = "because pack has no access to data"
CONSECUTIVE = "expected consecutive layers in 0..8, ascending"
ROWS = "expected a multiple of 8 * train.seq_len, 8192"
REFUSED = {
    "model: {layrs: 3}": "1:9: model.layrs: unknown key; did you mean 'layers'?",
    "modle: {layers: 3}": "1:1: modle: unknown key; did you mean 'model'?",
    "model: {layers: true}": "1:9: model.layers: got true; expected an integer",
    "model: {layers: 3.0}": "1:9: model.layers: got 3.0; expected an integer",
    "model: {layers: 1e3}": "1:9: model.layers: got 1000.0; expected an integer",
    "model: {layers: '3'}": '1:9: model.layers: got "3"; expected an integer',
    "model: {smear: 1}": "1:9: model.smear: got 1; expected true or false",
    "model: {ve_layers: 9}": "1:9: model.ve_layers: got 9; expected a list",
    "model: {ve_layers: [1, x]}": '1:9: model.ve_layers: got "x"; expected an integer',
    "model: {init: fancy}": '1:9: model.init: got "fancy"; expected one of default, orthogonal',
    "model: {width: 500}": "1:9: model.width: got 500; expected a multiple of model.heads, 8",
    "model: {width: 40}": (
        "1:9: model.width: got 40, so that heads are 5 wide; rotation needs an even width"
    ),
    "model: {kv_heads: 3}": "1:9: model.heads: got 8; expected a multiple of model.kv_heads, 3",
    "model: {rope_dims: 3}": (
        "1:9: model.rope_dims: got 3; expected an even number up to the width of a head, 64"
    ),
    "model: {ve_dim: 8}": ("1:9: model.ve_dim: got 8 without layers to use it; name them in model.ve_layers"),
    "model: {ve_dim: 8, ve_layers: [9]}": (
        "1:20: model.ve_layers: got [9]; expected distinct layers in 0..8"
    ),
    "optim: {warmdown: 1.5}": f"1:9: optim.warmdown: got 1.5; {HORIZON}",
    "optim: {warmdown: -1}": f"1:9: optim.warmdown: got -1; {HORIZON}",
    "train: {batch_tokens: 1000}": f"1:9: train.batch_tokens: got 1000; {ROWS}",
    "train: {qat_bits: 1}": "1:9: train.qat_bits: got 1; expected 0 or 2..8",
    "stats: {batch_tokens: 1000}": f"1:9: stats.batch_tokens: got 1000; {ROWS}",
    "model: {layers: 0}": "1:9: model.layers: got 0; expected a number of at least 1",
    "model: {embed_std: 0.0}": "1:9: model.embed_std: got 0.0; expected a number above 0",
    "model: {rope_base: 1}": "1:9: model.rope_base: got 1.0; expected a number above 1",
    "model: {mlp_slope: 1.5}": "1:9: model.mlp_slope: got 1.5; expected a number in 0..1",
    "model: {q_rank: 512}": "1:9: model.q_rank: got 512; expected a number below model.width, 512",
    "model: {parallel_last: 10}": "1:9: model.parallel_last: got 10; expected at most model.layers, 9",
    "model: {loop_layers: [2, 4]}": f"1:9: model.loop_layers: got [2, 4]; {CONSECUTIVE}",
    "model: {loop_layers: [4, 3]}": f"1:9: model.loop_layers: got [4, 3]; {CONSECUTIVE}",
    "model: {loop_layers: [8, 9]}": f"1:9: model.loop_layers: got [8, 9]; {CONSECUTIVE}",
    "model: {loop_layers: [-1, 0]}": f"1:9: model.loop_layers: got [-1, 0]; {CONSECUTIVE}",
    "quant: {bits: 9}": "1:9: quant.bits: got 9; expected a number in 2..8",
    "quant: {bits: x}": '1:9: quant.bits: got "x"; expected an integer or null',
    "quant: {embed_bits: 12}": "1:9: quant.embed_bits: got 12; expected 0, 2..8 or 16",
    "quant: {down_bits: 1}": "1:9: quant.down_bits: got 1; expected 0 or 2..8",
    "quant: {codec: zlib}": "1:9: quant.level: got 22; expected 1..9 for zlib",
    "quant: {gptq: true}": f"1:9: quant.gptq: got true; it needs stats.hessian_batches above 0, {NO_DATA}",
    "quant: {awq: true}": f"1:9: quant.awq: got true; it needs stats.hessian_batches above 0, {NO_DATA}",
    "quant: {fisher: true}": (
        f"1:9: quant.fisher: got true; it needs stats.fisher_batches above 0, {NO_DATA}"
    ),
    "quant: {row_bits: true}": (
        f"1:9: quant.row_bits: got true; it needs stats.row_score_every above 0, {NO_DATA}"
    ),
    "score: {stride: 2048}": "1:9: score.stride: got 2048; expected at most score.window, 1024",
    "score: {chunk_tokens: 100}": (
        "1:9: score.chunk_tokens: got 100; expected a multiple of score.stride, 64"
    ),
    "hardware: {ranks: 3}": "1:12: hardware.ranks: got 3; expected 1, 2, 4 or 8",
    "[1, 2]": "1:1: got [1, 2]; expected a mapping of sections",
    "model: 3": "1:1: model: got 3; expected a mapping of fields",
    "profiles: 3": "1:1: profiles: got 3; expected a mapping of profiles",
    "profiles: {solo: 3}": "1:12: profiles.solo: got 3; expected a mapping of sections",
    "profiles: {pockt: {}}": "1:12: profiles.pockt: unknown key; did you mean 'pocket'?",
    "profiles: {record: {}}": "1:12: profiles.record: unknown key; known: solo, pocket",
    "profiles: {solo: {model: {layers: -1}}}": (
        "1:27: model.layers: got -1; expected a number of at least 1 (profile solo)"
    ),
    "profiles: {solo: {model: 1}}": "1:19: model: got 1; expected a mapping of fields (profile solo)",
    "model: {width: 384}\nprofiles: {solo: {model: {heads: 5}}}": (
        "2:27: model.width: got 384; expected a multiple of model.heads, 5 (profile "
        "solo)\nconfig.yaml:2:27: model.heads: got 5; expected a multiple of model.kv_heads, "
        "4 (profile solo)"
    ),
    "quant: {awq: true}\nstats: {hessian_batches: 1}\nprofiles: {pocket: {stats: {hessian_batches: 0}}}": (
        f"3:29: quant.awq: got true; it needs stats.hessian_batches above 0, {NO_DATA} (profile pocket)"
    ),
}
"""A recipe -> its mistakes, as golf prints them after the file's name."""
SEVERAL = """
model:
  layrs: 042
  width: 500
  smear: yes
  xsa_last: 12
  init: fancy
modle: {heads: 7}
quant: {gptq: true, codec: zlib, bits: 9}
profiles:
  pocket:
    model: {layers: -1, kv_heads: 3}
    optim: {clip: "1"}
"""
MISTAKES = """\
x.yaml:3:3: model.layrs: unknown key; did you mean 'layers'?
x.yaml:3:10: model.layrs: 042 is ambiguous in YAML; write 42, or "042" for text
x.yaml:5:10: model.smear: yes is ambiguous in YAML; write true, or "yes" for text
x.yaml:7:3: model.init: got "fancy"; expected one of default, orthogonal
x.yaml:8:1: modle: unknown key; did you mean 'model'?
x.yaml:9:9: quant.gptq: got true; it needs stats.hessian_batches above 0, because pack has no access to data
x.yaml:9:21: quant.level: got 22; expected 1..9 for zlib
x.yaml:9:34: quant.bits: got 9; expected a number in 2..8
x.yaml:12:13: model.layers: got -1; expected a number of at least 1 (profile pocket)
x.yaml:13:13: optim.clip: got "1"; expected a number (profile pocket)"""
"""Nothing about the width and xsa_last: what modle and layrs stand for may change their limits."""


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_an_invalid_recipe_is_refused_with_the_place_of_the_error(text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value) == f"config.yaml:{REFUSED[text]}"


def test_every_mistake_is_reported_in_the_order_of_the_file_whatever_the_profile():
    for profile in PROFILES:
        with pytest.raises(ConfigError) as caught:
            load(SEVERAL, profile, "x.yaml")
        assert str(caught.value) == MISTAKES


def test_a_mistake_that_no_profile_repairs_is_reported_once():
    with pytest.raises(ConfigError) as caught:
        load("model: {layers: 0}\nprofiles: {solo: {}, pocket: {model: {layers: 3}}}", "pocket")
    assert str(caught.value) == "config.yaml:1:9: model.layers: got 0; expected a number of at least 1"


def test_a_profile_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match='asks for the profile "pockt"; known: record, solo, pocket'):
        load("{}", "pockt")


@pytest.mark.parametrize("path", sorted((ROOT / "submissions").glob("*/config.yaml")), ids=str)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_submission_loads_in_every_profile(path, profile):
    config = load(path.read_text(), profile)
    assert load(resolved(config)) == config


def test_a_number_may_have_an_exponent_without_a_fraction():
    assert load("optim: {adam_eps: 1e-9, muon_lr: 1E2}").optim == OptimConfig(adam_eps=1e-9, muon_lr=100.0)
    assert load(resolved(load("optim: {adam_eps: 1e-8}"))) == Config()


def test_profiles_merge_mappings_and_replace_lists():
    text = "model: {layers: 4, ve_dim: 8, ve_layers: [2, 3]}\nprofiles: {pocket: {model: {ve_layers: [1]}}}"
    assert load(text, "record").model.ve_layers == (2, 3)
    assert load(text, "pocket").model == ModelConfig(layers=4, ve_dim=8, ve_layers=(1,))


def test_the_resolved_text_reads_back_as_the_same_recipe():
    config = load(SUBMISSION.read_text(), "pocket")
    assert load(resolved(config)) == config
    assert digest(load(resolved(config))) == digest(config)


def test_the_digest_depends_on_the_values_and_not_on_the_spelling():
    assert digest(load("{}")) == digest(Config()) == digest(load("model: {layers: 9} # the default"))
    assert digest(load(FULL)) != digest(Config())


def test_a_config_made_in_code_is_checked_like_one_that_is_read():
    with pytest.raises(ConfigError, match=r"^model\.layers: got 0; expected a number of at least 1$"):
        ModelConfig(layers=0)
    with pytest.raises(ConfigError, match=r"^optim\.muon_lr: got 0\.0; expected a number above 0$"):
        OptimConfig(muon_lr=0.0)


def test_a_range_prints_what_it_allows():
    assert [str(r) for r in (Range(2), Range(0, open=True), Range(0, 1), Range(0, 1, open=True))] == [
        "of at least 2",
        "above 0",
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
