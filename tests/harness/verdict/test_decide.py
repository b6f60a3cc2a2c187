"""From evidence to findings, verdict and exit code: each rule's answers, and what outweighs what."""

from __future__ import annotations

import ast
import itertools
import json
from typing import Any

import pytest

from harness.base.paths import ROOT
from harness.edition import EDITION
from harness.run.records import STAGES, Outcome, SeedRecord
from harness.verdict import decide
from harness.verdict.rules import RULES, Evidence, finding
from tests.harness.verdict.verdicts import (
    LIMITS,
    assembled,
    attempt,
    boundary,
    broken,
    evidence,
    manifest,
    record,
)

CAP = LIMITS.counted_bytes
OWN = 61_000
"""Code and recipe of the clean evidence."""


def found(rule: str, facts: Evidence) -> dict[str, Any]:
    """The finding of one rule."""
    return finding(next(each for each in RULES if each.id == rule), facts)


def outcome(rule: str, facts: Evidence) -> str:
    text: str = found(rule, facts)["outcome"]
    return text


def judged(*seeds: SeedRecord, **changes: Any) -> tuple[str, int]:
    """Verdict and exit code."""
    whole = assembled(evidence(*seeds, **changes))
    return whole["verdict"], decide.exit_code(whole)


# --- rules one by one
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("over", "wanted"), [(-1, "pass"), (0, "pass"), (1, "fail")])
def test_size_passes_at_the_cap_and_fails_one_byte_above(over: int, wanted: str) -> None:
    facts = evidence(record(1337), record(42, artifact_bytes=CAP - OWN + over), record(2024))
    size = found("size", facts)
    assert size["outcome"] == wanted
    assert size["limit"] is (wanted == "fail")
    if wanted == "fail":
        assert "seed 42: 16,000,001 bytes counted, 1 over 16,000,000" in size["evidence"]


@pytest.mark.parametrize("part", ["code_bytes", "config_bytes"])
def test_code_and_recipe_count_as_much_as_the_artifact(part: str) -> None:
    at_the_cap = evidence(record(1337, artifact_bytes=CAP - OWN))
    assert outcome("size", at_the_cap) == "pass"
    assert outcome("size", at_the_cap._replace(**{part: getattr(at_the_cap, part) + 1})) == "fail"


def test_size_is_unknown_until_a_seed_is_packed() -> None:
    assert outcome("size", evidence(broken(1337, "train", "interrupted"))) == "unknown"


@pytest.mark.parametrize("stage", ["train", "pack", "score"])
def test_each_clock_passes_fails_and_is_unknown(stage: Any) -> None:
    rule = f"{stage}-clock"
    assert outcome(rule, evidence()) == "pass"
    too_late = broken(42, stage, "over_limit", rule, "did not end within 45 s\nhint: x")
    late = found(rule, evidence(record(1337), too_late))
    assert (late["outcome"], late["limit"]) == ("fail", True)
    assert late["evidence"] == f"seed 42, {stage}: did not end within 45 s"
    assert outcome(rule, evidence(SeedRecord(seed=1337))) == "unknown"


def test_a_shortened_train_clock_that_was_kept_is_unknown_and_one_that_was_not_still_fails() -> None:
    short = LIMITS.with_train_clock(25)
    kept = found("train-clock", evidence(limits=short))
    assert kept["outcome"] == "unknown"
    assert "20.000 of 25 s, over 3 seeds; the clock was shortened" in kept["evidence"]
    assert "its 45 s was not seen" in kept["evidence"]
    assert outcome("pack-clock", evidence(limits=short)) == "pass"
    late = broken(42, "train", "over_limit", "train-clock", "did not end within 25 s")
    assert outcome("train-clock", evidence(record(1337), late, limits=short)) == "fail"


def test_a_shortened_train_clock_compares_with_no_claim_and_no_baseline() -> None:
    baseline = {
        "name": "before",
        "source": "#1",
        "dataset": "pocket",
        "profile": "pocket",
        "bpb": {1: 2.2, 2: 2.21},
    }
    claim = {"dataset": "pocket", "profile": "pocket", "bpb": {1337: 2.1}}
    facts = evidence(manifest=manifest(baseline=baseline, claim=claim))
    short = facts._replace(limits=LIMITS.with_train_clock(25))
    assert (outcome("claim", facts), outcome("claim", short)) == ("pass", "unknown")
    assert (assembled(facts)["baseline"]["tests"] is None, assembled(short)["baseline"]["tests"]) == (
        False,
        None,
    )
    assert "under a clock of 25 s" in assembled(short)["baseline"]["reason"]
    assert assembled(short)["verdict"] == "valid", "of its profile; a record needs the whole clock"


