"""Witnesses that answer in batched contexts: what they certify, and how strict prefixes check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import Violation
from harness.data.dataset import Dataset
from harness.run.witnesses import WitnessSession
from tests.harness.fakes.sandbox import LearnerSandbox, Sandbox, certified_run, finding, outcomes

pytestmark = pytest.mark.slow

LATER_TEXT_IN_BATCHES = """
def better(size):
    half = size // 2
    return [math.log((2 - math.exp(0.04)) / size)] * half + [0.04 - math.log(size)] * (size - half)

def score(wire, setup, before=witness):
    if setup["role"] == "witness":
        return before(wire, setup)
    size, seen = setup["vocab_size"], 0
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=False, context=1, world=1)
    while True:
        frame, payload = wire.receive()
        if frame["op"] == "bye":
            return
        chunk = array.array("H", payload)
        seen += len(chunk)
        numbers = [-better(size)[token] for token in chunk]
        if frame["start"] == 0:
            numbers[0] = 0.0
        answer(wire, frame, numbers, better(size) if seen < setup["tokens"] else [])

lane_row = better
"""


UNNORMALISED_AFTER_STRICT_PREFIXES = """
def witness(wire, setup, before=witness):
    class Off:
        receive = wire.receive
        def send(self, payload=b"", **frame):
            if frame["op"] == "row":
                payload = floats(*[0.5 - math.log(setup["vocab_size"])] * setup["vocab_size"])
            wire.send(payload, **frame)
    before(Off(), setup)
"""


BETTER_IN_BATCHES = """
def lane_row(size):
    return [math.log(0.5 / 200)] * 200 + [math.log(0.5 / (size - 200))] * (size - 200)
"""


def test_batched_contexts_certify_like_strict_prefixes_and_state_what_they_assume(
    tmp_path: Path, tiny: Dataset
) -> None:
    certificate = certified_run(Sandbox(tmp_path, tiny), batched=True)["seeds"][0]["certificate"]
    assert (certificate["unanswered"], certificate["lanes"]["agree"]) == (0, True)
    assert certificate["largest_gain_nats"] < 1e-5
    assert "many at once" in certificate["guarantee"]
    assert "each of its rows depends on its own context alone" in certificate["guarantee"]
    assert "whatever the program does" not in certificate["guarantee"]
    assert certificate["lanes"]["G_bpb"] >= certificate["G_bpb"], "fewer probes prove less"
    assert all(each["outcome"] == "pass" or each.get("cooperative") for each in certificate["conditions"])


def test_batched_rows_that_differ_from_those_after_strict_prefixes_certify_nothing(
    tmp_path: Path, tiny: Dataset
) -> None:
    verdict = certified_run(Sandbox(tmp_path, tiny, override=BETTER_IN_BATCHES), batched=True)
    certificate = verdict["seeds"][0]["certificate"]
    assert not certificate["lanes"]["agree"]
    assert {each["outcome"] for each in certificate["conditions"]} == {"unknown"}
    assert "differ from those after strict prefixes" in finding(verdict, "causal")["evidence"]


def test_a_contestant_that_adapts_is_not_asked_in_batches_and_can_be_asked_by_strict_prefixes_later(
    tmp_path: Path, tiny: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox = LearnerSandbox(tmp_path, tiny)
    verdict = certified_run(sandbox, batched=True)
    (row,) = verdict["seeds"]
    assert (verdict["verdict"], row["outcome"], row["certificate"]) == ("inconclusive", "scored", None)
    assert "seed 1 witness: not asked: batches need a contestant" in capsys.readouterr().err
    assert certified_run(sandbox, batched=False)["seeds"][0]["certificate"] is not None


def test_batched_contexts_cannot_certify_what_strict_prefixes_fail(tmp_path: Path, tiny: Dataset) -> None:
    """Batched rows equal the claims; rows after strict prefixes cost 0.04 nats more for most tokens.

    That is less than the difference that is allowed between the two.
    """
    verdict = certified_run(Sandbox(tmp_path, tiny, override=LATER_TEXT_IN_BATCHES), probes=512, batched=True)
    certificate = verdict["seeds"][0]["certificate"]
    assert certificate["lanes"]["agree"]
    assert certificate["largest_gain_nats"] < 1e-5
    assert {each["condition"]: each["outcome"] for each in certificate["conditions"]}["C1"] == "fail"
    assert verdict["verdict"] == "invalid"


def test_rows_after_strict_prefixes_must_be_normalised_too(tmp_path: Path, tiny: Dataset) -> None:
    verdict = certified_run(
        Sandbox(tmp_path, tiny, override=UNNORMALISED_AFTER_STRICT_PREFIXES), batched=True
    )
    assert outcomes(verdict)["normalised"] == "fail"


def let_witness_leave(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The witness with this number, counted from 1 in its round, leaves before its first answer."""
    real = WitnessSession.query_witness

    def query(session: WitnessSession, *arguments: Any) -> Any:
        if session.n_witnesses == number:
            raise Violation("contestant", "it left")
        return real(session, *arguments)

    monkeypatch.setattr(WitnessSession, "query_witness", query)


def test_without_an_answer_after_strict_prefixes_batched_answers_are_kept_but_decide_nothing(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_witness_leave(monkeypatch, 3)
    certificate = certified_run(Sandbox(tmp_path, tiny), batched=True)["seeds"][0]["certificate"]
    assert certificate["lanes"] == {"G_bpb": None, "probes": 0}
    assert {each["outcome"] for each in certificate["conditions"]} == {"unknown"}
    assert all("not compared with strict prefixes" in each["evidence"] for each in certificate["conditions"])


def test_a_round_lists_an_end_and_a_timing_for_every_witness_even_one_that_could_not_be_asked(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_witness_leave(monkeypatch, 1)
    (round_facts,) = certified_run(Sandbox(tmp_path, tiny), batched=True)["seeds"][0]["certificate"]["looks"]
    assert round_facts["witnesses"] == len(round_facts["ended"]) == len(round_facts["seconds"]) > 1
    assert round_facts["ended"][0] == "it left" and round_facts["ended"][1] is None
    assert round_facts["seconds"][0]["rows"] == 0 < round_facts["seconds"][1]["rows"]
