"""Put a contestant's own estimate of its size into words, with the error that it may have.

Only packing shows the true size, so an estimate near the cap decides nothing.
"""

from __future__ import annotations

from typing import Literal

from harness.edition import TOLERANCES

Outcome = Literal["pass", "fail", "unknown"]


def estimated_size(counted: int, cap: int) -> tuple[Outcome, str]:
    """Whether `counted` bytes, which a contestant estimates, fit the cap, and a sentence that says so."""
    near, error = (f"{100 * share:g} %" for share in (TOLERANCES.size_share, TOLERANCES.size_error_share))
    over = (counted - cap) / cap
    if abs(over) <= TOLERANCES.size_share:
        estimate = f"{_megabytes(counted)} of {_megabytes(cap)}, give or take {near}"
        return "unknown", f"{estimate}: only a run decides"
    if over > TOLERANCES.size_error_share:
        return "fail", f"{_megabytes(counted)}, {over:.0%} over the cap of {_megabytes(cap)}"
    if over > 0:
        return (
            "unknown",
            f"{_megabytes(counted)}, {over:.0%} over the cap, and an estimate may be {error} off: only a run "
            "decides",
        )
    return "pass", f"{_megabytes(counted)}, below the cap of {_megabytes(cap)}"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.2f} MB"
