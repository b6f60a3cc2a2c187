"""What golf reports of a recipe: published parameter counts, a technique per switch, variants that load."""

from __future__ import annotations

import dataclasses
import json
import math
import socket
from pathlib import Path

import pytest
import torch

from golf.model import init
from golf.recipe.config import Config, as_tree, load
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.runtime.program import code_bytes
from golf.runtime.wire import Setup, Wire
from golf.stages import describe
from golf.stages.describe import (
    PLAIN_SETTINGS,
    TECHNIQUES,
    estimated_artifact_bytes,
    first_changed,
    is_on,
    override_remarks,
)
from golf.training.checkpoint import shapes_of
from harness.run import bundle
from tests.golf.fakes.judge import fail_stage, run_stage, setup_frame
from tests.golf.fakes.recipes import ROOT, named

ALONE = Ranks(0, 1, torch.device("cpu"))
SUBMISSIONS = {
    path.parent.name: path.read_text() for path in sorted((ROOT / "submissions").glob("*/config.yaml"))
}
PUBLISHED = {
    "naive-baseline": (1024, 17_059_912, 15_863_489 - 47_642),
    "hadamard-ve128": (1024, 27_038_810, 15_567_435),
    "sp8192-parres-ttt": (8192, 35_944_536, 15_975_300),
    "lowrank-q-qat": (1024, 20_999_264, 15_178_239),
}
"""Vocabulary, parameters, artifact bytes: the record's log, #586, #1493, #316's table (uniform int6)."""


def on(text: str, profile: str = "record") -> set[str]:
    config = load(text, profile)
    return {technique.name for technique in TECHNIQUES if is_on(technique, config)}


@pytest.fixture(scope="module", params=SUBMISSIONS)
def described(request, tmp_path_factory):
    """A submission's name, its recipe's text, and what `describe` reports of it."""
    text = SUBMISSIONS[request.param]
    folder = tmp_path_factory.mktemp("describe")
    fields = setup_frame(folder, text, vocab_size=8192 if request.param.startswith("sp8192") else 1024)

    def script(judge):
        assert judge.receive()[0] == {"op": "ready"}
        description = judge.receive()[0]
        variants, more = [], description["more"]
        while more:
            frame = judge.receive()[0]
            variants, more = variants + frame["variants"], frame["more"]
        return description | {"variants": variants}

    return request.param, text, run_stage("describe", fields, script)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_artifact_are_as_published_within_three_percent_of_the_bytes(name):
    vocab_size, parameters, n_bytes = PUBLISHED[name]
    config = load(SUBMISSIONS[name], "record")
    shapes = shapes_of(config, vocab_size)
    assert sum(map(math.prod, shapes.values())) == parameters
    assert estimated_artifact_bytes(config, shapes, 16_000_000) == pytest.approx(n_bytes, rel=0.03)


def test_an_allocated_artifact_is_never_estimated_above_its_limit():
    config = load(SUBMISSIONS["sp8192-hadamard-awq"], "record")
    shapes = shapes_of(config, 8192)
    free = dataclasses.replace(config, quant=dataclasses.replace(config.quant, allocate=False))
    assert estimated_artifact_bytes(free, shapes, 15_900_000) > 20_000_000
    assert estimated_artifact_bytes(config, shapes, 15_900_000) == 15_900_000


@pytest.mark.slow
def test_a_submission_is_described_within_its_limits(described):
    """code_bytes counts all sources here, golf.bench included, which is more than the bundle."""
    _, text, description = described
    assert set(description["techniques"]) == on(text)
    assert description["remarks"] == [], "record overrides nothing"
    bundled = description["estimated_bytes"] - code_bytes() + len(bundle.build(ROOT / "golf").pyz)
    assert bundled <= 16_000_000
    assert not is_on(named("int-grid"), load(description["unquantised"]))


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["record", "solo", "pocket"])
def test_each_variant_lacks_its_technique_in_every_profile(described, profile):
    _, text, description = described
    assert [v["name"] for v in description["variants"]] == [
        f"without {name}" for name in description["techniques"]
    ]
    whole = on(text, profile)
    for variant in description["variants"]:
        lacking = variant["name"].removeprefix("without ")
        assert on(variant["config"], profile) == whole - {lacking}
        assert on(variant["unquantised"], profile) == whole - {lacking, "int-grid"}
        assert variant["changes"] == first_changed(named(lacking))


def test_the_first_changed_stage_is_the_earliest_that_sees_a_field():
    assert [first_changed(named(name)) for name in ("qat", "hadamard", "test-time-training")] == [
        "train",
        "pack",
        "score",
    ]


