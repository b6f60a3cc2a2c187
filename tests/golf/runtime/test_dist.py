"""The number of processes, and a contestant that must not train on the CPU where it was given GPUs."""

from __future__ import annotations

import pytest
import torch

from golf.recipe.config import load
from golf.runtime import dist
from golf.runtime.errors import StageError
from tests.golf.fakes.judge import LIMITS, Judge, fail_stage, run_stage, setup_frame
from tests.golf.fakes.recipes import FULL

CONFIG = load("hardware: {ranks: 2}")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")


@without_gpu
def test_on_a_cpu_the_recipe_says_how_many_processes_there_are():
    assert dist.wanted_world(CONFIG) == 2


@pytest.mark.parametrize("visible", [0, 4])
def test_fewer_gpus_than_the_profile_grants_are_refused(monkeypatch, visible):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    with pytest.raises(StageError, match=rf"grants: 8, that torch .* sees: {visible}\. .*LD_LIBRARY_PATH"):
        dist.wanted_world(CONFIG, 8)


@pytest.mark.slow
@without_gpu
@pytest.mark.parametrize("stage", ["train", "score"])
def test_a_stage_that_was_given_gpus_ends_where_torch_sees_none(tmp_path, stage):
    extra = {"artifact": "/none", "role": "scorer", "tokens": 1} if stage == "score" else {}
    frame = setup_frame(tmp_path, FULL, **extra) | {"limits": LIMITS | {"gpus": 1}}
    status, printed = fail_stage(stage, frame)
    assert status == 1
    assert printed.splitlines()[-1].startswith("StageError: GPUs that the profile grants: 1, that torch")


@pytest.mark.slow
def test_describe_has_no_gpus_whatever_the_profile_grants(tmp_path):
    def script(judge: Judge) -> list[str]:
        return [judge.receive()[0]["op"] for _ in range(2)]

    frame = setup_frame(tmp_path, FULL) | {"limits": LIMITS | {"gpus": 8}}
    assert run_stage("describe", frame, script) == ["ready", "description"]
