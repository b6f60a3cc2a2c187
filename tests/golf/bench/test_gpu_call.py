"""A whole first call, rehearsed on the CPU with tiny sizes and a made-up clock, and its parts one by one."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from golf.bench.gpu import (
    __main__ as gpu,
    attention,
    calls,
    card,
    golf_model,
    judged,
    opponent,
    race,
    switches,
    training,
)
from golf.bench.gpu.golf_model import GolfModel, serve
from golf.bench.gpu.results import Failed, Found, Skipped
from golf.bench.gpu.settings import Places, rehearsal
from golf.bench.gpu.timetable import FIRST, SECOND
from golf.bench.gpu.worker import Worker
from golf.bench.reference_attention import attend_reference
from golf.model.kernels import ATTENTION
from golf.recipe.config import load
from harness.runners.base import GPU_LIBRARIES
from harness.runners.images import build
from tests.harness.fakes.datasets import write_word_dataset

CPU = torch.device("cpu")
RECIPE = """
model: {layers: 2, width: 32, heads: 2, kv_heads: 1, mlp_hidden: 64}
optim: {warmdown: 0.5, muon_momentum_warmup: 0.2}
train: {batch_tokens: 512, seq_len: 64, steps: 3, warmup_steps: 1, log_every: 1}
score: {window: 64, stride: 32, chunk_tokens: 1024}
"""
MANIFEST = """
schema: 1
name: small
title: t
authors: [a]
source: s
track: A
dataset: sp1024
seeds: [1337]
claim: {dataset: other, bpb: {1337: 4.0}}
baseline: {name: uniform, source: s, dataset: tiny, profile: pocket, bpb: {1: 5.0, 2: 5.01}}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "data").mkdir()
    write_word_dataset(folder / "data")
    return Places(folder / "data", None, folder / "carried", folder / "out", folder / "work")


@pytest.fixture(scope="module")
def submission(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submission") / "small"
    folder.mkdir()
    locks = {name: f"sha256:{build.lock_sha256(name)}" for name in ("cpu", "cuda")}
    (folder / "config.yaml").write_text(RECIPE)
    (folder / "manifest.yaml").write_text(f"{MANIFEST}image: {json.dumps(locks)}\n")
    return folder


@pytest.mark.slow
def test_a_rehearsed_call_runs_or_skips_every_row_and_writes_few_files(places, submission):
    settings = replace(
        rehearsal(places),
        submission=submission,
        judged=("--profile", "pocket", "--witness", "0"),
        race_seconds=1.0,
    )
    entries = [entry._replace(least=1e6) if entry.name == "Hessians" else entry for entry in FIRST]
    journal = gpu.run("first", settings, entries, read=lambda: time.monotonic() / 20)
    assert [row.name for row in journal.rows] == [entry.name for entry in FIRST]
    seen = {row.name: row for row in journal.rows}
    missing = {"wheels", "compilation of #586", "sliding evaluation of #586", "Hessians"}
    assert {name: row.outcome for name, row in seen.items()} == {
        name: "skipped" if name in missing else "ok" for name in seen
    }
    assert "no --script given" in seen["race"].seen and "golf alone" in seen["race"].seen
    assert "it needs 1000000 s" in seen["Hessians"].seen
    assert "bits per byte (no measure of quality)" in seen["judged run"].seen
    assert "flash3" in seen["attention kernels"].seen
    names = {path.name for path in places.out.iterdir()}
    assert {"gpu.jsonl", "gpu.json", "gpu.md", "logs.000"} <= names and len(names) <= 8
    assert "REHEARSAL ON THE CPU" in (places.out / "gpu.md").read_text()


@pytest.mark.slow
def test_a_rehearsed_second_call_runs_or_skips_every_row(places):
    journal = gpu.run("second", rehearsal(places), read=lambda: time.monotonic() / 20)
    outcomes = {row.name: row.outcome for row in journal.rows}
    assert list(outcomes) == [entry.name for entry in SECOND]
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} == {
        "caches of the first call"
    }
    # flash3 and cuDNN cannot run on a CPU: the row says so for each, and measures the others
    assert outcomes["switches of the graph"] == "ok" and "failed" not in outcomes.values()


