"""The witness in a run: asked after the score with one random seed; the bound can be recomputed.

Witnesses that answer in batches: test_batched_witnesses.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import MachineFault, UsageError, Violation
from harness.base.progress import ProgressDisplay
from harness.commands import rescore
from harness.data.dataset import Dataset
from harness.edition import PROFILES, Limits
from harness.run import stages, witnesses
from harness.run.witness_state import WitnessRequest, witness_request
from harness.run.witnesses import WitnessSession
from harness.runners.local import LocalRunner
from harness.scoring.certificate import bound, reference_model, sampling
from harness.verdict import decide
from tests.harness.fakes.sandbox import Sandbox, certified_run, finding, outcomes

pytestmark = pytest.mark.slow

PEEKS = """
def answer(wire, frame, numbers, row):
    wire.send(floats(*[n / 2 for n in numbers], *row), op='nats', chunk=frame['chunk'])
"""
SILENT = "def witness(wire, setup):\n    raise SystemExit('caught')\n"


def test_every_profile_asks_a_witness_by_default() -> None:
    assert set(PROFILES) == {profile for profile in PROFILES if witness_request(profile) is not None}
    assert witness_request("pocket", 0) is None
    assert witness_request("pocket", 64, 3, True) == WitnessRequest(64, 3, True)
    with pytest.raises(UsageError, match="unknown profile 'pockets'"):
        witness_request("pockets")


def test_the_certificate_of_a_run_can_be_recomputed_from_its_stored_answers(
    tmp_path: Path, tiny: Dataset
) -> None:
    verdict = certified_run(Sandbox(tmp_path, tiny))
    (row,) = verdict["seeds"]
    certificate = row["certificate"]
    assert certificate["largest_gain_nats"] < 1e-5
    assert outcomes(verdict)["normalised"] == "pass"
    folder = Path(row["run_dir"])
    with np.load(folder / "witness-1.npz", allow_pickle=False) as kept:
        responses = {name: kept[name] for name in kept}
    tokens_T, nats_T = tiny.validation_tokens(), np.fromfile(folder / "nats.f32", "<f4")
    claimed = sampling.ReportedScore(
        tokens_T, nats_T, reference_model.probabilities(tokens_T, tiny.vocab_size), row["scored_bytes"], 4096
    )
    plan = sampling.draw(bytes.fromhex(certificate["seed"]), claimed, 256)
    assert (responses["position"] == plan.asked_P).all()
    again = bound.bound(plan, bound.gains(plan, responses["witness_1"])).total
    assert again == pytest.approx(certificate["G_nats"], rel=1e-12)
    assert json.loads((folder / "witness.json").read_text())["seed"] == certificate["seed"]


def test_a_scorer_that_peeks_is_invalid_because_of_its_witness(tmp_path: Path, tiny: Dataset) -> None:
    verdict = certified_run(Sandbox(tmp_path, tiny, override=PEEKS))
    assert verdict["verdict"] == "invalid"
    assert outcomes(verdict)["causal"] == "fail"
    assert verdict["seeds"][0]["bpb"] is not None, "the score is reported all the same"


def test_a_witness_that_leaves_gives_no_certificate_and_does_not_invalidate_the_score(
    tmp_path: Path, tiny: Dataset
) -> None:
    verdict = certified_run(Sandbox(tmp_path, tiny, override=SILENT))
    (row,) = verdict["seeds"]
    assert (row["outcome"], row["certificate"]) == ("scored", None)
    assert "could not be asked" in row["unasked"]
    assert outcomes(verdict)["causal"] == "unknown"


def test_the_random_seed_is_drawn_once_whatever_interrupts_the_witness(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox(tmp_path, tiny)

    def engine_gone(*_: object) -> None:
        raise MachineFault("the engine went away", hint="start it again")

    with monkeypatch.context() as patched:
        patched.setattr(WitnessSession, "query_witness", engine_gone)
        assert certified_run(sandbox)["seeds"][0]["certificate"] is None
    begun = json.loads((sandbox.seed_folder() / "witness.json").read_text())
    verdict = certified_run(sandbox)
    certificate = verdict["seeds"][0]["certificate"]
    assert (certificate["seed"], certificate["times_begun"]) == (begun["seed"], 2)
    evidence = finding(verdict, "single-pass")["evidence"]
    assert "1 witness attempt interrupted or ended by a machine fault" in evidence
    assert certified_run(sandbox)["seeds"][0]["certificate"] == certificate, (
        "a finished witness is not asked again"
    )


def test_the_random_seed_of_another_ledger_is_refused(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    with monkeypatch.context() as patched:
        patched.setattr(
            WitnessSession,
            "query_witness",
            lambda *_: (_ for _ in ()).throw(MachineFault("gone", hint="again")),
        )
        certified_run(sandbox)
    path = sandbox.seed_folder() / "witness.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ledger_sha256": "0" * 64}))
    with pytest.raises(UsageError, match="random seed belongs to another ledger"):
        certified_run(sandbox)


def test_a_run_without_a_witness_can_get_one_later_and_keeps_its_score(tmp_path: Path, tiny: Dataset) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    first = certified_run(sandbox, probes=0)
    assert outcomes(first)["causal"] == "unknown"
    second = certified_run(sandbox, probes=64)
    assert second["seeds"][0]["ledger_sha256"] == first["seeds"][0]["ledger_sha256"]
    assert second["seeds"][0]["certificate"]["n_probes"] > 0


def test_rescoring_with_a_witness_draws_a_new_random_seed_and_counts_earlier_certificates(
    tmp_path: Path, tiny: Dataset
) -> None:
    verdict = certified_run(Sandbox(tmp_path, tiny))
    with ProgressDisplay() as progress:
        rows = [
            rescore.rescore_run(Path(verdict["run_dir"]), None, [], progress, WitnessRequest(64))["seeds"][0]
            for _ in range(2)
        ]
    assert [row["certificates_before"] for row in rows] == [0, 1]
    assert (
        len({row["certificate"]["seed"] for row in rows} | {verdict["seeds"][0]["certificate"]["seed"]}) == 3
    )
    shutil.rmtree(Path(verdict["seeds"][0]["run_dir"]) / "rescored-01")
    with ProgressDisplay() as progress:
        third = rescore.rescore_run(Path(verdict["run_dir"]), None, [], progress, WitnessRequest(64))[
            "seeds"
        ][0]
    assert third["certificate"]["seed"] not in {row["certificate"]["seed"] for row in rows}, (
        "a random seed is never used twice"
    )


def test_a_damaged_record_stops_a_rescoring_before_any_seed_is_scored(tmp_path: Path, tiny: Dataset) -> None:
    verdict = certified_run(Sandbox(tmp_path, tiny, "[1, 2]"))
    run_dir = Path(verdict["run_dir"])
    (run_dir / "seed-2" / "run.json").write_text("{")
    with ProgressDisplay() as progress, pytest.raises(UsageError, match=r"seed-2/run\.json"):
        rescore.rescore_run(run_dir, None, [], progress, WitnessRequest(64))
    assert not list(run_dir.glob("seed-*/rescored-*"))


def test_a_witness_limited_in_chunks_stops_after_a_random_prefix_and_the_rest_is_charged(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny, override="CHUNK = 128\n")
    certificate = certified_run(sandbox, chunks=4)["seeds"][0]["certificate"]
    whole = len(tiny.validation_tokens()) - 1
    covered = round(certificate["covered_share"] * whole) + 1
    assert covered in {2 * 128, 3 * 128, 4 * 128}
    assert certificate["parts_nats"]["uncovered"] > 0
    assert f"covered {certificate['covered_share']:.1%} of the text" in certificate["guarantee"]


def test_the_end_of_a_limited_witness_depends_on_the_random_seed() -> None:
    scored = sampling.ReportedScore(
        np.zeros(1000, np.uint16), np.zeros(1000, np.float32), np.ones(1000), 2000, 100
    )
    ends = {sampling.draw_prefix(bytes([number]) * 32, scored, 6) for number in range(200)}
    assert ends == {300, 400, 500, 600}
    assert sampling.draw_prefix(bytes(32), scored, 10) == sampling.draw_prefix(bytes(32), scored, 99) == 1000


def test_a_witness_gets_about_the_scorers_time() -> None:
    assert witnesses.total_seconds(0.1, 10, 100) == witnesses.LEAST_TOTAL_SECONDS
    assert witnesses.total_seconds(15.0, 1000, 100) == 15.0 * witnesses.TOTAL_FACTOR
    assert witnesses.total_seconds(15.0, 15, 8000) == 8000 * witnesses.ROW_SHARE, (
        "a second round asks more and may take longer"
    )


def test_a_violation_by_the_witness_is_reported_and_does_not_invalidate_the_score(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise Violation("memory", "killed for taking too much", limit=True)

    monkeypatch.setattr(WitnessSession, "query_witness", out_of_memory)
    verdict = certified_run(Sandbox(tmp_path, tiny))
    assert (verdict["verdict"], outcomes(verdict)["resources"]) == ("inconclusive", "pass")
    assert "killed for taking too much" in verdict["seeds"][0]["unasked"]


def test_shared_channels_are_cleared_before_each_witness(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real, clear = WitnessSession.query_witness, LocalRunner.clear_channels

    def clearing(self: LocalRunner, limits: Limits) -> str:
        events.append("cleared")
        return clear(self, limits)

    def ask(*arguments: Any) -> Any:
        events.append("asked")
        return real(*arguments)

    monkeypatch.setattr(LocalRunner, "clear_channels", clearing)
    monkeypatch.setattr(WitnessSession, "query_witness", ask)
    certified_run(Sandbox(tmp_path, tiny, override=PEEKS))
    assert events == ["cleared", "asked"] * (len(events) // 2)
    assert len(events) >= 4, "two witnesses are asked about a peek"


LEAVES = """
def witness(wire, setup, before=witness):
    class Leaving:
        rows, receive = 0, wire.receive
        def send(self, payload=b"", **frame):
            self.rows += frame["op"] == "row"
            if self.rows > 5:
                raise SystemExit(7)
            wire.send(payload, **frame)
    before(Leaving(), setup)