def test_every_field_of_the_recipe_belongs_to_a_technique_or_is_a_plain_setting():
    """Names the fields that are declared in neither place, in both, or that no longer exist."""
    fields = {f"{section}.{field}" for section, values in as_tree(Config()).items() for field in values}
    of_techniques = {field for technique in TECHNIQUES for field in technique.neutral}
    assert fields - of_techniques - PLAIN_SETTINGS == set()
    assert (of_techniques | PLAIN_SETTINGS) - fields == set()
    assert of_techniques & PLAIN_SETTINGS == set()


def test_a_remark_names_the_fields_that_the_profile_overrides_first_those_of_the_top_level():
    text = """
model: {layers: 9, width: 256}
optim: {clip: 0.3}
profiles:
  solo: {}
  pocket: {model: {layers: 4, width: 256, smear: true}, optim: {clip: 0.5}, train: {batch_tokens: 8192}}
"""
    assert override_remarks(text, "pocket") == [
        "profile pocket overrides model.layers (9 -> 4), optim.clip (0.3 -> 0.5), "
        "model.smear (false -> true), train.batch_tokens (524288 -> 8192)"
    ]
    assert override_remarks(text, "solo") == override_remarks(text, "record") == []


def test_a_remark_counts_the_overridden_fields_that_it_has_no_room_for():
    (remark,) = override_remarks(SUBMISSIONS["hadamard-ve128"], "pocket")
    assert remark.startswith(
        "profile pocket overrides model.layers (11 -> 4), model.mlp_hidden (1536 -> 384), "
    )
    assert remark.endswith(" and 19 more")
    assert len(remark) <= 200


def test_a_remark_cuts_a_long_value():
    ten, forty = list(range(10)), list(range(40))
    model = f"layers: 40, loop_layers: {forty}"
    (remark,) = override_remarks(
        f"model: {{{model}}}\nprofiles: {{solo: {{model: {{loop_layers: {ten}}}}}}}", "solo"
    )
    assert remark.startswith("profile solo overrides model.loop_layers ([0, 1, 2, ")
    assert remark.endswith("... -> [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])")
    assert len(remark) <= 200


@pytest.mark.slow
def test_mistakes_in_a_recipe_end_the_stage_with_their_lines_and_status_2(tmp_path):
    text = "model: {layrs: 3, heads: 042}\nprofiles:\n  solo: {model: {layers: -1}}\n"
    assert fail_stage("describe", setup_frame(tmp_path, text)) == (
        2,
        "config.yaml:1:9: model.layrs: unknown key; did you mean 'layers'?\n"
        'config.yaml:1:26: model.heads: 042 is ambiguous in YAML; write 42, or "042" for text\n'
        "config.yaml:3:18: model.layers: got -1; expected a number of at least 1 (profile solo)\n",
    )


@pytest.mark.slow
def test_a_recipe_that_aligns_windows_by_a_token_beyond_the_vocabulary_is_refused_before_training(tmp_path):
    text = "score: {align: documents, bos: 97}\n"
    assert fail_stage("describe", setup_frame(tmp_path, text)) == (
        2,
        "score.bos: got 97; the vocabulary has the tokens 0 .. 96\n",
    )


@pytest.mark.slow
def test_a_recipe_that_is_no_yaml_ends_the_stage_with_one_line_and_status_2(tmp_path):
    frame = setup_frame(tmp_path, "model: {layers: 3\noptim: {}\n")
    (tmp_path / "config.yaml").rename(tmp_path / "recipe.yaml")
    status, printed = fail_stage("describe", frame | {"config": str(tmp_path / "recipe.yaml")})
    assert (status, printed.count("\n")) == (2, 1)
    assert printed.startswith("recipe.yaml:2:6: while parsing a flow mapping, expected ',' or '}'")


def setup_here(folder: Path, text: str, profile: str = "record") -> Setup:
    """The `setup` of a stage that runs in this process."""
    config = folder / "config.yaml"
    config.write_text(text)
    return Setup("describe", 7, profile, 97, config, config, folder, {"counted_bytes": 16_000_000})


def test_the_description_carries_the_remarks_about_the_profile_that_the_judge_asks_for(tmp_path):
    text = "model: {layers: 9}\nprofiles: {pocket: {model: {layers: 2}}}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        describe.run(Wire(ours), setup_here(tmp_path, text, "pocket"), load(text, "pocket"), ALONE)
        with theirs.makefile("rb") as frames:
            ready, description = (json.loads(frames.readline()) for _ in range(2))
    assert ready == {"op": "ready"}
    assert description["remarks"] == ["profile pocket overrides model.layers (9 -> 2)"]


def test_a_parameter_that_nothing_initialises_is_found_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delitem(init.CONSTANTS, "attn_scale")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(StageError, match=r"no rule initialises the parameter blocks\.0\.attn_scale"):
            describe.run(Wire(ours), setup_here(tmp_path, "{}"), load("{}"), ALONE)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
