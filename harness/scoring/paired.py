"""Compare two runs by the bits of each document: the mean difference and its intervals. Arrays in, no file.

Both runs scored the same documents, so the difference of a document's bits varies far less than either run's
bits: hard documents are hard for both. Seeds are a random effect. With S pairs of seeds, D documents and y_sd
= a_sd - b_sd,

    difference = sum y / (S sum bytes)
    variance   = (between seeds) + (between documents)
    between seeds      sample variance of the seeds' own differences, over S; 0 for S = 1
    between documents  sum_d (r_d - mean r)^2 / (sum bytes)^2 * D / (D - 1)      (ratio estimator)
                       with r_d = mean_s y_sd - difference * bytes_d

The first term alone is what the means of seeds give when paired by seed; the second is the uncertainty of the
sample of documents. Intervals are Student's, with Satterthwaite's degrees of freedom. Axes: S pairs of seeds,
D documents.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def difference(a_SD: Floats, b_SD: Floats, bytes_D: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The paired comparison of the bits a_SD and b_SD of documents, in bits per byte; JSON-ready.

    `ci95_this_text_bpb`: other seeds on this text. `ci95_such_text_bpb`: other seeds on other documents of
    such text. `ci95_one_seed_bpb`: other documents, these weights; for one pair of seeds only.
    `ci95_seed_means_bpb`: unpaired, from the means of seeds. An interval is null if the number of seeds or a
    zero variance leaves it undefined.
    """
    n_bytes, n_seeds = float(bytes_D.sum()), len(a_SD)
    y_SD = a_SD - b_SD
    by_seed_S = y_SD.sum(axis=1) / n_bytes
    mean = float(by_seed_S.mean())
    used = bytes_D > 0
    r_D = (y_SD.mean(axis=0) - mean * bytes_D)[used]
    n_documents = int(used.sum())
    documents = float((r_D**2).sum()) / n_bytes**2 * n_documents / max(n_documents - 1, 1)
    seeds = float(by_seed_S.var(ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    unpaired = (
        sum(float((x_SD.sum(axis=1) / n_bytes).var(ddof=1)) / n_seeds for x_SD in (a_SD, b_SD))
        if n_seeds > 1
        else None
    )
    share_D = y_SD.mean(axis=0)[used] / bytes_D[used]
    return {
        "difference_bpb": mean,
        "by_seed_bpb": by_seed_S.tolist(),
        "documents": n_documents,
        "first_bpb": float(a_SD.sum() / n_seeds / n_bytes),
        "second_bpb": float(b_SD.sum() / n_seeds / n_bytes),
        "se_documents_bpb": math.sqrt(documents),
        "se_seeds_bpb": math.sqrt(seeds) if n_seeds > 1 else None,
        "ci95_such_text_bpb": _interval(mean, [(documents, n_documents - 1), (seeds, n_seeds - 1)]),
        "ci95_this_text_bpb": _interval(mean, [(seeds, n_seeds - 1)]) if n_seeds > 1 else None,
        "ci95_one_seed_bpb": _interval(mean, [(documents, n_documents - 1)]) if n_seeds == 1 else None,
        "ci95_seed_means_bpb": _interval(mean, [(unpaired, 2 * n_seeds - 2)])
        if unpaired is not None
        else None,
        "second_better_share": float((share_D > 0).mean()),
        "quantiles_bpb": {f"{q:g}": float(np.quantile(share_D, q)) for q in QUANTILES},
    }


def _interval(mean: float, parts: list[tuple[float, int]]) -> list[float] | None:
    """Student's 95 % interval; `parts` are variances with their degrees of freedom (Satterthwaite)."""
    from scipy import stats

    parts = [(variance, df) for variance, df in parts if variance > 0 and df > 0]
    total = math.fsum(variance for variance, _ in parts)
    if not parts:
        return None
    df = total**2 / math.fsum(variance**2 / df for variance, df in parts)
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(total)
    return [mean - half, mean + half]
