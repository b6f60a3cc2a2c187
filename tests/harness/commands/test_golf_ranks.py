"""The record path with eight processes: every stage under the judge, adaptation and witness included.

On the local runner over gloo, at toy widths; the same recipe in one process gives the same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness import edition
from harness.data.dataset import Dataset
from harness.runners.images import build
from tests.harness.commands.test_golf_end_to_end import AMPLE, run

PROBES = 16
RECIPE = """
model: {layers: 3, width: 64, heads: 2, kv_heads: 1, mlp_hidden: 128, rope_dims: 16, ln_scale: true,
        skip_gates: true, parallel_last: 1, loop_layers: [1], loop_passes: 1, xsa_last: 3, init: orthogonal}
optim: {warmdown: 0.5, muon_equalise: true, clip: 0.3, ema_decay: 0.5, muon_decay: 0.05}
train: {batch_tokens: 1024, seq_len: 64, steps: 4, warmup_steps: 1, loader: shuffled, loop_start: 0.5}
stats: {hessian_batches: 1}
quant: {bits: 8, clip: sigma, sigmas: 12.85, gptq: true, fp16_limit: 1023, entropy: true, codec: brotli,
        level: 5}
score: {window: 64, stride: 32, chunk_tokens: 2048}
adapt: {epochs: 1, lr: 0.005, clip: 1.0, seq_len: 64, batch_rows: 8}
hardware: {precision: float32}
"""
BPB, NATS = 1e-4, 0.01
"""How far eight ranks may be from one: in the score, and in the nats of any single token. Sums over ranks add
up in another order, so weights differ by rounding, and a few of them fall on the next step of the grid. Seen:
5e-8 and 8e-4."""


def submission(folder: Path, ranks: int) -> Path:
    place = folder / f"ranks-{ranks}"
    place.mkdir()
    recipe = yaml.safe_load(RECIPE)
    recipe["hardware"]["ranks"] = ranks
    (place / "config.yaml").write_text(yaml.safe_dump(recipe))
    locks = {name: f"sha256:{build.lock_sha256(name)}" for name in ("cpu", "cuda")}
    (place / "manifest.yaml").write_text(
        f"schema: 1\nname: ranks-{ranks}\ntitle: t\nauthors: [a]\nsource: s\ntrack: B\ndataset: sp1024\n"
        f"seeds: [1]\nimage: {json.dumps(locks)}\n"
    )
    return place


def judged(
    folder: Path, dataset: Dataset, ranks: int, *options: object
) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """verdict.json of a run and the nats of every token."""
    result = run(submission(folder, ranks), dataset, "local", "--json", *options)
    verdict = json.loads(result.stdout)
    assert (result.exit_code, verdict["seeds"][0]["outcome"]) == (5, "scored"), (verdict, result.output)
    return verdict, np.fromfile(Path(verdict["run_dir"]) / "seed-1" / "nats.f32", np.float32)


@pytest.mark.slow
def test_eight_processes_train_pack_adapt_and_answer_as_one_process_does(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(edition.PROFILES, "pocket", AMPLE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, one_T = judged(tmp_path, tiny, 1)
    eight, eight_T = judged(tmp_path, tiny, 8, "--witness", PROBES)
    row = eight["seeds"][0]
    assert row["claims"]["world"] == 8
    assert row["claims"]["steps"] == one["seeds"][0]["claims"]["steps"] == 4
    assert "fail" not in {found["outcome"] for found in eight["findings"]}
    score_first = next(found for found in eight["findings"] if found["rule"] == "score-first")
    assert "3 times `adapt` was sent" in score_first["evidence"]
    assert row["certificate"]["largest_gain_nats"] < 1e-5, "its witness repeats the scorer's numbers"
    assert abs(row["bpb"] - one["seeds"][0]["bpb"]) < BPB
    assert float(np.abs(eight_T - one_T).max()) < NATS
