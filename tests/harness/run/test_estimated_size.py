"""A contestant's estimate of its size in words: it decides only where its own error cannot."""

from __future__ import annotations

import pytest

from harness.run.estimated_size import estimated_size

CAP = 16_000_000


@pytest.mark.parametrize(
    ("counted", "size", "says"),
    [
        (12_100_000, "pass", "12.10 MB, below the cap of 16.00 MB"),
        (15_760_000, "unknown", "15.76 MB of 16.00 MB, give or take 3 %: only a run decides"),
        (16_480_000, "unknown", "16.48 MB of 16.00 MB, give or take 3 %: only a run decides"),
        (
            16_480_001,
            "unknown",
            "16.48 MB, 3% over the cap, and an estimate may be 20 % off: only a run decides",
        ),
        (19_200_001, "fail", "19.20 MB, 20% over the cap of 16.00 MB"),
    ],
)
def test_an_estimate_is_a_sentence_with_its_error(counted: int, size: str, says: str) -> None:
    assert estimated_size(counted, CAP) == (size, says)
