"""The GPU checks at tiny sizes on a CPU: each measures what it says, a failure is a row, and no GPU claims
nothing."""

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
from golf.bench.checks import Failed, Passed, Place
from golf.bench.gpu import Check, Row
from golf.bench.reference_attention import attend_reference
from golf.model.kernels import ATTENTION
from golf.recipe.config import load

PLACE = Place(
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
    (passed,) = checks.attention(name, PLACE)
    assert 0 <= passed.numbers["error"] < checks.TOLERANCE[torch.float32]


def test_a_kernel_that_is_wrong_fails_and_one_that_is_not_there_does_not(monkeypatch):
    monkeypatch.setitem(ATTENTION, "sdpa", lambda q, k, v: attend_reference(q, k, v) * 1.01)
    with pytest.raises(Failed, match="above"):
        checks.attention("sdpa", PLACE)
    if not torch.cuda.is_available():
        assert "not there" in checks.attention("flash3", PLACE)[0].seen


def test_a_compiled_forward_that_differs_fails(monkeypatch):
    config = load(TINY)
    assert checks.compiled_twin(config, V, PLACE)[0].numbers["cosine"] == pytest.approx(1, abs=1e-5)
    whole = checks._trainer

    def off(*arguments):
        trainer = whole(*arguments)
        forward = trainer.forward
        trainer.forward = lambda ids_BT, plan: forward(ids_BT, plan=plan) + torch.arange(V) % 7
        return trainer

    monkeypatch.setattr(checks, "_trainer", off)
    with pytest.raises(Failed, match="cosine"):
        checks.compiled_twin(config, V, PLACE)


def test_training_has_a_row_for_each_phase_and_recurrence_costs_more_operations():
    once, looped = checks.training("tiny", load(TINY), V, 128, PLACE)
    assert looped.what == "training tiny, recurrent"
    assert looped.numbers["flops_per_token"] > once.numbers["flops_per_token"]
    assert once.numbers["fastest"] <= once.numbers["step_seconds"] <= once.numbers["slowest"]
    assert "peak" not in once.seen  # memory and utilisation are a GPU's


def test_an_overhead_is_the_ratio_of_two_step_times():
    config = load(TINY)
    quantised = replace(config, train=replace(config.train, qat_bits=7))
    (passed,) = checks.overhead("qat", quantised, config, V, 128, PLACE, True, "public: +6 %")
    assert passed.numbers["ratio"] == passed.numbers["with"] / passed.numbers["without"]


def test_evaluation_and_adaptation_give_rates_and_seconds_for_the_whole_split(monkeypatch):
    monkeypatch.setitem(checks.FULL_VALIDATION, V, 8000)
    for (passed,) in (
        checks.sliding("tiny", load(TINY), V, 2, PLACE),
        checks.adaptation("tiny", load(TINY), V, PLACE),
    ):
        assert passed.numbers["projected_seconds"] == pytest.approx(
            1000 / passed.numbers["tokens_per_second"]
        )


def well() -> list[Passed]:
    return [Passed("a", "fine", {"x": 1.0}), Passed("b", "fine too", {})]


def badly(how: str) -> list[Passed]:
    if how == "dies":
        os._exit(7)
    if how == "hangs":
        time.sleep(600)
    raise Failed("wrong by a mile")


def test_what_fails_dies_or_hangs_is_a_row_and_the_others_run_all_the_same():
    listed = [
        Check("wrong", partial(badly, "raises"), 60),
        Check("dead", partial(badly, "dies"), 60),
        Check("slow", partial(badly, "hangs"), 0.5),
        Check("good", well, 60),
    ]
    rows = gpu.results(listed, 300)
    assert [row.name for row in rows] == ["wrong", "dead", "slow", "a", "b"]
    assert [row.passed for row in rows] == [False, False, False, True, True]
    assert "wrong by a mile" in rows[0].seen and "status 7" in rows[1].seen and "not done" in rows[2].seen
    assert "no time" in gpu.results(listed[:1], 0)[0].seen


def test_the_report_has_every_row_and_one_failure_decides_the_status(tmp_path, capsys):
    good, bad = Row("a", True, "fine", {"x": 1.0}, 1.0), Row("b", False, "broken", {}, 2.0)
    assert gpu.report([good], "a card", tmp_path / "out.json") == 0
    assert gpu.report([good, bad], "a card", tmp_path / "out.json") == 1
    assert "| b | FAILED | broken | 2 |" in capsys.readouterr().out
    assert [row["name"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]] == ["a", "b"]


def test_every_check_of_the_list_is_built_from_the_submissions_and_the_script_is_skipped_in_words():
    listed, skipped = gpu.all_checks(PLACE, argparse.Namespace(script=None, data=None))
    assert len({check.name for check in listed}) == len(listed) >= 11
    assert "no --script" in skipped


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_is_claimed(capsys):
    assert gpu.main([]) == 0
    assert "nothing is claimed" in capsys.readouterr().out