"""


def test_a_witness_that_exits_half_way_is_reported_with_its_exit_code(tmp_path: Path, tiny: Dataset) -> None:
    certificate = certified_run(Sandbox(tmp_path, tiny, override=LEAVES))["seeds"][0]["certificate"]
    assert certificate["unanswered"] > 0
    assert "exit code 7" in certificate["looks"][0]["ended"][0]
    assert certificate["conditions"][0]["outcome"] == "unknown"


def test_an_engine_that_dies_while_a_witness_answers_is_a_machine_fault(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine_gone(running: object) -> None:
        raise MachineFault("the container engine went away", hint="start it again")

    sandbox = Sandbox(tmp_path, tiny, override=LEAVES)
    with monkeypatch.context() as dying:
        dying.setattr(stages, "raise_exit_reason", engine_gone)
        verdict = certified_run(sandbox)
    code = decide.exit_code(verdict, stopped=verdict["harness"]["stopped"])
    assert (code, verdict["seeds"][0]["certificate"]) == (3, None)
    assert "was cut off" in finding(verdict, "causal")["evidence"]
    assert certified_run(sandbox)["seeds"][0]["certificate"]["times_begun"] == 2


def test_interrupting_a_witness_gives_the_exit_code_of_an_interrupt(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    sandbox = Sandbox(tmp_path, tiny)
    with monkeypatch.context() as stopping:
        stopping.setattr(WitnessSession, "query_witness", stop)
        verdict = certified_run(sandbox)
    assert decide.exit_code(verdict, stopped=verdict["harness"]["stopped"]) == 130
    assert verdict["not_shown"]["C2"] == "witness cut off"
    assert decide.exit_code(certified_run(sandbox)) == 5


def test_a_witness_that_was_begun_keeps_its_number_of_probes_and_rescoring_is_suggested(
    tmp_path: Path, tiny: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    certificate = certified_run(sandbox, probes=64)["seeds"][0]["certificate"]
    assert certified_run(sandbox, probes=512)["seeds"][0]["certificate"] == certificate
    assert "keeps the witness that was begun with 64 probes" in capfd.readouterr().err


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"seed": "00", "ledger_sha256": "0", "probes": 1}', '{"probes": "many"}']
)
def test_a_damaged_witness_file_is_refused_with_a_hint(tmp_path: Path, tiny: Dataset, content: str) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    certified_run(sandbox)
    (sandbox.seed_folder() / "witness.json").write_text(content)
    with pytest.raises(UsageError, match=r"witness\.json") as refused:
        certified_run(sandbox)
    assert refused.value.hint
