"""Training: it learns, repeats bit for bit, ends in time, and goes through its phases."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from golf.optim.schedule import TrainingProgress
from golf.recipe.config import load, resolved, training_digest
from golf.runtime import compilation
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.runtime.wire import Setup, Wire, WireError
from golf.stages import train
from golf.storage import arrays
from golf.training import calibrate, checkpoint, loader as data, phases
from golf.training.clocks import StepClock, WallClock
from golf.training.phases import Phase
from golf.training.trainer import Trainer, compiled_loss
from tests.golf.fakes.judge import Judge, fail_stage, setup_frame, write_shard
from tests.golf.fakes.recipes import FULL, V

pytestmark = pytest.mark.slow

ALONE = Ranks(0, 1, torch.device("cpu"))
MAX_BYTES = 1 << 24
PERIODIC = np.tile(np.arange(1, 24), 300)
CONFIG = load(FULL)
COMPILED = """
model: {layers: 3, width: 32, heads: 4, kv_heads: 2, mlp_hidden: 48, loop_layers: [1], loop_passes: 1}
train: {seq_len: 16, batch_tokens: 256, loop_start: 0.5, qat_bits: 2, qat_start: 0.2, warmup_steps: 1}
stats: {hessian_batches: 1, fisher_batches: 1}
hardware: {precision: float32}
"""
EXACT = FULL + "hardware: {precision: float32}\n"


def periodic_shards(folder: Path) -> list[Path]:
    """Two shards of a text with a short period, which any working training learns."""
    folder.mkdir(exist_ok=True)
    parts = enumerate((PERIODIC[:1001], PERIODIC[1001:]))
    return [write_shard(folder / f"train_{i:06d}.bin", part) for i, part in parts]


def loader_of(config, tokens: np.ndarray = PERIODIC) -> data.Loader:
    return data.LOADERS[config.train.loader]([("s", tokens)], V, range(8), config.train.seq_len)


def checkpoint_arrays(out: Path) -> dict[str, np.ndarray]:
    """Every array of the checkpoint."""
    folder = out / "checkpoint"
    return {
        **arrays.read(folder / checkpoint.WEIGHTS_FILE)[1],
        **arrays.read(folder / checkpoint.STATISTICS_FILE)[1],
    }


def run_here(
    folder: Path, text: str, seconds: float = 60, seed: int = 7, **extra
) -> tuple[dict, float, Judge]:
    """The stage in this process against a judge in a thread: (trained frame, seconds, judge)."""
    folder.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    fields = setup_frame(folder, text)
    setup = Setup("train", seed, "record", V, Path("none"), Path(fields["config"]), Path(fields["out"]), {})
    wire, found = Wire(ours), []

    def judge_side():
        judge = Judge(theirs, "train", {})
        found.extend([*judge.train(periodic_shards(folder / "shards"), seconds, **extra), judge])

    thread = threading.Thread(target=judge_side)
    thread.start()
    wire.send("hello", protocol=1, stage="train")
    wire.receive("setup")
    train.run(wire, setup, load(text), ALONE)
    thread.join(300)
    found[2].file.close()
    ours.close()
    theirs.close()
    return tuple(found)


def test_a_short_run_writes_what_pack_needs(tmp_path, capsys):
    trained, _, judge = run_here(tmp_path, FULL)
    assert trained == {"op": "trained", "steps": 4, "tokens": 4 * 256}
    header, weights = arrays.read(tmp_path / "out" / "checkpoint" / checkpoint.WEIGHTS_FILE)
    facts = {"seed": 7, "vocab_size": V, "steps": 4}
    assert header == {"kind": checkpoint.WEIGHTS_KIND, "recipe_sha256": training_digest(CONFIG), **facts}
    assert set(weights) == set(checkpoint.read_weights(tmp_path / "out" / "checkpoint", CONFIG, V, MAX_BYTES))
    stats = checkpoint.read_statistics(tmp_path / "out" / "checkpoint", CONFIG, V, MAX_BYTES)
    assert (stats["blocks.4.mlp.down.weight"].hessian_CC.diagonal() > 0).any()
    assert all(one.fisher_RC.sum() > 0 and one.row_score_R.sum() > 0 for one in stats.values())
    assert (tmp_path / "out" / "config.resolved.yaml").read_text() == resolved(CONFIG)
    assert judge.progress
    assert all(0 <= frame["fraction"] <= 1 for frame in judge.progress)
    log = capsys.readouterr().out
    assert "step      1  from here on: every layer once, full precision (at 0.0000" in log
    assert "step      2  from here on: every layer once, quantisation-aware (at 0.2500" in log
    assert "step      3  from here on: depth recurrence, quantisation-aware (at 0.5000" in log
    assert f"statistics of {len(stats)} tensors took" in log


def test_the_same_seed_and_steps_give_the_same_checkpoint_bit_for_bit(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        run_here(tmp_path / name, FULL, seed=seed)
    a, b, c = (checkpoint_arrays(tmp_path / name / "out") for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["tok_emb.weight"], c["tok_emb.weight"])


def test_the_warm_up_leaves_no_trace(tmp_path):
    longer = FULL.replace("warmup_steps: 1", "warmup_steps: 3")
    for name, text in (("a", FULL), ("b", longer)):
        run_here(tmp_path / name, text)
    a, b = (checkpoint_arrays(tmp_path / name / "out") for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_number_of_steps_in_the_frame_overrides_the_recipe_and_the_clock(tmp_path):
    trained, _, _ = run_here(tmp_path / "more", FULL, seconds=0.01, steps=6)
    assert trained["steps"] == 6
    trained, _, _ = run_here(tmp_path / "clock", FULL.replace("steps: 4, ", ""), seconds=0.01, steps=2)
    assert trained["steps"] == 2


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "4"])
def test_an_invalid_number_of_steps_is_refused(steps):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Wire(theirs).send("train", shards=[], seconds=1.0, steps=steps)
        with pytest.raises(WireError, match="steps should be"):
            train.receive_request(Wire(ours))


def test_the_loss_of_a_periodic_text_falls_towards_zero():
    trainer = Trainer(load(FULL.replace("ema_fraction: 0.2", "").replace("qat_bits: 6, ", "")), V, 0, ALONE)
    tokens = torch.arange(1, 24).repeat(20)
    batch = data.Batch(tokens[:256].view(16, 16), tokens[1:257].view(16, 16))
    losses = [trainer.step(batch, TrainingProgress(step, step / 60)).item() for step in range(60)]
    assert losses[0] == pytest.approx(np.log(V), rel=0.05)
    assert losses[-1] < 0.5


def markov_text(n: int) -> np.ndarray:
    """Tokens of an order-1 Markov source: each is followed by one of four, with unequal probabilities."""
    random = np.random.default_rng(0)
    follow, odds = random.integers(1, V, (V, 4)), np.array([0.6, 0.2, 0.15, 0.05])
    tokens, choices = np.ones(n, dtype=np.int64), random.choice(4, n, p=odds)
    for i in range(1, n):
        tokens[i] = follow[tokens[i - 1], choices[i]]
    return tokens


def test_the_loss_of_new_text_falls_below_its_unigram_entropy():
    text = markov_text(60_000)
    share = np.bincount(text, minlength=V) / len(text)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    config = load(FULL.replace("batch_tokens: 256", "batch_tokens: 512"))
    trainer, loader = Trainer(config, V, 0, ALONE), loader_of(config, text)
    losses = [
        trainer.step(loader.batch(512), TrainingProgress(step, step / 40)).item() for step in range(40)
    ]  # no row twice
    assert np.mean(losses[-8:]) < entropy - 0.5


@pytest.mark.parametrize("micro_tokens", [16, 100, 256])
def test_cutting_a_batch_into_passes_changes_nothing_but_rounding(micro_tokens):
    gradients = []
    for most in (1 << 20, micro_tokens):
        trainer = Trainer(load(FULL + f"hardware: {{precision: float32, micro_tokens: {most}}}"), V, 0, ALONE)
        trainer.backward(data.synthetic(0, range(8), 256, 16, V))
        gradients.append([p.grad for p in trainer.parameters.values()])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


def test_phases_follow_their_horizons_and_never_go_back():
    points = [TrainingProgress(step, step / 20) for step in range(21)]
    seen = [phases.at(progress, CONFIG) for progress in points]
    assert seen == [Phase(False, False)] * 5 + [Phase(False, True)] * 5 + [Phase(True, True)] * 11
    assert set(seen) <= set(phases.possible(CONFIG))
    plain = load("train: {loop_start: 0.5}")
    assert phases.possible(plain) == [Phase(False, False)] == [phases.at(TrainingProgress(9, 1.0), plain)]
    always = load(FULL.replace("loop_start: 0.5", "loop_start: 0").replace("qat_start: 0.25", "qat_start: 0"))
    assert phases.possible(always) == [Phase(True, True)] == [phases.at(TrainingProgress(0, 0.0), always)]


def test_a_compiled_loss_rounds_to_the_grid_only_in_quantised_phases(monkeypatch):
    """In #315, #374 and #414 a flag on the class was constant in the first trace: nothing was rounded."""
    torch._dynamo.reset()
    trainer = Trainer(load(COMPILED), V, 0, ALONE)
    plain = trainer.model
    with torch.no_grad():
        for p in trainer.parameters.values():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    trainer.loss = compiled_loss(plain, in_graph=True)
    batch, found = data.synthetic(0, range(8), 256, 16, V), []
    for phase in (
        Phase(False, False),
        Phase(False, True),
        Phase(True, True),
        Phase(True, False),
        Phase(False, False),
    ):
        trainer.enter(phase)
        trainer.optimizer.gradients.zero()
        loss = trainer.backward(batch)
        gradient = plain.blocks[0].mlp.up.weight.grad.clone()
        expected = torch.nn.functional.cross_entropy(
            plain(batch.ids_BT, plan=trainer.plan).flatten(0, 1), batch.targets_BT.flatten()
        )
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        found.append((loss.item(), gradient))
    losses = [loss for loss, _ in found]
    assert len({round(loss, 4) for loss in losses[:4]}) == 4
    assert losses[4] == losses[0]
    assert torch.equal(found[4][1], found[0][1])