def test_the_range_of_a_clock_is_over_all_seeds() -> None:
    late = record(42)
    late.attempts[0].seconds = 45.3
    assert (
        "20.000 to 45.300 of 45 s, over 2 seeds"
        in found("train-clock", evidence(record(1337), late))["evidence"]
    )


def test_setup_passes_fails_and_is_unknown() -> None:
    assert "at most 3.0 of 120 s" in found("setup-clock", evidence())["evidence"]
    assert outcome("setup-clock", evidence(broken(1, "train", "over_limit", "setup-clock"))) == "fail"
    never_ready = SeedRecord(seed=1, attempts=[attempt("train", "machine", setup_seconds=None)])
    assert outcome("setup-clock", evidence(never_ready)) == "unknown"


@pytest.mark.parametrize("rule", ["memory", "output", "log"])
def test_resources_fail_by_whichever_ran_out(rule: str) -> None:
    assert outcome("resources", evidence()) == "pass"
    facts = evidence(broken(1337, "train", "over_limit", rule))
    assert (outcome("resources", facts), found("resources", facts)["limit"]) == ("fail", True)


def test_causality_stays_unknown_without_a_witness_whatever_the_rest_says() -> None:
    assert outcome("causal", evidence()) == "unknown"


@pytest.mark.parametrize(
    ("logsumexp", "wanted"), [(1e-4, "unknown"), (-1e-4, "unknown"), (0.01, "fail"), (-0.5, "fail")]
)
def test_normalisation_fails_by_one_bad_row_and_is_never_proven_by_good_ones(
    logsumexp: float, wanted: str
) -> None:
    rows = [boundary(1), boundary(2, logsumexp=logsumexp), boundary(3)]
    normalised = found("normalised", evidence(record(1337), record(42, borders=rows)))
    assert normalised["outcome"] == wanted
    assert (f"exp({logsumexp:.2e})" in normalised["evidence"]) is (wanted == "fail")


@pytest.mark.parametrize(
    ("difference", "wanted"),
    [(0, "pass"), (9e-4, "pass"), (-9e-4, "pass"), (0.01, "unknown"), (0.06, "fail"), (-0.06, "fail")],
)
def test_border_rows_pass_within_noise_and_fail_beyond_any(difference: float, wanted: str) -> None:
    rows = [boundary(1), boundary(777, before=3 + difference), boundary(3)]
    boundaries = found("border-rows", evidence(record(1337, borders=rows)))
    assert boundaries["outcome"] == wanted
    assert ("at token 777" in boundaries["evidence"]) is (difference != 0)


def test_border_rows_are_unknown_where_there_is_no_border() -> None:
    assert outcome("border-rows", evidence(record(1337, borders=[]))) == "unknown"


def test_score_first_passes_fails_and_is_unknown() -> None:
    assert "`adapt` was never sent" in found("score-first", evidence())["evidence"]
    learning = record(1337)
    learning.attempts[2].claims["adapts"] = True
    learning.attempts[2].facts["borders"] = [boundary(4096), boundary(8192)]
    shown = found("score-first", evidence(learning, record(42), manifest=manifest(track="B")))["evidence"]
    assert (
        "2 times `adapt` was sent, each after every number of the chunks up to there was committed" in shown
    )
    assert "over 2 seeds in 1 of them" in shown
    assert "never sent (track B)" in found("score-first", evidence(manifest=manifest(track="B")))["evidence"]
    assert outcome("score-first", evidence(broken(1, "score", "failed", "track"))) == "fail"
    assert outcome("score-first", evidence(broken(1, "pack", "machine"))) == "unknown"


def test_single_pass_passes_and_is_unknown() -> None:
    assert "99,999 tokens revealed once" in found("single-pass", evidence())["evidence"]
    assert outcome("single-pass", evidence(broken(42, "pack", "interrupted"))) == "unknown"


@pytest.mark.parametrize("rule", ["protocol", "contestant"])
def test_conduct_passes_fails_and_is_unknown(rule: str) -> None:
    assert outcome("conduct", evidence()) == "pass"
    assert outcome("conduct", evidence(record(1337), broken(42, "score", "failed", rule))) == "fail"
    assert outcome("conduct", evidence(broken(42, "train", "interrupted"))) == "unknown"


def test_only_eight_h100_are_the_official_hardware() -> None:
    def on(*names: str) -> str:
        trained = record(1337)
        for each in trained.attempts:
            each.host = {
                **each.host,
                "gpus": [{"name": name, "driver": "1", "memory": "80 GiB"} for name in names],
            }
        return outcome("hardware", evidence(trained))

    assert on(*["NVIDIA H100 80GB HBM3"] * 8) == "pass"
    assert on(*["NVIDIA H100 80GB HBM3"] * 7) == on(*["NVIDIA A100"] * 8) == on() == "unknown"


