"""Training: it learns, repeats bit for bit, ends in time, and 2 processes give the result of 1 up to rounding."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from golf import arrays, train
from golf.config import digest, load, resolved
from golf.dist import Ranks
from golf.optim.schedule import Moment
from golf.train import CHECKPOINT_FILE, CHECKPOINT_KIND, StepClock, Trainer, WallClock
from golf.wire import Setup, Wire
from tests.golf.judge_stub import Judge, play, setup_frame, write_shard
from tests.golf.recipes import FULL, V

ALONE = Ranks(0, 1, torch.device("cpu"))


def periodic_shards(folder: Path) -> list[Path]:
    """Tokens that repeat with a period: anything that learns gets them right. Two shards, cut in the middle."""
    folder.mkdir(exist_ok=True)
    tokens = np.tile(np.arange(1, 24), 300)
    return [write_shard(folder / f"train_{i:06d}.bin", part) for i, part in enumerate((tokens[:1001], tokens[1001:]))]


def weights_of(out: Path) -> dict[str, np.ndarray]:
    return arrays.read(out / "checkpoint" / CHECKPOINT_FILE)[1]


def run_here(folder: Path, text: str, seconds: float = 60, seed: int = 7) -> tuple[dict, float, Judge]:
    """The stage in this process against a judge in a thread: (trained frame, seconds, judge)."""
    ours, theirs = socket.socketpair()
    fields = setup_frame(folder, text)
    setup = Setup("train", seed, "record", V, Path("none"), Path(fields["config"]), Path(fields["out"]), {})
    wire, found = Wire(ours), []

    def judge_side():
        judge = Judge(theirs, "train", {})
        found.extend([*judge.train(periodic_shards(folder / "shards"), seconds), judge])

    thread = threading.Thread(target=judge_side)
    thread.start()
    wire.send("hello", protocol=1, stage="train")
    wire.receive("setup")
    train.run(wire, setup, load(text), ALONE)
    thread.join(60)
    found[2].file.close()
    ours.close()
    theirs.close()
    return tuple(found)


def test_a_short_run_leaves_what_pack_needs(tmp_path):
    trained, _, judge = run_here(tmp_path, FULL)
    assert trained == {"op": "trained", "steps": 4, "tokens": 4 * 256}
    header, weights = arrays.read(tmp_path / "out" / "checkpoint" / CHECKPOINT_FILE)
    facts = {"seed": 7, "vocab_size": V, "steps": 4}
    assert header == {"kind": CHECKPOINT_KIND, "config_sha256": digest(load(FULL)), **facts}
    assert {name: w.shape for name, w in weights.items()} == {
        name: tuple(p.shape) for name, p in Trainer(load(FULL), V, 0, ALONE).model.named_parameters()
    }
    assert (tmp_path / "out" / "config.resolved.yaml").read_text() == resolved(load(FULL))
    assert judge.progress
    assert all(0 <= frame["fraction"] <= 1 for frame in judge.progress)


def test_the_same_seed_and_steps_give_the_same_weights_bit_for_bit(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        (tmp_path / name).mkdir()
        run_here(tmp_path / name, FULL, seed=seed)
    a, b, c = (weights_of(tmp_path / name / "out") for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["tok_emb.weight"], c["tok_emb.weight"])


def test_the_warm_up_leaves_no_trace(tmp_path):
    for name, text in (("a", FULL), ("b", FULL.replace("warmup_steps: 1", "warmup_steps: 3"))):
        (tmp_path / name).mkdir()
        run_here(tmp_path / name, text)
    a, b = (weights_of(tmp_path / name / "out") for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_the_loss_of_a_periodic_text_falls_towards_zero(tmp_path):
    trainer = Trainer(load(FULL.replace("ema_fraction: 0.2", "")), V, 0, ALONE)
    tokens = torch.arange(1, 24).repeat(20)
    batch = train.data.Batch(tokens[:256].view(16, 16), tokens[1:257].view(16, 16))
    losses = [trainer.step(batch, Moment(step, step / 60)).item() for step in range(60)]
    assert losses[0] == pytest.approx(np.log(V), rel=0.05)
    assert losses[-1] < 0.5


@pytest.mark.parametrize("micro_tokens", [16, 100, 256])
def test_cutting_a_batch_into_passes_changes_nothing_but_rounding(micro_tokens):
    gradients = []
    for most in (1 << 20, micro_tokens):
        trainer = Trainer(load(FULL + f"hardware: {{micro_tokens: {most}}}"), V, 0, ALONE)
        batch = train.data.made_up(0, range(8), 256, 16, V)
        trainer.backward(batch)
        gradients.append([p.grad for p in trainer.model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


def test_a_judged_run_sends_trained_before_its_limit(tmp_path):
    trained, seconds, _ = run_here(tmp_path, FULL.replace("steps: 4, log_every: 2", "log_every: 9"), 3.0)
    assert trained["steps"] > 4
    assert 2.0 < seconds < 3.0


def test_the_wall_clock_stops_before_a_step_that_would_not_fit():
    seconds = [100.0]
    clock = WallClock(10.0, read=lambda: seconds[0])
    step = 0
    while not clock.over(step):
        assert clock.now(step).fraction == pytest.approx(0.3 * step)
        seconds[0] += 3.0
        step += 1
    assert step == 3


def test_the_step_clock_counts_steps():
    clock = StepClock(4)
    assert [clock.over(step) for step in (0, 3, 4)] == [False, False, True]
    assert clock.now(1).fraction == 0.25


def test_two_processes_give_the_result_of_one_up_to_rounding(tmp_path):
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        fields = setup_frame(folder, FULL + f"hardware: {{ranks: {ranks}}}\n")
        shards = periodic_shards(folder / "shards")
        trained, _ = play("train", fields, lambda judge, shards=shards: judge.train(shards, 60))
        assert trained == {"op": "trained", "steps": 4, "tokens": 4 * 256}
        found.append(weights_of(folder / "out"))
    for name, weight in found[0].items():
        np.testing.assert_allclose(found[1][name], weight, atol=2e-4, err_msg=name)
