"""Bits document by document: which ones cost impossibly little?

A paid prefix (validation text packed into the artifact, #168, #262, #275) leaves numbers near zero on a
stretch of documents that no compression of unseen text reaches. A document stands out when its bits per byte
lie far below both what the best compressors know of English and what the run's other documents spread by. The
scan asks for a look; it accuses nobody, since a page that repeats itself is cheap too. Not covered: a text
that was learned by heart and paid for little by little; leaks that are spread thin (the certificate bounds
those)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.scoring.robust import robust_sd

FLOOR_BPB = 0.3
"""No published program comes below 0.8 on unseen English text; documents that repeat themselves do,
rarely."""
SPREADS = 6.0
LEAST_BYTES = 200
"""Shorter ones say too little."""
SHOWN = 20

Floats = npt.NDArray[np.float64]


def scan(bits_D: Floats, bytes_D: npt.NDArray[np.int64], starts_D: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The documents whose bits per byte are below FLOOR_BPB and SPREADS robust standard deviations below the
    median.

    bits_D, bytes_D, starts_D as in docs.npz. JSON-ready: outcome pass or unknown, a sentence, counts, the
    longest stretch of neighbours, and the first SHOWN documents by number, start (token), bytes and bits per
    byte. What the documents would have cost at the median rate, less what they did cost, is `worth_bpb` of
    the whole score."""
    long_D = np.flatnonzero(bytes_D >= LEAST_BYTES)
    bpb_L = bits_D[long_D] / bytes_D[long_D]
    facts: dict[str, Any] = {
        "documents": len(bits_D),
        "long_enough": len(long_D),
        "floor_bpb": FLOOR_BPB,
        "found": 0,
        "longest_stretch": 0,
        "worth_bpb": 0.0,
        "first": [],
    }
    if not len(long_D):
        return {
            **facts,
            "outcome": "unknown",
            "text": f"documents: none of {len(bits_D):,} has {LEAST_BYTES} bytes to judge by",
        }
    median = float(np.median(bpb_L))
    spread = robust_sd(np.log(np.maximum(bpb_L, 1e-9) / max(median, 1e-9)), centre=0.0)
    limit = min(FLOOR_BPB, median * float(np.exp(-SPREADS * min(spread, 1.0))) if spread else FLOOR_BPB)
    low_L = (
        bpb_L <= limit if median > FLOOR_BPB else np.ones(len(bpb_L), bool)
    )  # where most are impossible, all are asked about
    found_D = long_D[low_L]
    facts.update(
        median_bpb=median,
        limit_bpb=limit,
        found=len(found_D),
        longest_stretch=_longest(low_L),
        worth_bpb=float(np.maximum(median * bytes_D[found_D] - bits_D[found_D], 0).sum() / bytes_D.sum()),
        first=[
            {
                "document": int(d),
                "start": int(starts_D[d]),
                "bytes": int(bytes_D[d]),
                "bpb": float(bits_D[d] / bytes_D[d]),
            }
            for d in found_D[:SHOWN]
        ],
    )
    if not len(found_D):
        return {
            **facts,
            "outcome": "pass",
            "text": f"documents: none of {len(long_D):,} below {limit:.3f} bits per byte, "
            f"median {median:.3f}",
        }
    first = int(starts_D[found_D[0]])
    return {
        **facts,
        "outcome": "unknown",
        "text": (
            f"documents: {len(found_D):,} of {len(long_D):,} cost impossibly little (at most {limit:.3f} "
            "bits per byte, median "
            f"{median:.3f}), {facts['longest_stretch']:,} of them in a row, the first at token {first:,}: "
            "was this "
            f"text known? Worth {facts['worth_bpb']:.4f} bits per byte of the score"
        ),
    }


def _longest(low_L: npt.NDArray[np.bool_]) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low_L.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
