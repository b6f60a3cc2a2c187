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
    broken,
    evidence,
    judged,
    manifest,
    record,
)


def test_three_clean_seeds_are_valid() -> None:
    assert judged() == ("valid", 0)


def test_an_artifact_one_byte_over_the_cap_is_invalid_and_exits_4() -> None:
    assert judged(record(1337), record(42, artifact_bytes=CAP - OWN + 1), record(2024)) == ("invalid", 4)
    assert judged(record(1337), record(42, artifact_bytes=CAP - OWN), record(2024)) == ("valid", 0)


FAILED = broken(42, "score", "failed", "protocol")
OVER = broken(42, "train", "over_limit", "train-clock")
MACHINE = broken(42, "train", "machine")
STOPPED = broken(42, "train", "interrupted")


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        (FAILED, ("invalid", 1)),
        (OVER, ("invalid", 4)),
        (MACHINE, ("inconclusive", 3)),
        (STOPPED, ("inconclusive", 130)),
    ],
)
def test_one_bad_seed_decides(bad: SeedRecord, wanted: tuple[str, int]) -> None:
    assert judged(record(1337), bad, record(2024)) == wanted


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        ((FAILED, OVER), ("invalid", 4)),
        ((FAILED, STOPPED), ("invalid", 130)),
        ((OVER, STOPPED), ("invalid", 130)),
        ((FAILED, MACHINE), ("invalid", 3)),
        ((OVER, MACHINE), ("invalid", 3)),
        (
            (MACHINE, SeedRecord(seed=2024)),
            ("inconclusive", 3),
        ),  # the fault stopped the run before the third seed began
    ],
)
def test_what_outweighs_what(bad: tuple[SeedRecord, SeedRecord], wanted: tuple[str, int]) -> None:
    for pair in (bad, bad[::-1]):
        assert judged(record(1337), *pair) == wanted


def test_a_fault_of_the_machine_never_removes_a_seed_from_the_count() -> None:
    whole = assembled(evidence(record(1337), MACHINE, record(2024)))
    assert [row["outcome"] for row in whole["seeds"]] == ["scored", "machine", "scored"]
    assert whole["seeds"][1]["bpb"] is None
    assert whole["seeds"][1]["reason"] == "it broke"


def test_a_seed_that_failed_stays_failed_whatever_came_before_or_after() -> None:
    failed_then_machine = SeedRecord(seed=42, attempts=[*FAILED.attempts, attempt("score", "machine")])
    machine_then_failed = SeedRecord(seed=42, attempts=[attempt("train", "machine"), *FAILED.attempts])
    assert judged(record(1337), failed_then_machine) == ("invalid", 1)
    assert judged(record(1337), machine_then_failed) == ("invalid", 1)
    assert failed_then_machine.left(STAGES) == []
    assert MACHINE.left(STAGES) == ["train", "pack", "score"]


def record_run(**changes: Any) -> tuple[str, int]:
    return judged(profile="record", **changes)


def test_a_record_run_is_inconclusive_while_causality_is_unknown() -> None:
    assert record_run() == ("inconclusive", 5)


def test_a_record_needs_the_conditions_the_image_the_isolation_and_all_seeds_to_be_known() -> None:
    assert {rule.id for rule in RULES if rule.decides_records} == {
        "train-clock",
        "causal",
        "normalised",
        "border-rows",
        "hardware",
        "environment",
        "isolation",
        "data-separation",
        "seeds",
    }


def test_a_local_pocket_run_is_valid_but_says_that_nothing_was_isolated() -> None:
    whole = assembled(
        evidence(
            runner="local", isolated=False, isolation="none: a child process", image=None, image_lock=None
        )
    )
    assert (whole["verdict"], whole["isolation"][:4]) == ("valid", "none")


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
