"""What certificates change in a verdict: all seeds together, by condition, in a container and outside one."""

from __future__ import annotations

import pytest

from harness.run.records import SeedRecord
from harness.verdict import decide
from tests.harness.fakes.verdicts import (
    assembled,
    attempt,
    baseline,
    certified,
    evidence,
    found,
    judged,
    outcome,
    record,
    witnessed,
)

CERTIFIED = tuple(certified(seed, bpb=2.1 + index / 100) for index, seed in enumerate((1337, 42, 2024)))
CONDITIONS = ("causal", "score-first", "single-pass")


def test_certificates_of_all_seeds_show_the_conditions_in_a_container_and_are_cooperative_elsewhere() -> None:
    whole = evidence(*CERTIFIED)
    assert {outcome(rule, whole) for rule in (*CONDITIONS, "normalised")} == {"pass"}
    bounds = [row["certificate"]["G_bpb"] for row in assembled(whole)["seeds"]]
    assert f"at most {max(bounds):.4f} bits per byte are unearned" in found("causal", whole)["evidence"]
    local = evidence(*CERTIFIED, isolated=False, runner="local")
    assert {rule: outcome(rule, local) for rule in CONDITIONS} == dict.fromkeys(CONDITIONS, "unknown")
    assert found("causal", local)["evidence"].startswith(
        "cooperative: a channel outside the socket was not excluded"
    )
    assert outcome("normalised", local) == "pass"


def test_one_accused_seed_makes_the_run_invalid_and_is_named() -> None:
    whole = evidence(*CERTIFIED[:2], certified(2024, gain_nats=0.1))
    assert judged(*whole.seeds) == ("invalid", 1)
    assert "seed 2024: the scorer gained" in found("causal", whole)["evidence"]
    assert "seed 1337" not in found("causal", whole)["evidence"]


@pytest.mark.parametrize("third", [record(2024), certified(2024, silent=True)])
def test_a_seed_without_a_certificate_leaves_the_conditions_open(third: SeedRecord) -> None:
    whole = evidence(*CERTIFIED[:2], third)
    assert {outcome(rule, whole) for rule in ("causal", "normalised")} == {"unknown"}
    assert "2024" in found("causal", whole)["evidence"]
    assert decide.exit_code(assembled(whole)) == 5


def test_a_record_needs_certificates_of_all_its_seeds() -> None:
    whole = evidence(*(certified(seed, probes=20_000) for seed in (1337, 42, 2024)), profile="record")
    assert {outcome(rule, whole) for rule in ("causal", "normalised", "border-rows", *CONDITIONS)} == {"pass"}


def test_a_record_may_not_leave_more_uncertified_than_it_must_be_better_by() -> None:
    whole = evidence(*CERTIFIED[:2], certified(2024, probes=500, profile="record"), profile="record")
    assert {outcome(rule, whole) for rule in CONDITIONS} == {"unknown"}
    assert "too wide to decide, 0.005 would be enough" in found("causal", whole)["evidence"]


def test_a_later_certificate_that_fails_leaves_its_condition_open_and_one_that_passes_shows_nothing() -> None:
    later = {"folder": "rescored-01", "n_probes": 64, "G_bpb": 0.2, "shown": ["C2"], "failed": ["C1"]}
    whole = evidence(later={1337: [later]})
    assert judged(later={1337: [later]}) == ("inconclusive", 5)
    assert found("causal", whole)["evidence"] == "a later certificate fails C1: rescored-01 of seed 1337"
    better = {**later, "shown": ["C1", "C2", "C3", "C4"], "failed": []}
    assert judged(record(1337), record(42), record(2024), later={1337: [better]}) == ("inconclusive", 5)


def test_a_witness_that_was_cut_off_is_said_to_be_so_and_the_exit_code_is_the_stops() -> None:
    cut = record(1337)
    cut.attempts.append(attempt("witness", "machine"))
    whole = assembled(evidence(cut))
    assert "was cut off: the same command goes on with it" in found("causal", evidence(cut))["evidence"]
    for stopped, code in (("machine", 3), ("interrupted", 130), (None, 5)):
        assert decide.exit_code(whole, stopped=stopped) == code


def test_the_significance_test_is_made_again_with_all_that_is_not_certified_counted_against_the_score() -> (
    None
):
    tested = baseline(*CERTIFIED)
    for plain, at_worst in zip(tested["tests"], tested["tests_with_G"], strict=True):
        assert at_worst["p"] > plain["p"]
    assert baseline(*CERTIFIED[:2], record(2024))["tests_with_G"] is None


def test_documents_that_cost_impossibly_little_are_reported_and_accuse_nobody() -> None:
    scan = {"outcome": "unknown", "text": "documents: 3 of 40 cost impossibly little"}
    rest = witnessed(42, documents={"outcome": "pass", "text": "none"}), witnessed(2024)
    whole = evidence(witnessed(1337, documents=scan), *rest)
    assert (outcome("documents", whole), judged(*whole.seeds)[0]) == ("unknown", "valid")
    assert found("documents", whole)["evidence"] == "seed 1337: documents: 3 of 40 cost impossibly little"
