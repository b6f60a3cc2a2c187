"""Each rule of a run, one by one: when it passes, fails and is unknown."""

from __future__ import annotations

import ast
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from harness.base.paths import ROOT
from harness.run.records import Outcome, SeedRecord
from harness.verdict.rules import RULES, finding
from tests.harness.fakes.verdicts import (
    CAP,
    LIMITS,
    OWN,
    assembled,
    attempt,
    boundary,
    broken,
    certified,
    evidence,
    found,
    judged,
    manifest,
    outcome,
    record,
)


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
    one_more = at_the_cap.submitted._replace(**{part: getattr(at_the_cap, part) + 1})
    assert outcome("size", replace(at_the_cap, submission=one_more)) == "fail"


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
    short = replace(facts, limits=LIMITS.with_train_clock(25))
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
    unasked = evidence(record(1337), record(42), record(2024))
    assert outcome("causal", unasked) == "unknown"
    assert {outcome(rule, unasked) for rule in ("score-first", "single-pass")} == {"unknown"}


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


def test_border_rows_pass_where_one_chunk_is_the_whole_text_and_are_unknown_without_a_score() -> None:
    one_chunk = found("border-rows", evidence(record(1337, borders=[])))
    assert (one_chunk["outcome"], "no border to compare" in one_chunk["evidence"]) == ("pass", True)
    assert outcome("border-rows", evidence(broken(1337, "pack", "machine"))) == "unknown"


def test_score_first_passes_fails_and_is_unknown() -> None:
    assert "`adapt` was never sent" in found("score-first", evidence())["evidence"]
    learning = record(1337)
    learning.attempts[2].claims["adapts"] = True
    learning.attempts[2].facts["borders"] = [boundary(4096), boundary(8192)]
    shown = found("score-first", evidence(learning, record(42), manifest=manifest(track="B")))["evidence"]
    assert "2 times `adapt` was sent, each time after all scores so far were committed to the ledger" in shown
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
    untrained = found("hardware", evidence(broken(42, "train", "interrupted")))
    assert untrained["evidence"] == "no seed was trained; official is 8 x NVIDIA H100 80GB HBM3"
    assert on(*["NVIDIA H100 80GB HBM3"] * 7) == on(*["NVIDIA A100"] * 8) == on() == "unknown"


@pytest.mark.parametrize("outcome", ["machine", "interrupted"])
def test_attempts_that_ended_early_are_told_beside_the_one_that_counts(outcome: Outcome) -> None:
    again = [record(1337), record(42), record(2024)]
    again[0].attempts.insert(2, attempt("score", outcome))
    again[1].attempts.insert(0, attempt("train", outcome))
    ended = "interrupted or ended by a machine fault"
    assert f"; 1 scoring attempt {ended}" in found("single-pass", evidence(*again))["evidence"]
    assert f"; 1 training attempt {ended}" in found("seeds", evidence(*again))["evidence"]


def test_seeds_that_were_run_again_are_no_longer_known_to_be_the_first() -> None:
    assert "all 3 seeds of the manifest scored, none run again" in found("seeds", evidence())["evidence"]
    replaced = found("seeds", evidence(archived=(record(42, bpb=1.9), broken(42, "train", "machine"))))
    assert replaced["outcome"] == "unknown"
    assert "seeds that were run before: 42 (1.9000), 42 (machine)" in replaced["evidence"]


@pytest.mark.parametrize(
    ("earlier", "wanted", "says"),
    [
        (broken(42, "score", "failed", "protocol"), "fail", "42 (failed, broke protocol)"),
        (broken(42, "pack", "over_limit", "size"), "fail", "42 (over_limit, broke size)"),
        (certified(42, gain_nats=0.1), "fail", "42 (2.1000, broke C1)"),
        (broken(42, "train", "over_limit", "train-clock"), "unknown", "42 (over_limit, broke train-clock)"),
    ],
)
def test_running_a_seed_again_does_not_undo_what_it_broke_before_unless_that_was_a_clock(
    earlier: SeedRecord, wanted: str, says: str
) -> None:
    seeds = found("seeds", evidence(archived=(earlier,)))
    assert (seeds["outcome"], says in seeds["evidence"]) == (wanted, True)


def test_a_seed_that_the_manifest_no_longer_declares_stays_in_the_folders_verdict() -> None:
    fewer = manifest(seeds=[1337, 42])
    seeds = found("seeds", evidence(manifest=fewer))
    assert seeds["outcome"] == "unknown"
    assert "in the manifest no longer: 2024" in seeds["evidence"]
    assert judged(manifest=fewer) == ("inconclusive", 5)


def test_seeds_of_the_manifest_that_were_not_scored_are_named() -> None:
    assert outcome("seeds", evidence()) == "pass"
    some = found("seeds", evidence(record(1337), broken(42, "train", "machine")))
    assert some["outcome"] == "unknown"
    assert "not scored: 42" in some["evidence"]


def test_environment_isolation_and_data_separation_are_unknown_outside_a_container() -> None:
    bare = evidence(
        runner="local", isolated=False, isolation="none: a child process", image=None, image_lock=None
    )
    for rule in ("environment", "isolation", "data-separation"):
        assert (outcome(rule, evidence()), outcome(rule, bare)) == ("pass", "unknown")
    assert "isolation: none" in found("isolation", bare)["evidence"]


def test_an_image_that_lacks_a_wheel_of_its_lock_leaves_the_environment_of_a_record_open() -> None:
    lacking = evidence(image_lacks=("flash-attn-3",))
    environment = found("environment", lacking)
    assert (environment["outcome"], environment["why"]) == ("unknown", "image without flash-attn-3")
    assert environment["evidence"].endswith("which the manifest names, but without flash-attn-3")


@pytest.mark.parametrize(
    ("measured", "wanted"), [(1.1365, "pass"), (1.1300, "pass"), (1.1404, "pass"), (1.1406, "fail")]
)
def test_a_claim_holds_unless_the_run_is_worse_than_machines_differ(measured: float, wanted: str) -> None:
    facts = evidence(record(1337, bpb=measured), dataset="fineweb-sp1024", profile="record")
    assert outcome("claim", facts) == wanted
    assert outcome("claim", replace(facts, dataset="pocket")) == "unknown"
    assert outcome("claim", replace(facts, profile="solo")) == "unknown"
    assert outcome("claim", replace(facts, seeds=[record(42)])) == "unknown"
    unclaimed = facts.submitted._replace(manifest=manifest(claim=None))
    assert outcome("claim", replace(facts, submission=unclaimed)) == "unknown"


@pytest.mark.slow
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
