"""A recipe that the contestant cannot read: its lines about the recipe are the error, safe to print."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.dataset import Dataset
from harness.run.describe import MAX_MISTAKE_CHARACTERS, MAX_MISTAKES, recipe_mistakes
from tests.harness.fakes.sandbox import Sandbox

RECIPE = Path("submissions/x/config.yaml")


def test_lines_that_name_a_place_in_the_recipe_are_repeated_with_its_path() -> None:
    log = [
        "a warning of a library",
        "config.yaml:3:5: model.layerz: unknown key; did you mean 'layers'?",
        "see config.yaml:4:5: not at the beginning",
        "config.yaml:x:5: no line",
        "config.yaml:12:1: train.seq: expected a whole number",
    ]
    assert recipe_mistakes(log, RECIPE) == [
        "submissions/x/config.yaml:3:5: model.layerz: unknown key; did you mean 'layers'?",
        "submissions/x/config.yaml:12:1: train.seq: expected a whole number",
    ]


def test_a_hostile_line_is_escaped_and_cut() -> None:
    (line,) = recipe_mistakes(["config.yaml:1:1: \x1b[2J\u202e" + "x" * 1000], RECIPE)
    assert line.isprintable()
    assert line.startswith("submissions/x/config.yaml:1:1: \\x1b[2J\\u202exxx")
    assert len(line) == len("submissions/x/config.yaml") + MAX_MISTAKE_CHARACTERS + len("...")


def test_many_mistakes_are_cut_off_and_counted() -> None:
    found = recipe_mistakes([f"config.yaml:{line}:1: wrong" for line in range(1, 100)], RECIPE)
    assert len(found) == MAX_MISTAKES + 1
    assert found[-1] == "submissions/x/config.yaml: 79 more mistakes are not shown"


@pytest.mark.slow
def test_mistakes_of_a_recipe_are_the_error_of_a_run_without_the_stage(tmp_path: Path, tiny: Dataset) -> None:
    picky = """
def describe(wire, setup):
    print("config.yaml:3:5: model.layerz: unknown key", flush=True)
    print("config.yaml:4:5: model.width: expected a whole number", flush=True)
    raise SystemExit(2)
"""
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]", picky)
    process = sandbox.start()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    place = sandbox.submission / "config.yaml"
    assert f"error: {place}:3:5: model.layerz: unknown key\n{place}:4:5: model.width: expected" in err
    assert "stage describe" not in err
