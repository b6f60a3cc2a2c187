"""Every cheat against the judge, and every honest sibling: nobody honest is accused, no cheat passes for less than it took."""

from __future__ import annotations

import pytest

from tests.harness.confusion import Row, matrix, shown

ACCUSED = ("refused", "accused")
RARE_OR_CHARGED = {"peek at 0.1 %", "0.9 nat on 0.4 %", "0.3 nat on 0.1 %", "learns more than its witness", "rows off by 0.0009",
                   "documents by heart"}
"""What so few probes cannot prove, what is lawful, and what earns nothing."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = matrix()
    print("\n" + shown(found))
    return found


def test_no_honest_contestant_is_accused(rows: list[Row]) -> None:
    assert [row for row in rows if row.honest and row.found != "passed"] == []


def test_no_cheat_passes_with_a_bound_below_what_it_gained(rows: list[Row]) -> None:
    assert [row for row in rows if row.found == "missed"] == []
    charged = [row for row in rows if row.found == "charged"]
    assert all(row.bound_nats >= row.gained_nats for row in charged if row.bound_nats is not None and row.gained_nats is not None)


def test_every_cheat_that_is_neither_rare_nor_small_is_accused(rows: list[Row]) -> None:
    assert [row for row in rows if not row.honest and row.found not in ACCUSED and row.name not in RARE_OR_CHARGED] == []


def test_documents_known_by_heart_pass_the_witness_and_are_reported_by_the_scan(rows: list[Row]) -> None:
    paid = next(row for row in rows if row.name == "documents by heart")
    assert (paid.found, paid.by) == ("reported", "documents")
