"""Learning from scored text in a whole run: what is allowed, what findings say, that rescoring agrees.

The contestant of LearnerSandbox counts tokens: before a chunk its distribution is (1 + count) / (V + tokens
counted), and it counts on `adapt` alone. The tests compute the expected numbers by counting again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.progress import ProgressDisplay
from harness.commands import rescore
from harness.data.dataset import Dataset
from harness.scoring import bpb
from harness.verdict import decide
from tests.harness.fakes.datasets import WORD_VOCABULARY
from tests.harness.fakes.sandbox import CHUNK, LearnerSandbox, Sandbox, finding

pytestmark = pytest.mark.slow


def expected_nats(dataset: Dataset) -> np.ndarray[Any, Any]:
    """nats_T of that contestant, computed here."""
    tokens_T = dataset.validation_tokens()
    counts_V, nats_T = np.ones(WORD_VOCABULARY), np.zeros(len(tokens_T))
    for start in range(0, len(tokens_T), CHUNK):
        chunk_T = tokens_T[start : start + CHUNK]
        nats_T[start : start + CHUNK] = -np.log(counts_V[chunk_T] / counts_V.sum())
        np.add.at(counts_V, chunk_T, 1)
    nats_T[0] = 0.0
    return nats_T.astype("<f4")


def test_learning_between_chunks_gives_the_expected_score_and_rescoring_the_same_ledger(
    tmp_path: Path, tiny: Dataset
) -> None:
    learner = LearnerSandbox(tmp_path, tiny)
    verdict = learner.run()
    assert (verdict["verdict"], verdict["track"]) == ("inconclusive", "B")
    tokens_T = tiny.validation_tokens()
    expected = bpb.measure(tokens_T, expected_nats(tiny), tiny.byte_table()).bpb
    assert verdict["mean_bpb"] == pytest.approx(expected, abs=1e-6)
    uniform = bpb.measure(
        tokens_T, np.full(len(tokens_T), math.log(WORD_VOCABULARY), "<f4"), tiny.byte_table()
    ).bpb
    assert verdict["mean_bpb"] < uniform - 0.1
    updates = (len(tokens_T) - 1) // CHUNK
    shown = finding(verdict, "score-first")
    assert updates > 2
    assert shown["outcome"] == "unknown", "the local runner is cooperative"
    assert f"{updates} times `adapt` was sent" in shown["evidence"]
    assert finding(verdict, "border-rows")["outcome"] == "pass"
    assert f"{updates} borders" in finding(verdict, "border-rows")["evidence"]
    with ProgressDisplay() as progress:
        again = rescore.rescore_run(Path(verdict["run_dir"]), None, [], progress)
    assert (again["same_ledgers"], again["agree"], again["exit_code"]) == (True, True, 5)


def test_in_track_a_a_contestant_that_adapts_is_invalid_before_any_text_is_shown(
    tmp_path: Path, tiny: Dataset
) -> None:
    verdict = LearnerSandbox(tmp_path, tiny, "A").run()
    assert (verdict["verdict"], decide.exit_code(verdict)) == ("invalid", 1)
    shown = finding(verdict, "score-first")
    assert shown["outcome"] == "fail"
    assert "which track A forbids" in shown["evidence"]
    assert verdict["seeds"][0]["bpb"] is None


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
def test_learning_at_any_other_time_fails_the_border_rows(
    tmp_path: Path, tiny: Dataset, override: str
) -> None:
    verdict = LearnerSandbox(tmp_path, tiny, override=override).run()
    shown = finding(verdict, "border-rows")
    assert (verdict["verdict"], shown["outcome"]) == ("invalid", "fail")


def test_a_contestant_in_track_b_need_not_learn_and_the_evidence_names_the_track(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    path = sandbox.submission / "manifest.yaml"
    path.write_text(path.read_text().replace("track: A", "track: B"))
    _, verdict, _ = sandbox.finish()
    assert "`adapt` was never sent (track B)" in finding(verdict, "score-first")["evidence"]


def test_a_learner_that_answers_adapt_without_its_border_row_is_refused(
    tmp_path: Path, tiny: Dataset
) -> None:
    override = (
        "\n_send = Wire.send\ndef send(self, payload=b'', **frame):\n"
        "    _send(self, b'' if frame['op'] == 'adapted' else payload, **frame)\nWire.send = send\n"
    )
    verdict = LearnerSandbox(tmp_path, tiny, override=override).run()
    assert verdict["verdict"] == "invalid"
    assert finding(verdict, "conduct")["outcome"] == "fail"
    assert json.dumps(verdict)
