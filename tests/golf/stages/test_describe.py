"""What golf reports of a recipe: published parameter counts, a technique per switch, variants that load."""

from __future__ import annotations

import dataclasses
import math

import pytest

from golf.recipe.config import load
from golf.runtime.program import code_bytes
from golf.stages.describe import TECHNIQUES, estimated_artifact_bytes, first_changed, is_on
from golf.training.checkpoint import shapes_of
from harness.run import bundle
from tests.golf.fakes.judge import run_stage, setup_frame
from tests.golf.fakes.recipes import ROOT, named

pytestmark = pytest.mark.slow

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


def test_a_submission_is_described_within_its_limits(described):
    """code_bytes counts all sources here, golf.bench included, which is more than the bundle."""
    _, text, description = described
    assert set(description["techniques"]) == on(text)
    bundled = description["estimated_bytes"] - code_bytes() + len(bundle.build(ROOT / "golf").pyz)
    assert bundled < 16_000_000 * 1.03
    assert not is_on(named("int-grid"), load(description["unquantised"]))


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
