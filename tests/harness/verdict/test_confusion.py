"""The hostile suite's outcome: no honest contestant is accused, and no cheat passes with a bound below its
gain.

`python -m tests.harness.verdict.confusion` prints all of them as one table.
"""

from __future__ import annotations

import pytest

from tests.harness.verdict.confusion import CHEATS, HONEST, Suite, judge

ACCUSED = {"refused", "accused"}
OPEN = {"a witness that breaks down"}
"""Honest, but nobody can tell that it is: its witness is gone."""
SPARED = {
    "peek at 0.1 %": "open",
    "0.9 nat on 0.4 %": "charged",
    "0.3 nat on 0.1 %": "charged",
    "rows off by 0.0009": "charged",
    "noise in the witnesses only": "charged",
    "documents by heart": "reported",
    "learns more than its witness": "open",
    "imitates a slow predictor": "open",
}
"""Cheats that are not accused. What so few probes cannot prove; what gains nothing, or whose own noise hides
it from all but G; what is lawful, and only the scan of documents reports; and a witness that is not the
program that scored, where nobody knows which of the two is right."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite()


@pytest.mark.parametrize("name", HONEST)
def test_no_honest_contestant_is_accused_and_all_with_a_witness_like_themselves_pass(
    suite: Suite, name: str
) -> None:
    row = judge(suite, name)
    assert row.found == ("open" if name in OPEN else "passed"), row


@pytest.mark.parametrize("name", CHEATS)
def test_every_cheat_that_is_neither_rare_nor_small_is_accused_and_the_gain_of_the_others_is_charged(
    suite: Suite, name: str
) -> None:
    row = judge(suite, name)
    assert row.found in ({SPARED[name]} if name in SPARED else ACCUSED), row
    if row.found == "charged":
        assert row.gained_nats is not None and row.bound_nats is not None
        assert row.bound_nats >= row.gained_nats
    if row.found == "reported":
        assert row.by == "documents"
