"""What golf says of a recipe: the published count, a technique for each switch, variants that are recipes."""

from __future__ import annotations

import pytest

from golf.config import load
from golf.describe import TECHNIQUES, build, estimated_artifact_bytes, is_on
from tests.golf.judge_stub import play, setup_frame
from tests.golf.recipes import SUBMISSION


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    folder = tmp_path_factory.mktemp("describe")
    fields = setup_frame(folder, SUBMISSION.read_text(), vocab_size=1024)

    def game(judge):
        assert judge.hear()[0] == {"op": "ready"}
        frame = judge.hear()[0]
        described = frame | {"variants": []}
        while frame["more"]:
            frame = judge.hear()[0]
            described["variants"] += frame["variants"]
        return described

    return play("describe", fields, game)


def test_the_record_is_described_as_published(description):
    assert description["parameters"] == 27_038_810
    assert set(description["techniques"]) == {technique.name for technique in TECHNIQUES}


def test_the_estimate_of_the_artifact_is_near_the_published_one():
    config = load(SUBMISSION.read_text(), "record")
    shapes = [tuple(p.shape) for p in build(config, 1024).parameters()]
    assert estimated_artifact_bytes(config, shapes) == pytest.approx(15_567_435, rel=0.01)


@pytest.mark.parametrize("profile", ["record", "solo", "pocket"])
def test_each_variant_lacks_its_technique_in_every_profile(description, profile):
    assert [v["name"] for v in description["variants"]] == [f"without {name}" for name in description["techniques"]]
    whole = {t.name for t in TECHNIQUES if is_on(t, load(SUBMISSION.read_text(), profile))}
    for variant in description["variants"]:
        on = {t.name for t in TECHNIQUES if is_on(t, load(variant["config"], profile))}
        assert on == whole - {variant["name"].removeprefix("without ")}