def test_every_graph_of_a_run_is_compiled_in_the_warm_up(tmp_path, monkeypatch):
    torch._dynamo.reset()
    trainer, graphs = Trainer(load(COMPILED), V, 0, ALONE), []

    def compiled(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", compiled)
    trainer.loss = compiled_loss(trainer.model, in_graph=True)
    train.warm_up(trainer, tmp_path)
    n_graphs = len(graphs)
    assert n_graphs >= 4
    for step in range(6):
        trainer.step(data.synthetic(step, range(8), 256, 16, V), TrainingProgress(step, step / 6))
    trainer.finish()
    calibrate.measure(trainer, (data.synthetic(step, range(8), 256, 16, V) for step in range(2)))
    assert len(graphs) == n_graphs


def test_quantised_steps_train_the_unrounded_weights():
    trainer = Trainer(
        load(FULL.replace("qat_bits: 6", "qat_bits: 2").replace("qat_start: 0.25", "qat_start: 0")),
        V,
        0,
        ALONE,
    )
    weight = trainer.parameters["blocks.2.mlp.up.weight"]
    before = weight.detach().clone()
    trainer.step(data.synthetic(0, range(8), 256, 16, V), TrainingProgress(0, 0.0))
    trainer.step(data.synthetic(1, range(8), 256, 16, V), TrainingProgress(1, 0.1))
    moved = (weight - before).abs()
    assert (moved > 0).float().mean() > 0.9
    assert len(weight.detach()[0].unique()) > 4


def test_statistics_use_averaged_weights_with_recurrence_and_without_the_grid():
    trainer, loader = Trainer(load(EXACT), V, 0, ALONE), loader_of(CONFIG)
    for step in range(4):
        trainer.step(loader.batch(256), TrainingProgress(step, step / 4))
    average = {name: tensor.clone() for name, tensor in trainer.ema.state().items()}
    trainer.finish()
    assert all(torch.equal(p, average[name]) for name, p in trainer.parameters.items())
    batches = [loader.batch(256) for _ in range(4)]
    stats = calibrate.measure(trainer, iter(batches))
    assert not trainer.optimizer.gradients.flat.any()
    measured = {
        name: {ending for ending, field in checkpoint.ENDINGS.items() if getattr(one, field) is not None}
        for name, one in stats.items()
    }
    assert measured == {name: set(asked) for name, asked in checkpoint.statistics_of(CONFIG, V).items()}
    seen = []
    up = trainer.model.blocks[1].mlp.up
    hook = up.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().flatten(0, 1)))
    for batch in batches[:2]:
        trainer.model(batch.ids_BT)
    hook.remove()
    assert len(seen) == 4  # layer 1 is visited twice
    x_NC = torch.cat(seen)
    torch.testing.assert_close(
        stats["blocks.1.mlp.up.weight"].hessian_CC, x_NC.mT @ x_NC / len(x_NC), atol=1e-5, rtol=1e-4
    )
    squares = []
    for batch in batches[2:]:
        trainer.model.zero_grad()
        logits_BTV = trainer.model(batch.ids_BT)
        torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.targets_BT.flatten()).backward()
        squares.append(up.weight.grad.square())
    torch.testing.assert_close(
        stats["blocks.1.mlp.up.weight"].fisher_RC, sum(squares) / 2, atol=1e-9, rtol=1e-3
    )


