"""The witness in a run: asked after the score, once with the same coins, kept so that its bound can be made
again."""

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
from harness.commands.run import run_submission
from harness.data.dataset import Dataset
from harness.edition import PROFILES, Limits
from harness.run import stages, witnesses
from harness.run.witness_state import WitnessRequest, witness_request
from harness.run.witnesses import WitnessSession
from harness.runners.local import LocalRunner
from harness.scoring.certificate import bound, reference_model, sampling
from harness.verdict import decide
from tests.harness.run.test_resume import World

PEEKS = """
def answer(wire, frame, numbers, row):
    wire.send(floats(*[n / 2 for n in numbers], *row), op='nats', chunk=frame['chunk'])
"""
SILENT = "def witness(wire, setup):\n    raise SystemExit('caught')\n"


def run(world: World, probes: int = 256, chunks: int | None = None, lanes: bool = False) -> dict[str, Any]:
    request = witness_request("pocket", probes, chunks, lanes)
    with ProgressDisplay() as display:
        return run_submission(world.options(request), display)


def outcomes(judged: dict[str, Any]) -> dict[str, str]:
    return {found["rule"]: found["outcome"] for found in judged["findings"]}


def test_every_profile_asks_a_witness_unless_told_otherwise() -> None:
    assert set(PROFILES) == {profile for profile in PROFILES if witness_request(profile) is not None}
    assert witness_request("pocket", 0) is None
    assert witness_request("pocket", 64, 3, True) == WitnessRequest(64, 3, True)
    with pytest.raises(UsageError, match="unknown profile 'pockets'"):
        witness_request("pockets")


def test_a_run_carries_a_certificate_that_its_kept_answers_make_again(tmp_path: Path, tiny: Dataset) -> None:
    judged = run(World(tmp_path, tiny))
    (row,) = judged["seeds"]
    made = row["certificate"]
    assert made["largest_gain_nats"] < 1e-5
    assert outcomes(judged)["normalised"] == "pass"
    folder = Path(row["run_dir"])
    with np.load(folder / "witness-1.npz", allow_pickle=False) as kept:
        responses = {name: kept[name] for name in kept}
    tokens_T, nats_T = tiny.validation_tokens(), np.fromfile(folder / "nats.f32", "<f4")
    claimed = sampling.ReportedScore(
        tokens_T, nats_T, reference_model.probabilities(tokens_T, tiny.vocab_size), row["scored_bytes"], 4096
    )
    plan = sampling.draw(bytes.fromhex(made["seed"]), claimed, 256)
    assert (responses["position"] == plan.asked_P).all()
    again = bound.bound(plan, bound.gains(plan, responses["witness_1"])).total
    assert again == pytest.approx(made["G_nats"], rel=1e-12)
    assert json.loads((folder / "witness.json").read_text())["seed"] == made["seed"]


def test_a_peeking_scorer_is_invalid_by_its_witness_alone(tmp_path: Path, tiny: Dataset) -> None:
    judged = run(World(tmp_path, tiny, override=PEEKS))
    assert judged["verdict"] == "invalid"
    assert outcomes(judged)["causal"] == "fail"
    assert judged["seeds"][0]["bpb"] is not None, "the score stays beside what is wrong with it"


def test_a_witness_that_leaves_fails_no_score_and_certifies_nothing(tmp_path: Path, tiny: Dataset) -> None:
    judged = run(World(tmp_path, tiny, override=SILENT))
    (row,) = judged["seeds"]
    assert (row["outcome"], row["certificate"]) == ("scored", None)
    assert "could not be asked" in row["unasked"]
    assert outcomes(judged)["causal"] == "unknown"


def test_coins_are_drawn_once_whatever_cuts_the_witness_off(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, tiny)

    def fails(*_: object) -> None:
        raise MachineFault("the engine went away", hint="start it again")

    with monkeypatch.context() as broken:
        broken.setattr(WitnessSession, "query_witness", fails)
        assert run(world)["seeds"][0]["certificate"] is None
    begun = json.loads((world.seed_folder() / "witness.json").read_text())
    judged = run(world)
    made = judged["seeds"][0]["certificate"]
    assert (made["seed"], made["times_begun"]) == (begun["seed"], 2)
    evidence = next(found["evidence"] for found in judged["findings"] if found["rule"] == "single-pass")
    assert "1 witnesses that were interrupted or met a machine fault" in evidence
    assert run(world)["seeds"][0]["certificate"] == made, "a finished one is not asked again"


