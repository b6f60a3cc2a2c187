"""Every runner gives a contestant the same outcome: the table of tests/harness/fakes/contestants/outcomes.py.

A later runner joins by one line in the fixture `runner` (tests/harness/conftest.py).
"""

from __future__ import annotations

import pytest

from harness.base.errors import Violation
from harness.run import records
from harness.run.records import Attempt, SeedRecord
from harness.runners.base import Runner
from harness.verdict import decide
from harness.verdict.rules import RULES, SCORING_RULES, Evidence
from tests.harness.fakes.contestants.outcomes import ROWS, Row, exit_code
from tests.harness.fakes.stage_bench import Bench

JUDGED_RULES = (*SCORING_RULES, *(rule for rule in RULES if rule.id == "train-clock"))


def attempted(bench: Bench, runner: Runner, row: Row) -> Attempt:
    """The train stage of a contestant, as run.json records it."""
    attempt = Attempt(stage="train", started_at=records.now())
    try:
        attempt.setup_seconds, attempt.seconds, *_ = bench.train(
            bench.job(runner, row.override(), row.limits)
        )
        attempt.outcome = "done"
    except Violation as violation:
        attempt.fail(violation)
    return attempt


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.does)
def test_a_contestant_has_the_same_outcome_in_every_runner(row: Row, bench: Bench, runner: Runner) -> None:
    attempt = attempted(bench, runner, row)
    rule = row.expected_rule(runner.name)
    assert (attempt.rule, attempt.outcome == "done") == (rule, rule is None), attempt.message
    evidence = Evidence(
        track="A",
        profile="pocket",
        limits=row.limits,
        seeds=[SeedRecord(seed=1, attempts=[attempt])],
        runner=runner.name,
        isolated=runner.isolated,
        isolation=runner.isolation,
        image=runner.image,
    )
    verdict = decide.judge(evidence, JUDGED_RULES)._asdict()
    for allow_open in (False, True):
        assert decide.exit_code(verdict, allow_open) == exit_code(rule, row.limit, allow_open)
