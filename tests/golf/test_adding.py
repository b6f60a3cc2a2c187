"""The steps for adding a technique in the README name the right places, and a forgotten step fails a test."""

from __future__ import annotations

import importlib
import re

import pytest

from golf.model import init
from golf.recipe.config import load
from golf.runtime.errors import StageError
from tests.golf import test_neutral
from tests.golf.fakes.recipes import FULL, ROOT, lively, named
from tests.golf.stages import test_describe

README = (ROOT / "README.md").read_text(encoding="utf-8")
STEPS = README.split("- **A technique**")[1].split("\n- **")[0]
PATHS = re.findall(r"`([\w/.]+/[\w/.]*)`", STEPS)
NAMES = {
    "TECHNIQUES": "golf/stages/describe.py",
    "PLAIN_SETTINGS": "golf/stages/describe.py",
    "CONSTANTS": "golf/model/init.py",
    "rule_for": "golf/model/init.py",
    "FULL": "tests/golf/fakes/recipes.py",
    "TENSORS": "tests/golf/test_neutral.py",
    "NULL": "tests/golf/test_neutral.py",
}
"""Everything that a new technique may have to be added to -> where it is."""


@pytest.mark.parametrize("path", PATHS)
def test_every_path_in_the_steps_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_name_every_place_that_lists_techniques_and_it_is_there(name):
    assert f"`{name}`" in STEPS
    assert NAMES[name] in PATHS
    module = importlib.import_module(NAMES[name].removesuffix(".py").replace("/", "."))
    assert hasattr(module, name)


def test_a_field_that_is_no_technique_and_no_plain_setting_fails_a_test(monkeypatch):
    others = [each for each in test_describe.TECHNIQUES if each.name != "smear-gate"]
    monkeypatch.setattr(test_describe, "TECHNIQUES", others)
    with pytest.raises(AssertionError, match=r"model\.smear"):
        test_describe.test_every_field_of_the_recipe_belongs_to_a_technique_or_is_a_plain_setting()


def test_a_tensor_without_an_initial_value_fails_every_test_of_the_full_recipe(monkeypatch):
    monkeypatch.delitem(init.CONSTANTS, "smear.gate")
    with pytest.raises(StageError, match=r"smear\.gate"):
        lively(load(FULL))


def test_a_technique_that_the_full_recipe_leaves_off_fails_a_test(monkeypatch):
    monkeypatch.setattr(test_neutral, "FULL", FULL.replace("smear: true", "smear: false"))
    with pytest.raises(AssertionError):
        test_neutral.test_every_technique_changes_the_logits_when_on("smear-gate")


def test_a_tensor_that_is_not_listed_fails_a_test(monkeypatch):
    monkeypatch.delitem(test_neutral.TENSORS, "smear-gate")
    with pytest.raises(AssertionError, match=r"smear\.gate"):
        test_neutral.test_switching_a_technique_off_removes_exactly_its_tensors(named("smear-gate"))