def test_coins_of_another_ledger_are_refused(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, tiny)
    with monkeypatch.context() as broken:
        broken.setattr(
            WitnessSession,
            "query_witness",
            lambda *_: (_ for _ in ()).throw(MachineFault("gone", hint="again")),
        )
        run(world)
    path = world.seed_folder() / "witness.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ledger_sha256": "0" * 64}))
    with pytest.raises(UsageError, match="random seed belongs to another ledger"):
        run(world)


def test_a_run_without_a_witness_gets_one_later_and_keeps_its_score(tmp_path: Path, tiny: Dataset) -> None:
    world = World(tmp_path, tiny)
    first = run(world, probes=0)
    assert outcomes(first)["causal"] == "unknown"
    second = run(world, probes=64)
    assert second["seeds"][0]["ledger_sha256"] == first["seeds"][0]["ledger_sha256"]
    assert second["seeds"][0]["certificate"]["n_probes"] > 0


def test_rescoring_with_a_witness_draws_coins_of_its_own_and_lists_what_came_before(
    tmp_path: Path, tiny: Dataset
) -> None:
    judged = run(World(tmp_path, tiny))
    with ProgressDisplay() as progress:
        rows = [
            rescore.rescore_run(Path(judged["run_dir"]), None, [], progress, WitnessRequest(64))["seeds"][0]
            for _ in range(2)
        ]
    assert [row["certificates_before"] for row in rows] == [0, 1]
    assert (
        len({row["certificate"]["seed"] for row in rows} | {judged["seeds"][0]["certificate"]["seed"]}) == 3
    )
    shutil.rmtree(Path(judged["seeds"][0]["run_dir"]) / "rescored-01")
    with ProgressDisplay() as progress:
        third = rescore.rescore_run(Path(judged["run_dir"]), None, [], progress, WitnessRequest(64))["seeds"][
            0
        ]
    assert third["certificate"]["seed"] not in {row["certificate"]["seed"] for row in rows}, (
        "no number is used twice"
    )


def test_a_bounded_witness_stops_after_a_random_prefix_and_charges_the_rest(
    tmp_path: Path, tiny: Dataset
) -> None:
    world = World(tmp_path, tiny, override="CHUNK = 128\n")
    made = run(world, chunks=4)["seeds"][0]["certificate"]
    whole = len(tiny.validation_tokens()) - 1
    covered = round(made["covered_share"] * whole) + 1
    assert covered in {2 * 128, 3 * 128, 4 * 128}
    assert made["parts_nats"]["uncovered"] > 0
    assert f"covered {made['covered_share']:.1%} of the text" in made["guarantee"]


def test_the_end_of_a_bounded_witness_is_spread_over_the_seeds() -> None:
    scored = sampling.ReportedScore(
        np.zeros(1000, np.uint16), np.zeros(1000, np.float32), np.ones(1000), 2000, 100
    )
    ends = {sampling.draw_prefix(bytes([number]) * 32, scored, 6) for number in range(200)}
    assert ends == {300, 400, 500, 600}
    assert sampling.draw_prefix(bytes(32), scored, 10) == sampling.draw_prefix(bytes(32), scored, 99) == 1000


def test_a_witness_has_the_scorers_time_and_no_more() -> None:
    assert witnesses.total_seconds(0.1, 10, 100) == witnesses.LEAST_TOTAL_SECONDS
    assert witnesses.total_seconds(15.0, 1000, 100) == 15.0 * witnesses.TOTAL_FACTOR
    assert witnesses.total_seconds(15.0, 15, 8000) == 8000 * witnesses.ROW_SHARE, (
        "a second round asks more and may take longer"
    )


