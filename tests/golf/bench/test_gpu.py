"""The GPU checks at tiny sizes on a CPU: each measures what it says, and a failure becomes a row."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from golf.bench import checks, gpu
from golf.bench.checks import CheckSettings, Failed, Passed, StepCost
from golf.bench.gpu import Check, Row
from golf.bench.reference_attention import attend_reference
from golf.model.gpt import mean_nats
from golf.model.kernels import ATTENTION
from golf.recipe.config import load

SETTINGS = CheckSettings(
    torch.device("cpu"), torch.float32, compiled=False, steps=2, warm_up=1, attention_shape=(1, 160, 4, 2, 8)
)
V = 64
TINY = """
model: {layers: 4, width: 16, heads: 2, kv_heads: 1, mlp_hidden: 16, loop_layers: [1, 2], loop_passes: 1}
train: {batch_tokens: 128, seq_len: 16}
score: {window: 16, stride: 4, chunk_tokens: 64, batch_windows: 4}
adapt: {epochs: 2, seq_len: 16}
hardware: {precision: float32}
"""


@pytest.mark.parametrize("name", ["sdpa", "blocks"])
def test_attention_kernels_agree_with_the_definition(name):
    (passed,) = checks.attention(name, SETTINGS)
    assert 0 <= passed.numbers["error"] < checks.TOLERANCE[torch.float32]


def test_a_wrong_kernel_fails_and_a_missing_one_does_not(monkeypatch):
    monkeypatch.setitem(ATTENTION, "sdpa", lambda q, k, v: attend_reference(q, k, v) * 1.01)
    with pytest.raises(Failed, match="above"):
        checks.attention("sdpa", SETTINGS)
    if not torch.cuda.is_available():
        assert "not there" in checks.attention("flash3", SETTINGS)[0].seen


@pytest.mark.slow
def test_a_compiled_forward_that_differs_fails(monkeypatch):
    config = load(TINY)
    assert checks.compiled_forward(config, V, SETTINGS)[0].numbers["cosine"] == pytest.approx(1, abs=1e-5)
    whole = checks._trainer

    def off(*arguments):
        trainer = whole(*arguments)
        trainer.loss = lambda ids_BT, targets_BT, plan: mean_nats(
            trainer.model(ids_BT, plan=plan) + torch.arange(V) % 7, targets_BT
        )
        return trainer

    monkeypatch.setattr(checks, "_trainer", off)
    with pytest.raises(Failed, match="cosine"):
        checks.compiled_forward(config, V, SETTINGS)


def test_training_has_a_row_for_each_phase_and_recurrence_costs_more_operations():
    once, looped = checks.training("tiny", load(TINY), V, 128, SETTINGS)
    assert looped.name == "training tiny, recurrent"
    assert looped.numbers["flops_per_token"] > once.numbers["flops_per_token"]
    assert once.numbers["fastest"] <= once.numbers["step_seconds"] <= once.numbers["slowest"]
    assert "peak" not in once.seen  # memory and utilisation are measured on a GPU only


def test_an_overhead_is_the_ratio_of_two_step_times():
    config = load(TINY)
    quantised = replace(config, train=replace(config.train, qat_bits=7))
    (passed,) = checks.overhead(
        StepCost("qat", quantised, config, "public: +6 %", quantised=True), V, 128, SETTINGS
    )
    assert passed.numbers["ratio"] == passed.numbers["with"] / passed.numbers["without"]


def test_evaluation_and_adaptation_give_rates_and_seconds_for_the_whole_split(monkeypatch):
    monkeypatch.setitem(checks.FULL_VALIDATION, V, 8000)
    for (passed,) in (
        checks.sliding("tiny", load(TINY), V, 2, SETTINGS),
        checks.adaptation("tiny", load(TINY), V, SETTINGS),
    ):
        assert passed.numbers["projected_seconds"] == pytest.approx(
            1000 / passed.numbers["tokens_per_second"]
        )


def passing() -> list[Passed]:
    return [Passed("a", "fine", {"x": 1.0}), Passed("b", "fine too", {})]


def failing(how: str) -> list[Passed]:
    if how == "dies":
        os._exit(7)
    if how == "hangs":
        time.sleep(600)
    raise Failed("wrong by far")


@pytest.mark.slow
def test_a_check_that_fails_crashes_or_hangs_becomes_a_row_and_the_others_still_run():
    listed = [
        Check("wrong", partial(failing, "raises"), 60),
        Check("dead", partial(failing, "dies"), 60),
        Check("slow", partial(failing, "hangs"), 0.5),
        Check("good", passing, 60),
    ]
    rows = gpu.run_checks(listed, 300)
    assert [row.name for row in rows] == ["wrong", "dead", "slow", "a", "b"]
    assert [row.passed for row in rows] == [False, False, False, True, True]
    assert "wrong by far" in rows[0].seen and "status 7" in rows[1].seen and "not done" in rows[2].seen
    assert "no time" in gpu.run_checks(listed[:1], 0)[0].seen


def test_the_report_has_every_row_and_one_failure_sets_the_status(tmp_path, capsys):
    good, bad = Row("a", True, "fine", {"x": 1.0}, 1.0), Row("b", False, "broken", {}, 2.0)
    assert gpu.report([good], "a card", tmp_path / "out.json") == 0
    assert gpu.report([good, bad], "a card", tmp_path / "out.json") == 1
    assert "| b | FAILED | broken | 2 |" in capsys.readouterr().out
    assert [row["name"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]] == ["a", "b"]


def test_every_check_is_built_from_the_submissions_and_a_skipped_script_is_reported():
    listed, skipped = gpu.all_checks(SETTINGS, argparse.Namespace(script=None, data=None))
    assert len({check.name for check in listed}) == len(listed) >= 11
    assert "no --script" in skipped


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_is_claimed(capsys):
    assert gpu.main([]) == 0
    assert "nothing is claimed" in capsys.readouterr().out
