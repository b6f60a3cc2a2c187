"""From findings to verdict and exit code, what outweighs what, and the contents of verdict.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.edition import EDITION
from harness.run.records import STAGES, SeedRecord
from harness.verdict import decide
from harness.verdict.rules import RULES
from tests.harness.fakes.verdicts import (
    BASELINE,
    CAP,
    OWN,
    assembled,
    attempt,
    baseline,
    boundary,
    broken,
    certified,
    evidence,
    judged,
    manifest,
    record,
    witnessed,
)

LOCAL: dict[str, Any] = {
    "runner": "local",
    "isolated": False,
    "isolation": "none: a child process",
    "image": None,
    "image_lock": None,
}


def test_three_witnessed_seeds_in_a_container_are_valid() -> None:
    whole = assembled(evidence())
    assert (whole["verdict"], whole["decided_by"], decide.exit_code(whole)) == ("valid", [], 0)
    assert (whole["shown"], whole["not_shown"]) == (["C1", "C2", "C3", "C4"], {})


def test_an_artifact_one_byte_over_the_cap_is_invalid_and_exits_4() -> None:
    fits = CAP - OWN
    assert judged(witnessed(1337), witnessed(42, artifact_bytes=fits + 1), witnessed(2024)) == ("invalid", 4)
    assert judged(witnessed(1337), witnessed(42, artifact_bytes=fits), witnessed(2024)) == ("valid", 0)


FAILED = broken(42, "score", "failed", "protocol")
OVER = broken(42, "train", "over_limit", "train-clock")
MACHINE = broken(42, "train", "machine")
STOPPED = broken(42, "train", "interrupted")
MISSING = SeedRecord(seed=42)


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        (FAILED, ("invalid", 1)),
        (OVER, ("invalid", 4)),
        (MACHINE, ("inconclusive", 3)),
        (STOPPED, ("inconclusive", 130)),
        (MISSING, ("inconclusive", 5)),
    ],
)
def test_one_bad_seed_decides(bad: SeedRecord, wanted: tuple[str, int]) -> None:
    assert judged(witnessed(1337), bad, witnessed(2024)) == wanted


@pytest.mark.parametrize(("by", "code"), [("machine", 3), ("interrupted", 130)])
@pytest.mark.parametrize("bad", [FAILED, OVER, MACHINE, STOPPED, MISSING])
def test_what_stopped_the_command_comes_before_what_its_records_say(
    bad: SeedRecord, by: str, code: int
) -> None:
    whole = assembled(evidence(witnessed(1337), bad, witnessed(2024)))
    wanted = 3 if bad is MACHINE else code
    assert decide.exit_code(whole, stopped=by) == wanted
    assert decide.exit_code(whole, allow_open=True, stopped=by) == wanted


def test_a_limit_outweighs_another_violation() -> None:
    for pair in ((FAILED, OVER), (OVER, FAILED)):
        assert judged(witnessed(1337), *pair) == ("invalid", 4)


def test_an_open_verdict_can_be_accepted_and_no_other_one() -> None:
    def accepted(*seeds: SeedRecord) -> int:
        return decide.exit_code(assembled(evidence(*seeds)), allow_open=True)

    assert accepted(witnessed(1337), MISSING) == 0
    assert accepted(witnessed(1337), FAILED) == 1
    assert accepted(witnessed(1337), OVER) == 4
    assert accepted(witnessed(1337), MACHINE) == 3
    assert accepted(witnessed(1337), STOPPED) == 130


def test_a_fault_of_the_machine_never_removes_a_seed_from_the_count() -> None:
    whole = assembled(evidence(record(1337), MACHINE, record(2024)))
    assert [row["outcome"] for row in whole["seeds"]] == ["scored", "machine", "scored"]
    assert whole["seeds"][1]["bpb"] is None
    assert whole["seeds"][1]["reason"] == "it broke"


def test_a_declared_seed_that_was_never_begun_is_a_row_of_its_own() -> None:
    whole = assembled(evidence(witnessed(1337), MISSING, witnessed(2024)))
    assert [row["outcome"] for row in whole["seeds"]] == ["scored", "missing", "scored"]
    assert (whole["decided_by"], whole["shown"]) == (["seeds"], ["C1", "C2", "C3", "C4"])


def test_a_seed_that_failed_stays_failed_whatever_came_before_or_after() -> None:
    failed_then_machine = SeedRecord(seed=42, attempts=[*FAILED.attempts, attempt("score", "machine")])
    machine_then_failed = SeedRecord(seed=42, attempts=[attempt("train", "machine"), *FAILED.attempts])
    assert judged(record(1337), failed_then_machine) == ("invalid", 1)
    assert judged(record(1337), machine_then_failed) == ("invalid", 1)
    assert failed_then_machine.left(STAGES) == []
    assert MACHINE.left(STAGES) == ["train", "pack", "score"]


@pytest.mark.parametrize("profile", ["pocket", "solo", "record"])
@pytest.mark.parametrize("where", [{}, LOCAL])
def test_what_was_not_asked_is_never_better_than_what_was_asked_and_found_too_wide(
    profile: str, where: dict[str, Any]
) -> None:
    def standing(*seeds: SeedRecord) -> tuple[str, set[str]]:
        whole = assembled(evidence(*seeds, profile=profile, **where))
        return whole["verdict"], set(whole["shown"])

    seeds = (1337, 42, 2024)
    unasked = standing(*(record(seed) for seed in seeds))
    too_wide = standing(*(certified(seed, probes=20) for seed in seeds))
    silent = standing(*(certified(seed, silent=True) for seed in seeds))
    assert unasked == silent == ("inconclusive", set())
    assert too_wide[0] == "inconclusive"
    assert unasked[1] <= too_wide[1]


def test_the_reason_why_a_condition_is_not_shown_is_told_in_a_few_words() -> None:
    def reasons(*seeds: SeedRecord, **changes: Any) -> dict[str, str]:
        whole: dict[str, str] = assembled(evidence(*seeds, **changes))["not_shown"]
        return whole

    seeds = (1337, 42, 2024)
    every = ("C1", "C2", "C3", "C4")
    unasked = [record(seed) for seed in seeds]
    assert reasons(*unasked) == dict.fromkeys(every, "no witness")
    cooperative = dict.fromkeys(("C1", "C3", "C4"), "no isolation")
    assert reasons(**LOCAL) == cooperative
    neither = {"C1": "no witness, no isolation", "C2": "no witness"}
    assert reasons(*unasked, **LOCAL).items() >= neither.items()
    wide = [certified(seed, probes=20) for seed in seeds]
    assert reasons(*wide) == dict.fromkeys(every, "bound too wide")
    assert reasons(witnessed(1337), record(42), witnessed(2024)) == dict.fromkeys(every, "no witness")
    torn = witnessed(42, borders=[boundary(777, before=3.01)])
    assert reasons(witnessed(1337), torn, witnessed(2024)) == {"C1": "border rows differ"}


def test_a_local_run_is_inconclusive_in_every_profile_and_names_the_rules_that_leave_it_so() -> None:
    whole = assembled(evidence(**LOCAL))
    assert (whole["verdict"], decide.exit_code(whole)) == ("inconclusive", 5)
    assert whole["decided_by"] == ["causal", "score-first", "single-pass"]
    assert whole["shown"] == ["C2"]


def test_every_condition_and_the_seeds_decide_everywhere_and_a_record_needs_more() -> None:
    def rules(decides: str) -> set[str]:
        return {rule.id for rule in RULES if rule.decides == decides}

    assert rules("always") == {"causal", "normalised", "border-rows", "score-first", "single-pass", "seeds"}
    assert rules("record") == {"train-clock", "hardware", "environment", "isolation", "data-separation"}
    assert {rule.id for rule in RULES if rule.info.condition} <= rules("always")


def test_a_record_on_other_hardware_is_inconclusive_by_that() -> None:
    whole = assembled(evidence(profile="record"))
    assert whole["verdict"] == "inconclusive"
    assert "hardware" in whole["decided_by"]


TOP = {
    "schema",
    "submission",
    "edition",
    "profile",
    "runner",
    "limits",
    "dataset",
    "image",
    "host",
    "seeds",
    "mean_bpb",
    "sd_bpb",
    "ci95_bpb",
    "baseline",
    "verdict",
    "findings",
}
ROW = {
    "seed",
    "outcome",
    "bpb",
    "nats_per_token",
    "scored_tokens",
    "scored_bytes",
    "setup_seconds",
    "train_seconds",
    "pack_seconds",
    "score_seconds",
    "claims",
    "artifact_bytes",
    "code_bytes",
    "config_bytes",
    "counted_bytes",
    "artifact_sha256",
    "ledger_sha256",
    "run_dir",
}


@pytest.mark.parametrize("seeds", [(), (MACHINE,), (SeedRecord(seed=1),), (record(1), STOPPED)])
def test_the_json_has_every_key_of_the_design_whatever_happened(seeds: tuple[SeedRecord, ...]) -> None:
    whole = json.loads(json.dumps(assembled(evidence(*seeds)), allow_nan=False))
    assert set(whole) >= TOP
    assert set(whole["dataset"]) == {"name", "sha256"}
    assert all(set(row) >= ROW for row in whole["seeds"])
    assert all(
        {"rule", "condition", "outcome", "evidence", "not_covered"} <= set(each) for each in whole["findings"]
    )
    assert (whole["schema"], whole["edition"]) == (1, EDITION)


def test_the_numbers_are_those_of_the_seeds() -> None:
    whole = assembled(evidence())
    assert whole["mean_bpb"] == pytest.approx(2.11)
    assert whole["sd_bpb"] == pytest.approx(0.01)
    assert whole["ci95_bpb"] == pytest.approx([2.11 - 0.0248414, 2.11 + 0.0248414], abs=1e-6)
    row = whole["seeds"][0]
    assert (row["counted_bytes"], row["artifact_bytes"]) == (5_000_000 + OWN, 5_000_000)
    assert (row["train_seconds"], row["setup_seconds"]) == (20.0, 3.0)
    assert row["claims"] == {"steps": 100, "tokens": 10_000}


def test_one_seed_has_a_mean_and_no_spread_and_none_has_neither() -> None:
    one, none = assembled(evidence(record(1337))), assembled(evidence(MACHINE))
    assert (one["mean_bpb"], one["sd_bpb"], one["ci95_bpb"]) == (2.1, None, None)
    assert (none["mean_bpb"], none["sd_bpb"], none["ci95_bpb"]) == (None, None, None)


def test_the_significance_test_is_reported_per_rule_profile_and_changes_no_verdict() -> None:
    better = baseline()
    assert {test["profile"]: test["better"] for test in better["tests"]} == {
        "readme": True,
        "progression-2026-04-28": True,
    }
    worse = evidence(manifest=manifest(baseline=BASELINE | {"bpb": {1: 1.0, 2: 1.01}}))
    assert not any(test["better"] for test in assembled(worse)["baseline"]["tests"])
    assert (assembled(worse)["verdict"], decide.exit_code(assembled(worse))) == ("valid", 0)


@pytest.mark.parametrize(
    ("seeds", "changes", "reason"),
    [
        ((), {"dataset": "fineweb-sp1024"}, "not comparable"),
        ((), {"profile": "solo"}, "not comparable"),
        ((record(1337), MACHINE), {}, "fewer than two seeds"),
        ((record(1337), record(42)), {"bpb": {1: 2.2, 2: 2.2}}, "no seed differs"),
    ],
)
def test_where_no_test_is_lawful_there_is_none_and_the_reason_is_said(
    seeds: tuple[SeedRecord, ...], changes: dict[str, Any], reason: str
) -> None:
    tested = baseline(*seeds, **changes)
    assert tested["tests"] is None
    assert reason in tested["reason"]


def test_without_a_baseline_there_is_no_test() -> None:
    assert assembled(evidence())["baseline"] is None