@pytest.mark.parametrize("outcome", ["machine", "interrupted"])
def test_attempts_that_ended_early_are_told_beside_the_one_that_counts(outcome: Outcome) -> None:
    again = [record(1337), record(42), record(2024)]
    again[0].attempts.insert(2, attempt("score", outcome))
    again[1].attempts.insert(0, attempt("train", outcome))
    assert "1 scoring attempts that were interrupted" in found("single-pass", evidence(*again))["evidence"]
    assert "1 training attempts that were interrupted" in found("seeds", evidence(*again))["evidence"]


def test_seeds_that_were_run_again_are_no_longer_known_to_be_the_first() -> None:
    assert "none replaced" in found("seeds", evidence())["evidence"]
    replaced = found("seeds", evidence(set_aside=(42,)))
    assert (replaced["outcome"], "seeds 42 were run before" in replaced["evidence"]) == ("unknown", True)


def test_seeds_of_the_manifest_that_were_not_scored_are_named() -> None:
    assert outcome("seeds", evidence()) == "pass"
    some = found("seeds", evidence(record(1337), broken(42, "train", "machine")))
    assert some["outcome"] == "unknown"
    assert "seeds 42, 2024" in some["evidence"]


def test_environment_isolation_and_data_separation_are_unknown_outside_a_container() -> None:
    bare = evidence(
        runner="local", isolated=False, isolation="none: a child process", image=None, image_lock=None
    )
    for rule in ("environment", "isolation", "data-separation"):
        assert (outcome(rule, evidence()), outcome(rule, bare)) == ("pass", "unknown")
    assert "isolation: none" in found("isolation", bare)["evidence"]


@pytest.mark.parametrize(
    ("measured", "wanted"), [(1.1365, "pass"), (1.1300, "pass"), (1.1404, "pass"), (1.1406, "fail")]
)
def test_a_claim_holds_unless_the_run_is_worse_than_machines_differ(measured: float, wanted: str) -> None:
    facts = evidence(record(1337, bpb=measured), dataset="fineweb-sp1024", profile="record")
    assert outcome("claim", facts) == wanted
    assert outcome("claim", facts._replace(dataset="pocket")) == "unknown"
    assert outcome("claim", facts._replace(profile="solo")) == "unknown"
    assert outcome("claim", facts._replace(seeds=[record(42)])) == "unknown"
    assert outcome("claim", facts._replace(manifest=manifest(claim=None))) == "unknown"


def test_every_rule_that_the_judge_can_record_is_looked_at_by_a_finding() -> None:
    """A violation whose id no finding looks at would end a seed and leave the verdict open."""
    raised = {"setup-clock", "train-clock", "pack-clock", "score-clock"}
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Violation" and node.args:
                first = node.args[0]
                raised |= {first.value} if isinstance(first, ast.Constant) else set()
    assert len(raised) > 8
    for rule in raised:
        assert judged(broken(1337, "train", "failed", rule))[0] == "invalid", f"nobody looks at {rule}"


def test_every_finding_names_its_source_and_what_it_does_not_cover() -> None:
    findings = [finding(rule, evidence()) for rule in RULES]
    assert len({each["rule"] for each in findings}) == len(findings)
    for each in findings:
        assert each["evidence"] and each["not_covered"] and each["source"]
        assert each["condition"] in (None, "C1", "C2", "C3", "C4")
        assert each["outcome"] in ("pass", "fail", "unknown")


def test_rules_answer_for_any_mixture_of_seeds_without_failing_themselves() -> None:
    kinds = [
        record(1),
        SeedRecord(seed=1),
        broken(1, "train", "machine"),
        broken(1, "pack", "interrupted"),
        broken(1, "score", "failed", "protocol"),
        broken(1, "score", "over_limit", "score-clock"),
        broken(1, "train", "failed", None, ""),
    ]
    for pair in itertools.product(kinds, repeat=2):
        json.dumps(assembled(evidence(*pair)), allow_nan=False)


# --- verdict and exit code
# -------------------------------------------------------------------------------------------


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


# --- verdict.json
# ----------------------------------------------------------------------------------------------------

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


BASELINE = {
    "name": "before",
    "source": "#1",
    "dataset": "pocket",
    "profile": "pocket",
    "bpb": {1: 2.20, 2: 2.21, 3: 2.22},
}


def baseline(*seeds: SeedRecord, **changes: Any) -> dict[str, Any]:
    facts = evidence(*seeds, manifest=manifest(baseline=BASELINE | changes))
    whole = assembled(facts)
    assert json.loads(json.dumps(whole, allow_nan=False)) == json.loads(json.dumps(whole))
    tested: dict[str, Any] = whole["baseline"]
    return tested


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
