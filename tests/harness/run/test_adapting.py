"""Learning from scored text, end to end under the judge: what is allowed, what is shown of it, and that it
repeats.

The contestant counts tokens: before a chunk its distribution is (1 + count) / (V + tokens counted), and it
counts on `adapt` alone. The expected numbers follow from the text by counting here again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.progress import ProgressDisplay
from harness.commands import rescore
from harness.commands.run import run_submission
from harness.data.dataset import Dataset
from harness.scoring import bpb
from harness.verdict import decide
from tests.harness.conftest import VOCABULARY
from tests.harness.run.test_resume import World

CHUNK = 512
COUNTER = f"""
CHUNK = {CHUNK}
def row(counts):
    total = sum(counts)
    return [math.log(count / total) for count in counts]

def score(wire, setup):
    size, seen, total = setup["vocab_size"], 0, setup["tokens"]
    counts = [1] * size
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=True, context=1, world=1)
    while True:
        frame, payload = wire.receive()
        if frame["op"] == "bye":
            return
        chunk = array.array("H", payload)
        seen += len(chunk)
        before_answer(counts, chunk)
        logs = row(counts)
        numbers = [-logs[token] for token in chunk]
        if frame["start"] == 0:
            numbers[0] = 0.0
        wire.send(floats(*numbers), op="nats", chunk=frame["chunk"])
        if seen < total:
            frame, _ = wire.receive()
            assert frame["op"] == "adapt"
            learn(counts, chunk)
            wire.send(floats(*row(counts)), op="adapted", chunk=frame["chunk"])
        after_row(counts, chunk)

def learn(counts, chunk):
    for token in chunk:
        counts[token] += 1

def before_answer(counts, chunk):
    pass

def after_row(counts, chunk):
    pass
"""


class Learner(World):
    """A submission of that contestant in a track."""

    def __init__(self, folder: Path, dataset: Dataset, track: str = "B", override: str = "") -> None:
        super().__init__(folder, dataset, "[1]", COUNTER + override)
        path = self.submission / "manifest.yaml"
        path.write_text(path.read_text().replace("track: A", f"track: {track}"))

    def run(self) -> dict[str, Any]:
        with ProgressDisplay() as display:
            return run_submission(self.options(), display)


def finding(judged: dict[str, Any], rule: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in judged["findings"] if each["rule"] == rule)
    return found


def counted(dataset: Dataset) -> np.ndarray[Any, Any]:
    """nats_T of the counter, by counting once more."""
    tokens_T = dataset.validation_tokens()
    counts_V, nats_T = np.ones(VOCABULARY), np.zeros(len(tokens_T))
    for start in range(0, len(tokens_T), CHUNK):
        chunk_T = tokens_T[start : start + CHUNK]
        nats_T[start : start + CHUNK] = -np.log(counts_V[chunk_T] / counts_V.sum())
        np.add.at(counts_V, chunk_T, 1)
    nats_T[0] = 0.0
    return nats_T.astype("<f4")


def test_learning_between_chunks_lowers_the_score_by_what_it_should_and_scores_again_to_the_same_ledger(
    tmp_path: Path, tiny: Dataset
) -> None:
    learner = Learner(tmp_path, tiny)
    judged = learner.run()
    assert (judged["verdict"], judged["track"]) == ("valid", "B")
    tokens_T = tiny.validation_tokens()
    expected = bpb.measure(tokens_T, counted(tiny), tiny.byte_table()).bpb
    assert judged["mean_bpb"] == pytest.approx(expected, abs=1e-6)
    uniform = bpb.measure(
        tokens_T, np.full(len(tokens_T), math.log(VOCABULARY), "<f4"), tiny.byte_table()
    ).bpb
    assert judged["mean_bpb"] < uniform - 0.1
    updates = (len(tokens_T) - 1) // CHUNK
    shown = finding(judged, "score-first")
    assert updates > 2
    assert shown["outcome"] == "unknown", "the local runner is cooperative"
    assert f"{updates} times `adapt` was sent" in shown["evidence"]
    assert finding(judged, "border-rows")["outcome"] == "pass"
    assert f"{updates} borders" in finding(judged, "border-rows")["evidence"]
    with ProgressDisplay() as progress:
        again = rescore.rescore_run(Path(judged["run_dir"]), None, [], progress)
    assert (again["same_ledgers"], again["agree"], again["exit_code"]) == (True, True, 0)


def test_in_track_a_the_same_contestant_is_invalid_before_any_text_is_shown(
    tmp_path: Path, tiny: Dataset
) -> None:
    judged = Learner(tmp_path, tiny, "A").run()
    assert (judged["verdict"], decide.exit_code(judged)) == ("invalid", 1)
    shown = finding(judged, "score-first")
    assert shown["outcome"] == "fail"
    assert "the manifest declares track A" in shown["evidence"]
    assert judged["seeds"][0]["bpb"] is None


@pytest.mark.parametrize(
    "override",
    [
        "def before_answer(counts, chunk):\n    learn(counts, chunk)\n",
        "def before_answer(counts, chunk):\n    counts[chunk[0]] += 100000\n",
        "import random\ndef after_row(counts, chunk):\n    counts[:] = [random.randrange(1, 1000) for _ in "
        "counts]\n",
    ],
    ids=[
        "learns from a chunk before it answers it",
        "learns from a chunk's first token",
        "changes after the border row",
    ],
)
def test_learning_at_any_other_time_shows_at_the_borders(
    tmp_path: Path, tiny: Dataset, override: str
) -> None:
    judged = Learner(tmp_path, tiny, override=override).run()
    shown = finding(judged, "border-rows")
    assert (judged["verdict"], shown["outcome"]) == ("invalid", "fail")


def test_track_b_may_as_well_not_learn_and_the_evidence_says_which_track(
    tmp_path: Path, tiny: Dataset
) -> None:
    world = World(tmp_path, tiny)
    path = world.submission / "manifest.yaml"
    path.write_text(path.read_text().replace("track: A", "track: B"))
    _, judged, _ = world.finish()
    assert "`adapt` was never sent (track B)" in finding(judged, "score-first")["evidence"]


def test_a_learner_that_answers_adapt_without_its_border_row_is_refused(
    tmp_path: Path, tiny: Dataset
) -> None:
    override = (
        "\n_send = Wire.send\ndef send(self, payload=b'', **frame):\n"
        "    _send(self, b'' if frame['op'] == 'adapted' else payload, **frame)\nWire.send = send\n"
    )
    judged = Learner(tmp_path, tiny, override=override).run()
    assert judged["verdict"] == "invalid"
    assert finding(judged, "conduct")["outcome"] == "fail"
    assert json.dumps(judged)