def test_row_scores_are_measured_every_few_steps():
    trainer = Trainer(CONFIG, V, 0, ALONE)
    for step in range(5):
        trainer.step(data.synthetic(step, range(8), 256, 16, V), TrainingProgress(step, step / 5))
    assert trainer.row_scores.count == 3  # steps 0, 2 and 4


def diverged(trainer: Trainer) -> Trainer:
    """A trainer whose every loss is no number."""
    with torch.no_grad():
        trainer.parameters["tok_emb.weight"].fill_(torch.nan)
    return trainer


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["in the last step", "before the last step", "earlier"])
def test_training_ends_with_the_first_step_whose_loss_is_no_number(steps):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(StageError, match=r"^step 1: the loss is nan; lower .*optim\.muon_lr"):
        train.loop(diverged(Trainer(CONFIG, V, 0, ALONE)), loader_of(CONFIG), StepClock(steps), Wire(ours))


@pytest.mark.parametrize("nats", [np.nan, np.inf, -np.inf])
def test_an_infinite_loss_ends_training_like_one_that_is_no_number(nats):
    with pytest.raises(StageError, match=f"^step 12: the loss is {nats}; "):
        train.check_loss(12, float(nats))
    train.check_loss(12, 4.5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_diverges_names_the_step_and_writes_no_trained_weights(tmp_path, ranks):
    text = FULL.replace("optim: {", "optim: {embed_lr: 1e30, ").replace("steps: 4", "steps: 50")
    frame = setup_frame(tmp_path, text + f"hardware: {{ranks: {ranks}, precision: float32}}\n")
    status, printed = fail_stage("train", frame, periodic_shards(tmp_path / "shards"))
    lines = [line for line in printed.splitlines() if "StageError: step" in line]
    assert status == 1
    assert re.search(r"StageError: step [2-9]: the loss is (nan|inf); lower the learning rates", lines[0])
    assert (printed.splitlines()[-1] == lines[0] and "Traceback" not in printed) or ranks > 1
    header, _ = arrays.read(tmp_path / "out" / "checkpoint" / checkpoint.WEIGHTS_FILE)
    assert header["steps"] == 0, "of the warm-up, which measures how long saving takes"


def test_a_judged_run_sends_trained_before_its_limit(tmp_path, monkeypatch):
    # Seconds of this process: those that other processes take from it are not its own
    monkeypatch.setattr(time, "monotonic", time.process_time)
    monkeypatch.setattr(train, "WallClock", partial(WallClock, read=time.process_time))
    trained, seconds, _ = run_here(tmp_path, FULL.replace("steps: 4, log_every: 2", "log_every: 9"), 4.0)
    assert trained["steps"] > 4
    assert seconds < 4.0


def test_training_ends_by_the_time_that_the_judge_gave_on_the_judges_own_clock(tmp_path):
    begun = time.monotonic()
    trained, _, _ = run_here(tmp_path, FULL.replace("steps: 4, log_every: 2", "log_every: 9"), 5.0)
    assert trained["steps"] > 0
    assert time.monotonic() - begun > 1.0, "it used the time"
    assert WallClock(1.0, 0.0).read is time.monotonic


def test_the_reserve_leaves_room_for_statistics_and_saving():
    assert train.Reserve(measuring=10, saving=1).seconds == pytest.approx(10 + 2 + 0.3)


@pytest.mark.parametrize(("device", "margin"), [("cpu", 1.5), ("cuda", 1.1)])
def test_the_estimate_of_the_statistics_waits_for_the_device_on_both_sides_of_the_second_run(
    monkeypatch, device, margin
):
    events = []
    monkeypatch.setattr(calibrate, "measurements", lambda cfg: [(lambda *_: events.append("run") or {}, 64)])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    monkeypatch.setattr(calibrate.time, "monotonic", lambda: float(len(events)))
    trainer = SimpleNamespace(config=CONFIG, ranks=Ranks(0, 1, torch.device(device)), row_scores=None)
    _, seconds = calibrate.warm_up(trainer, None)
    waits = ["wait"] if device == "cuda" else []
    assert events == ["run", *waits, "run", *waits]
    assert seconds == pytest.approx(64 * margin * (1 + len(waits)))


def test_the_clock_starts_when_the_first_frame_arrives_however_long_the_shards_take_to_map(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(data, "map_shard", lambda *shard: now.__setitem__(0, now[0] + 7.0))
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    os.close(writer)
    with ours, theirs:
        for more in (True, False):
            line = {"op": "train", "shards": [{"name": "s", "tokens": 1}], "seconds": 60.0, "more": more}
            socket.send_fds(theirs, [json.dumps(line).encode() + b"\n"], [reader])
        request = train.receive_request(Wire(ours))
    os.close(reader)
    assert (request.arrived, now[0]) == (100.0, 114.0)