@pytest.mark.slow
def test_golf_trains_like_the_script_from_equal_weights(places, tmp_path):
    folder = os.environ.get("PGOLF_SOURCES")
    if not folder or not (Path(folder) / "train_gpt_586.py").exists():
        pytest.skip("needs train_gpt_586.py in the folder that PGOLF_SOURCES names (docs/cuda.md)")
    data = Path(os.environ.get("PGOLF_SP1024", ""))
    if not (data / "tokenizer.model").exists():
        pytest.skip("needs the SP1024 dataset that PGOLF_SP1024 names, for the script's tokenizer")
    settings = rehearsal(places._replace(data=data, script=Path(folder) / "train_gpt_586.py"))
    works = (("opponent", opponent.serve), ("golf", serve))
    other, golf = (Worker(name, work, (settings, 100), tmp_path / f"{name}.log") for name, work in works)
    try:
        race.start_equal(other, golf, tmp_path / "initial.npz", 300)
        turns = race.run((golf, other), turn_seconds=0.0, seconds=300 if torch.cuda.is_available() else 5)
        pairs = [(a.losses[0], b.losses[0]) for a, b in zip(*turns, strict=True)][:3]
        assert all(a == pytest.approx(b, abs=2e-5) for a, b in pairs), pairs
        assert other.ask("sliding", 60, windows=4).numbers["seconds_per_token"] > 0
    finally:
        other.close()
        golf.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_is_claimed(capsys):
    assert gpu.main([]) == 0
    told = capsys.readouterr()
    assert "nothing is claimed" in told.out and "--rehearse" in told.err


@pytest.mark.slow
def test_the_first_row_fails_where_a_contestants_torch_sees_no_card(monkeypatch):
    monkeypatch.setattr(card, "PROGRAM", "print('False 0')")
    assert "False 0" in card.check(CPU, 60).seen
    with pytest.raises(Failed, match="would not see the card"):
        card.check(torch.device("cuda"), 60)


def test_the_first_row_keeps_the_variable_that_the_local_runner_keeps(monkeypatch):
    monkeypatch.setattr(card, "PROGRAM", "import os; print(os.environ.get('LD_LIBRARY_PATH'))")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/a/driver")
    assert "LD_LIBRARY_PATH set" in (seen := card.check(CPU, 60).seen) and "/a/driver" in seen
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert "no LD_LIBRARY_PATH" in card.check(CPU, 60).seen
    assert card.KEPT == GPU_LIBRARIES


@pytest.mark.slow
def test_a_wrong_kernel_fails_and_a_missing_one_is_named(monkeypatch, places):
    kernels = attention.Kernels(rehearsal(places))
    assert "flash3 64 x 64 cannot run" in kernels.errors().seen
    monkeypatch.setitem(ATTENTION, "sdpa", lambda q, k, v: attend_reference(q, k, v) * 1.01)
    with pytest.raises(Failed, match="sdpa 64 x 64, sdpa 16 x 64 above"):
        kernels.errors()


@pytest.mark.slow
def test_a_compiled_loss_that_differs_fails(places):
    trainer = training.make_trainer(rehearsal(places).hadamard, 64, CPU)
    assert training.compiled_against_plain(trainer, 4).numbers["cosine"] == pytest.approx(1, abs=1e-4)
    loss = trainer.loss
    trainer.loss = lambda *arguments: loss(*arguments) * 1.1
    with pytest.raises(Failed, match="plain and"):
        training.compiled_against_plain(trainer, 4)


