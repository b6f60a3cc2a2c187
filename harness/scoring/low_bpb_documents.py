"""Find documents whose bits per byte are too low for unseen text.

A paid prefix (validation text packed into the artifact, #168, #262, #275) leaves losses near zero on a
stretch of documents, below what any compression of unseen text reaches. A document stands out when its bits
per byte lie far below both a limit for English text and the spread of the run's other documents. The scan
never fails a run: a document that repeats itself costs little too, so a person has to look at it. Not
covered: validation text that was learned in training; small gains spread over many documents (the
certificate bounds those).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.scoring.robust import robust_sd

FLOOR_BPB = 0.3
"""No published program comes below 0.8 on unseen English text as a whole; a few repetitive documents do."""
SPREADS = 6.0
"""Robust standard deviations of ln(bits per byte) below the median."""
LEAST_BYTES = 200
"""Shorter documents are not judged."""
SHOWN = 20
"""Documents listed in the result."""

Floats = npt.NDArray[np.float64]


def scan(bits_D: Floats, bytes_D: npt.NDArray[np.int64], starts_D: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Find documents below FLOOR_BPB and SPREADS robust standard deviations below the median.

    bits_D, bytes_D, starts_D as in docs.npz. The result is JSON-ready: outcome (pass or unknown), a sentence,
    counts, the longest stretch of neighbouring documents, and the first SHOWN documents by number, start
    (token), bytes and bits per byte. `worth_bpb`: how much higher the whole score would be with these
    documents at the median.
    """
    eligible_E = np.flatnonzero(bytes_D >= LEAST_BYTES)
    bpb_E = bits_D[eligible_E] / bytes_D[eligible_E]
    facts: dict[str, Any] = {
        "documents": len(bits_D),
        "long_enough": len(eligible_E),
        "floor_bpb": FLOOR_BPB,
        "found": 0,
        "longest_stretch": 0,
        "worth_bpb": 0.0,
        "first": [],
    }
    if not len(eligible_E):
        return {
            **facts,
            "outcome": "unknown",
            "text": f"documents: none of {len(bits_D):,} has {LEAST_BYTES} bytes to judge by",
        }
    median = float(np.median(bpb_E))
    spread = robust_sd(np.log(np.maximum(bpb_E, 1e-9) / max(median, 1e-9)), centre=0.0)
    limit = min(FLOOR_BPB, median * float(np.exp(-SPREADS * min(spread, 1.0))) if spread else FLOOR_BPB)
    # Where even the median is too low, every document is reported.
    low_E = bpb_E <= limit if median > FLOOR_BPB else np.ones(len(bpb_E), bool)
    found = eligible_E[low_E]
    facts.update(
        median_bpb=median,
        limit_bpb=limit,
        found=len(found),
        longest_stretch=_longest(low_E),
        worth_bpb=float(np.maximum(median * bytes_D[found] - bits_D[found], 0).sum() / bytes_D.sum()),
        first=[
            {
                "document": int(d),
                "start": int(starts_D[d]),
                "bytes": int(bytes_D[d]),
                "bpb": float(bits_D[d] / bytes_D[d]),
            }
            for d in found[:SHOWN]
        ],
    )
    if not len(found):
        return {
            **facts,
            "outcome": "pass",
            "text": f"documents: none of {len(eligible_E):,} below {limit:.3f} bits per byte, "
            f"median {median:.3f}",
        }
    first = int(starts_D[found[0]])
    return {
        **facts,
        "outcome": "unknown",
        "text": (
            f"documents: {len(found):,} of {len(eligible_E):,} cost impossibly little (at most {limit:.3f} "
            f"bits per byte, median {median:.3f}), {facts['longest_stretch']:,} of them in a row, the first "
            f"at token {first:,}: was this text known? Worth {facts['worth_bpb']:.4f} bits per byte of the "
            "score"
        ),
    }


def _longest(low_E: npt.NDArray[np.bool_]) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low_E.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