def test_a_violation_of_the_witness_is_told_and_is_none_of_the_score(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise Violation("memory", "killed for taking too much", limit=True)

    monkeypatch.setattr(WitnessSession, "query_witness", out_of_memory)
    judged = run(World(tmp_path, tiny))
    assert (judged["verdict"], outcomes(judged)["resources"]) == ("valid", "pass")
    assert "killed for taking too much" in judged["seeds"][0]["unasked"]


LATER_TEXT_IN_LANES = """
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
ROWS_OFF_ALONE = """
def witness(wire, setup, before=witness):
    class Off:
        receive = wire.receive
        def send(self, payload=b"", **frame):
            if frame["op"] == "row":
                payload = floats(*[0.5 - math.log(setup["vocab_size"])] * setup["vocab_size"])
            wire.send(payload, **frame)
    before(Off(), setup)
"""
BETTER_IN_LANES = """
def lane_row(size):
    return [math.log(0.5 / 200)] * 200 + [math.log(0.5 / (size - 200))] * (size - 200)
"""


def test_lanes_certify_as_strict_prefixes_do_and_say_what_they_assume(tmp_path: Path, tiny: Dataset) -> None:
    made = run(World(tmp_path, tiny), lanes=True)["seeds"][0]["certificate"]
    assert (made["unanswered"], made["lanes"]["agree"]) == (0, True)
    assert made["largest_gain_nats"] < 1e-5
    assert "many at once" in made["guarantee"]
    assert "each of its rows depends on its own context alone" in made["guarantee"]
    assert "whatever the program does" not in made["guarantee"]
    assert made["lanes"]["G_bpb"] >= made["G_bpb"], "fewer probes prove less"
    assert all(each["outcome"] == "pass" or each.get("cooperative") for each in made["conditions"])


def test_lanes_that_say_something_else_than_strict_prefixes_certify_nothing(
    tmp_path: Path, tiny: Dataset
) -> None:
    judged = run(World(tmp_path, tiny, override=BETTER_IN_LANES), lanes=True)
    made = judged["seeds"][0]["certificate"]
    assert not made["lanes"]["agree"]
    assert {each["outcome"] for each in made["conditions"]} == {"unknown"}
    assert (
        "differ from those after strict prefixes"
        in next(f for f in judged["findings"] if f["rule"] == "causal")["evidence"]
    )


def test_lanes_of_a_contestant_that_adapts_are_not_asked_and_the_seeds_go_on(
    tmp_path: Path, tiny: Dataset
) -> None:
    from tests.harness.run.test_adapting import Learner

    judged = run(Learner(tmp_path, tiny), lanes=True)
    assert "without --witness-lanes" in judged["seeds"][0]["unasked"]
    assert (judged["verdict"], judged["seeds"][0]["outcome"]) == ("valid", "scored")


def test_lanes_certify_nothing_that_strict_prefixes_accuse(tmp_path: Path, tiny: Dataset) -> None:
    """Rows in lanes are the claims, those after strict prefixes cost 0.04 nats more for most tokens: what
    lanes may differ by."""
    judged = run(World(tmp_path, tiny, override=LATER_TEXT_IN_LANES), probes=512, lanes=True)
    made = judged["seeds"][0]["certificate"]
    assert made["lanes"]["agree"]
    assert made["largest_gain_nats"] < 1e-5
    assert {each["condition"]: each["outcome"] for each in made["conditions"]}["C1"] == "fail"
    assert judged["verdict"] == "invalid"


def test_rows_after_strict_prefixes_must_be_distributions_too(tmp_path: Path, tiny: Dataset) -> None:
    judged = run(World(tmp_path, tiny, override=ROWS_OFF_ALONE), lanes=True)
    assert outcomes(judged)["normalised"] == "fail"


def test_a_strict_witness_that_refuses_leaves_lanes_uncompared_and_heard(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WitnessSession.query_witness

    def third_leaves(session: WitnessSession, *arguments: Any) -> Any:
        if session.asked == 3:
            raise Violation("contestant", "it left")
        return real(session, *arguments)

    monkeypatch.setattr(WitnessSession, "query_witness", third_leaves)
    made = run(World(tmp_path, tiny), lanes=True)["seeds"][0]["certificate"]
    assert made["lanes"] == {"G_bpb": None, "probes": 0}
    assert {each["outcome"] for each in made["conditions"]} == {"unknown"}
    assert all("not compared with strict prefixes" in each["evidence"] for each in made["conditions"])


def test_a_round_has_one_reason_and_one_time_for_each_witness_also_for_one_that_could_not_be_queried(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WitnessSession.query_witness

    def first_leaves(session: WitnessSession, *arguments: Any) -> Any:
        if session.asked == 1:
            raise Violation("contestant", "it left")
        return real(session, *arguments)

    monkeypatch.setattr(WitnessSession, "query_witness", first_leaves)
    (round_facts,) = run(World(tmp_path, tiny), lanes=True)["seeds"][0]["certificate"]["looks"]
    assert round_facts["witnesses"] == len(round_facts["ended"]) == len(round_facts["seconds"]) > 1
    assert round_facts["ended"][0] == "it left" and round_facts["ended"][1] is None
    assert round_facts["seconds"][0]["rows"] == 0 < round_facts["seconds"][1]["rows"]


def test_what_both_could_touch_is_cleared_before_each_witness(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    real, clear = WitnessSession.query_witness, LocalRunner.clear_channels

    def clearing(self: LocalRunner, limits: Limits) -> str:
        happened.append("cleared")
        return clear(self, limits)

    def asking_one(*arguments: Any) -> Any:
        happened.append("asked")
        return real(*arguments)

    monkeypatch.setattr(LocalRunner, "clear_channels", clearing)
    monkeypatch.setattr(WitnessSession, "query_witness", asking_one)
    run(World(tmp_path, tiny, override=PEEKS))
    assert happened == ["cleared", "asked"] * (len(happened) // 2)
    assert len(happened) >= 4, "a peek is asked about by two"


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


def test_a_witness_that_ends_half_way_is_explained_by_its_process(tmp_path: Path, tiny: Dataset) -> None:
    made = run(World(tmp_path, tiny, override=LEAVES))["seeds"][0]["certificate"]
    assert made["unanswered"] > 0
    assert "exit code 7" in made["looks"][0]["ended"][0]
    assert made["conditions"][0]["outcome"] == "unknown"


def test_an_engine_that_dies_while_a_witness_answers_is_no_silence_of_the_witness(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine_gone(running: object) -> None:
        raise MachineFault("the container engine went away", hint="start it again")

    world = World(tmp_path, tiny, override=LEAVES)
    with monkeypatch.context() as dying:
        dying.setattr(stages, "raise_exit_reason", engine_gone)
        judged = run(world)
    assert (decide.exit_code(judged), judged["seeds"][0]["certificate"]) == (3, None)
    assert "was cut off" in next(f for f in judged["findings"] if f["rule"] == "causal")["evidence"]
    assert run(world)["seeds"][0]["certificate"]["times_begun"] == 2


def test_a_stop_by_hand_in_a_witness_has_the_exit_code_of_a_stop(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    world = World(tmp_path, tiny)
    with monkeypatch.context() as stopping:
        stopping.setattr(WitnessSession, "query_witness", stop)
        assert decide.exit_code(run(world)) == 130
    assert decide.exit_code(run(world)) == 0


def test_a_witness_that_was_begun_keeps_its_number_and_another_is_pointed_to_rescoring(
    tmp_path: Path, tiny: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, tiny)
    made = run(world, probes=64)["seeds"][0]["certificate"]
    assert run(world, probes=512)["seeds"][0]["certificate"] == made
    assert "the witness begun with 64 probes stands" in capfd.readouterr().err


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"seed": "00", "ledger_sha256": "0", "probes": 1}', '{"probes": "many"}']
)
def test_coins_that_were_changed_by_hand_are_told_with_a_hint(
    tmp_path: Path, tiny: Dataset, content: str
) -> None:
    world = World(tmp_path, tiny)
    run(world)
    (world.seed_folder() / "witness.json").write_text(content)
    with pytest.raises(UsageError, match=r"witness\.json") as refused:
        run(world)
    assert refused.value.hint
