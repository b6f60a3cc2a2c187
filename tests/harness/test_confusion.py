"""The hostile suite's outcome: no honest contestant fails, and no cheat passes with a bound below its
gain.
"""

from __future__ import annotations

import pytest

from tests.harness.confusion import Row, matrix, shown

ACCUSED = ("refused", "accused")
RARE_OR_CHARGED = {
    "peek at 0.1 %",
    "0.9 nat on 0.4 %",
    "0.3 nat on 0.1 %",
    "rows off by 0.0009",
    "documents by heart",
    "noise in the witnesses only",
}
"""What so few probes cannot prove, what is lawful, what gains nothing, and what its own noise hides but G
covers."""
NEVER_PASSED = {"learns more than its witness", "imitates a slow predictor"}
"""What no test proves: the witness is not the program that scored, and which of them is right is unknown."""
OPEN = {"a witness that breaks down"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = matrix()
    print("\n" + shown(found))
    return found


def test_no_honest_contestant_is_accused_and_all_with_a_witness_like_themselves_pass(rows: list[Row]) -> None:
    assert [
        row for row in rows if row.honest and row.found != ("open" if row.name in OPEN else "passed")
    ] == []


def test_no_cheat_passes_with_a_bound_below_what_it_gained(rows: list[Row]) -> None:
    assert [row for row in rows if row.found == "missed"] == []
    charged = [row for row in rows if row.found == "charged"]
    assert all(
        row.bound_nats >= row.gained_nats
        for row in charged
        if row.bound_nats is not None and row.gained_nats is not None
    )


def test_every_cheat_that_is_neither_rare_nor_small_is_accused(rows: list[Row]) -> None:
    spared = RARE_OR_CHARGED | NEVER_PASSED
    assert [
        row for row in rows if not row.honest and row.found not in ACCUSED and row.name not in spared
    ] == []


def test_a_witness_that_is_not_the_program_that_scored_is_left_open_though_its_gain_is_charged(
    rows: list[Row],
) -> None:
    assert {row.name: row.found for row in rows if row.name in NEVER_PASSED} == dict.fromkeys(
        NEVER_PASSED, "open"
    )


def test_documents_known_by_heart_pass_the_witness_and_are_reported_by_the_scan(rows: list[Row]) -> None:
    paid = next(row for row in rows if row.name == "documents by heart")
    assert (paid.found, paid.by) == ("reported", "documents")
