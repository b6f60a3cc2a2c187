"""What other processes took of the cores during a stage: the arithmetic, what is said, and real stages."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.base import host
from harness.base.errors import Violation
from harness.base.host import CpuTimes
from harness.data.dataset import Dataset
from harness.edition import BUSY_SHARE
from harness.run import cpu_use, stages
from harness.run.cpu_use import CpuUse, Meter, busy_sentence, measured
from harness.run.records import Attempt, SeedRecord, load
from harness.run.witness_state import witness_request
from harness.runners.base import Runner
from harness.verdict import compare, decide
from harness.verdict.assess import assess
from tests.harness.fakes.run_folders import write_run
from tests.harness.fakes.sandbox import Sandbox
from tests.harness.fakes.stage_bench import Bench
from tests.harness.fakes.verdicts import attempt

BURN_SECONDS = 0.6
BURN = f"""
import time
def burn():
    began = time.process_time()
    while time.process_time() - began < {BURN_SECONDS}:
        pass

def before_trained(wire, setup):
    burn()
    if os.fork() == 0:
        burn()
        os._exit(0)
    os.wait()
"""
"""Takes BURN_SECONDS of CPU, and as much again in a child that has ended before the clock stops."""


def use(**changes: Any) -> CpuUse:
    """Ten seconds of two cores: 4 s for the contestant, 1 s for the judge, 5 s for others, 2 s stolen."""
    facts = {
        "seconds": 10.0,
        "cores": 2,
        "busy_seconds": 10.0,
        "stolen_seconds": 2.0,
        "judge_seconds": 1.0,
        "contestant_seconds": 4.0,
    }
    return CpuUse.model_validate(facts | changes)


# --- arithmetic


def test_the_share_of_others_is_the_busy_time_of_all_cores_less_the_contestants_and_the_judges() -> None:
    assert (use().others_share, use().stolen_share) == (0.25, 0.1)


def test_where_the_contestants_time_is_unknown_the_share_of_others_is_too() -> None:
    assert (use(contestant_seconds=None).others_share, use().stolen_share) == (None, 0.1)


def test_a_clock_of_a_few_ticks_has_no_share() -> None:
    assert (use(seconds=0.9).others_share, use(seconds=0.9).stolen_share) == (None, None)


def test_a_share_lies_between_0_and_1_whatever_the_ticks_say() -> None:
    assert (use(busy_seconds=4.9).others_share, use(busy_seconds=99.0).others_share) == (0.0, 1.0)


def test_several_clocks_add_up_and_one_unknown_time_makes_the_sum_unknown() -> None:
    idle = use(busy_seconds=5.0, stolen_seconds=0.0)
    assert ((use() + idle).others_share, (use() + idle).seconds) == (0.125, 20.0)
    assert (use() + use(contestant_seconds=None)).contestant_seconds is None


@pytest.mark.parametrize("wrong", [{"seconds": float("nan")}, {"cores": 0}, {"busy_seconds": -1.0}, {"x": 1}])
def test_numbers_that_no_measurement_gives_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        use(**wrong)


def test_the_counters_of_machine_judge_and_contestant_are_read_at_both_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = iter([CpuTimes(100.0, 7.0), CpuTimes(112.0, 8.0)])
    contestant, kept = iter([3.0, 8.0]), list[CpuUse]()
    monkeypatch.setattr(host, "cpu_times", lambda: next(machine))
    monkeypatch.setattr(cpu_use.time, "process_time", iter([1.0, 1.5]).__next__)
    monkeypatch.setattr(cpu_use.time, "monotonic", iter([50.0, 60.0]).__next__)
    meter = Meter(lambda: next(contestant), kept.append)
    meter.stop()
    meter.stop()
    (found,) = kept
    assert (found.seconds, found.busy_seconds, found.stolen_seconds) == (10.0, 12.0, 1.0)
    assert (found.judge_seconds, found.contestant_seconds) == (0.5, 5.0)


def test_a_time_that_runs_backwards_is_unknown_and_not_negative() -> None:
    contestant, kept = iter([3.0, 2.0]), list[CpuUse]()
    Meter(lambda: next(contestant), kept.append).stop()
    assert kept[0].contestant_seconds is None


def test_a_stage_that_fails_is_measured_too() -> None:
    kept: list[CpuUse] = []
    with pytest.raises(Violation), measured(lambda: 1.0, kept.append):
        raise Violation("train-clock", "too late")
    assert kept[0].contestant_seconds == 0.0


# --- what is said


def test_only_a_share_over_a_few_per_cent_is_told_with_its_stage() -> None:
    assert busy_sentence({"train": BUSY_SHARE, "pack": None, "score": 0.01}, {"train": 0.0}) is None
    assert busy_sentence({"train": 0.48, "pack": 0.02, "score": 0.114}, {"train": 0.1}) == (
        "the machine was busy: of its cores other processes took 48 % in train, 11 % in score and the "
        "hypervisor took 10 % in train"
    )


def test_a_busy_stage_is_a_remark_beside_the_score_and_changes_no_verdict(tmp_path: Path) -> None:
    def verdict(cpu: CpuUse | None) -> dict[str, Any]:
        done = [attempt(stage, cpu=cpu if stage == "train" else None) for stage in ("train", "pack", "score")]
        folder = write_run(
            tmp_path, "idea", "2026-05-01T00:00:00+00:00", seed=SeedRecord(seed=1, attempts=done)
        )
        return assess(folder)

    busy, unknown = verdict(use()), verdict(None)
    row = busy["seeds"][0]
    assert row["others_cpu_share"] == {"train": 0.25, "pack": None, "score": None}
    assert row["stolen_cpu_share"]["train"] == 0.1
    assert (
        "seed 1: the machine was busy: of its cores other processes took 25 % in train" in busy["remarks"][0]
    )
    assert not any("busy" in remark for remark in unknown["remarks"])
    for key in ("verdict", "decided_by", "findings"):
        assert busy[key] == unknown[key]


def test_a_comparison_says_beside_which_run_the_machine_was_busy(tmp_path: Path) -> None:
    compared = {"first": "a", "second": "b", "differs": [], "verdicts": {"first": None, "second": "headline"}}
    compared |= {"seeds": [[1, 1]], "left_out": {}, "busy": {"first": [], "second": ["seed 1: the machine"]}}
    assert "second, seed 1: the machine" in compare._caveats(compared)


def test_a_record_from_before_this_was_measured_loads_as_unknown(tmp_path: Path) -> None:
    old = attempt("train").model_dump(mode="json")
    del old["cpu"]
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"schema_version": 1, "seed": 1, "attempts": [old]}))
    assert decide.cpu_shares(load(path, 1)) == {
        "others_cpu_share": {"train": None},
        "stolen_cpu_share": {"train": None},
    }


def test_of_several_attempts_the_one_that_finished_counts() -> None:
    def begun(outcome: str, contestant: float) -> Attempt:
        return attempt("train", outcome, cpu=use(contestant_seconds=contestant))  # type: ignore[arg-type]

    seed = SeedRecord(seed=1, attempts=[begun("machine", 1.0), begun("done", 4.0)])
    assert decide.cpu_shares(seed)["others_cpu_share"] == {"train": 0.25}
    seed = SeedRecord(seed=1, attempts=[begun("machine", 1.0), begun("over_limit", 3.0)])
    assert decide.cpu_shares(seed)["others_cpu_share"] == {"train": 0.3}


# --- real stages


@pytest.mark.slow
def test_a_contestants_cpu_time_is_known_with_that_of_a_child_that_has_ended(
    bench: Bench, runner: Runner
) -> None:
    kept: list[CpuUse] = []
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        try:
            job = replace(bench.job(runner, BURN), on_cpu_use=kept.append)
            bench.train(job)
        finally:
            busy.kill()
    (found,) = kept
    assert found.contestant_seconds is not None
    assert found.contestant_seconds >= 1.8 * BURN_SECONDS
    assert found.busy_seconds > 0
    assert found.others_share is None or 0 <= found.others_share <= 1


@pytest.mark.slow
def test_every_stage_of_a_run_has_its_cpu_use_on_record(tmp_path: Path, tiny: Dataset) -> None:
    sandbox = Sandbox(tmp_path, tiny, override=BURN)
    verdict = sandbox.run(witness_request("pocket", 32))
    record = load(sandbox.seed_folder() / "run.json", 1)
    used = {each.stage: each.cpu for each in record.attempts}
    assert set(used) == {"train", "pack", "score", "witness"} and None not in used.values()
    assert used["train"] is not None and (used["train"].contestant_seconds or 0) >= 1.8 * BURN_SECONDS
    share = verdict["seeds"][0]["others_cpu_share"]["train"]
    assert share is not None and 0 <= share <= 1, "its clock ran for more than a second"


@pytest.mark.slow
def test_a_contestant_that_has_exited_has_no_known_time(bench: Bench, runner: Runner) -> None:
    with stages.running(bench.job(runner, "def main(): pass\n"), "describe", {}, 1 << 20) as process:
        process.wait(10)
        assert process.cpu_seconds() is None