@pytest.mark.slow
def test_a_setting_is_timed_only_where_one_as_slow_as_the_slowest_still_fits(places, monkeypatch):
    seconds = [0.0]

    class Model(GolfModel):
        def _against(self, config):
            seconds[0] += 50
            return training.Ratio(1.0, 1.0, 1.0, 1.0)

    model = Model(rehearsal(places))
    monkeypatch.setattr(golf_model, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    found = model.graph_switches(120.0)
    assert next(iter(found.numbers)) == "loss_in_graph: False instead of True"
    assert len(found.numbers) == 2 and seconds[0] == 100.0
    assert "attention: sdpa instead of blocks: no time left" in found.seen
    assert "no time left, not measured" in found.seen


def test_a_variant_gives_one_setting_of_the_recipe_another_value():
    labels = [variant.label for variant in switches.of_graph(load("hardware: {attention: sdpa}"))]
    assert "loss_in_graph: False instead of True" in labels
    assert "attention: cudnn instead of sdpa" in labels and "attention: sdpa instead of sdpa" not in labels
    for variant in switches.of_graph(load("")):
        name, value, *_ = variant.label.replace(":", "").split()
        assert str(getattr(variant.config.hardware, name)) == value


def test_schedules_of_the_script_are_the_fractions_of_profile_solo(places):
    variables = opponent.environment(rehearsal(places).hadamard, 100, places.data, places.data)
    assert variables["WARMDOWN_ITERS"] == "43" and variables["MUON_MOMENTUM_WARMUP_STEPS"] == "18"
    assert float(variables["EMA_DECAY"]) == pytest.approx(1 - 1 / 4.1)
    with pytest.raises(ValueError, match="as fractions"):
        opponent.environment(load("optim: {warmdown: 100}\n"), 100, places.data, places.data)


def test_the_script_is_ready_when_it_reaches_its_first_step_and_not_when_it_is_asked(places, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(opponent, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    other = opponent.Opponent(rehearsal(places))
    seconds[0] = 40.0
    other.begin(torch.nn.Linear(2, 3))
    seconds[0] = 50.0
    assert other.ready().numbers == {"seconds": 40.0, "parameters": 9}


def test_names_of_the_script_become_golfs_and_its_scales_one_array():
    names = ["smear_gate", "bigram.emb.weight", "ve_shared.embed.weight", "blocks.0.attn.attn_gate.weight"]
    scales = {f"ve_layer_scales.{i}": torch.tensor(float(i)) for i in range(2)}
    found = opponent.golf_weights({name: torch.ones(1) for name in names} | scales)
    assert found.pop("value_embedding.scales").tolist() == [0.0, 1.0]
    assert set(found) == {
        "smear.gate",
        "bigram.table.weight",
        "value_embedding.table.weight",
        "blocks.0.attn.gate.weight",
    }


def test_a_verdict_without_a_score_has_failed_and_says_what_became_of_it():
    seed = {"seed": judged.SEED, "outcome": "scored", "bpb": 2.5, "train_seconds": 35.0}
    verdict = {"verdict": "inconclusive", "isolation": "none", "seeds": [seed]}
    assert judged.summary(verdict, 5, late=False).seen.startswith("2.5000 bits per byte (no measure")
    assert "stopped for lack of time after the score" in judged.summary(verdict, 5, late=True).seen
    seed.update(outcome="interrupted", bpb=None)
    with pytest.raises(Failed, match="stopped for lack of time; seed interrupted"):
        judged.summary(verdict, 130, late=True)
    seed.update(outcome="over_limit", reason="scoring did not end within 60 s\nhint: see the log")
    with pytest.raises(Failed, match=r"^seed over_limit: scoring did not end within 60 s; verdict"):
        judged.summary(verdict, 4, late=False)


def test_golfs_evaluation_is_compared_only_with_one_that_was_measured(places, tmp_path):
    class Golf:
        def ask(self, request, seconds, **arguments):
            return Found("golf", {"seconds_per_token": 1.3})

    class Call:
        def found(self, name, number):
            return self.theirs

    call = Call()
    call.theirs = None
    assert calls._sliding(call, rehearsal(places), Golf(), 1.0).seen == "golf"
    call.theirs = 2.0
    assert calls._sliding(call, rehearsal(places), Golf(), 1.0).numbers["ratio"] == pytest.approx(0.65)


def test_wheels_that_are_not_there_are_no_failure(places):
    with pytest.raises(Skipped, match="holds no wheel"):
        calls.install_wheels(rehearsal(places), 1.0)
