"""Plots of the reports as numbers in a 0..1 box; the templates draw them as inline SVG.

Not covered: colours and words, which are the templates'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.base import arrays
from harness.run.folder import RunFolder

HISTOGRAM_BINS = 40
CURVE_POINTS = 400
GAIN_POINTS = 1200
LEAST_GAIN = 0.01
"""Nats: what arithmetic in bfloat16 brings; a scale below it would make noise look like findings."""


def histograms(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """Documents by bits per byte, a plot a scored seed: bars as (x, height, label) in a 0..1 box."""
    plots = []
    for row in verdict["seeds"]:
        path = folder.seed(row["seed"]).documents
        if row["bpb"] is None or not path.exists():
            continue
        bits_D, bytes_D = arrays.read_arrays(path, "bits", "bytes")
        bpb_D = bits_D[bytes_D > 0] / bytes_D[bytes_D > 0]
        counts, edges = np.histogram(bpb_D, HISTOGRAM_BINS)
        top = max(int(counts.max()), 1)
        bars = [
            {
                "x": i / HISTOGRAM_BINS,
                "h": int(n) / top,
                "label": f"{edges[i]:.2f}-{edges[i + 1]:.2f} bpb: {n} documents",
            }
            for i, n in enumerate(counts)
        ]
        plots.append(
            {
                "seed": row["seed"],
                "bars": bars,
                "low": f"{edges[0]:.2f}",
                "high": f"{edges[-1]:.2f}",
                "documents": len(bpb_D),
                "top": top,
            }
        )
    return plots


def curves(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """The training loss that each contestant claimed while it ran: points in a 0..1 box; never evidence."""
    series = {row["seed"]: _claimed_losses(folder.seed(row["seed"]).events) for row in verdict["seeds"]}
    values = [loss for points in series.values() for _, loss in points]
    if not values:
        return []
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return [
        {
            "seed": seed,
            "low": f"{low:.2f}",
            "high": f"{high:.2f}",
            "points": " ".join(f"{x:.4f},{1 - (loss - low) / width:.4f}" for x, loss in points),
        }
        for seed, points in series.items()
        if points
    ]


def gains(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """What the witness paid above the claim at each token it was asked, a plot a certified seed: points in a
    0..1 box.

    The scale holds every point and at least LEAST_GAIN nats to both sides of 0; a token that got no answer
    stands at the top."""
    plots = []
    for row in verdict["seeds"]:
        path = folder.seed(row["seed"]).responses(
            int(row["certificate"]["look"]) if row.get("certificate") else 0
        )
        if not path.exists():
            continue
        position_P, paid_P, claim_P = arrays.read_arrays(path, "position", "witness_1", "claim")
        d_P = paid_P - claim_P
        if not len(position_P):
            continue
        finite_P = d_P[np.isfinite(d_P)]
        reach = max(LEAST_GAIN, float(np.abs(finite_P).max(initial=0.0)))
        height_P = np.where(np.isfinite(d_P), np.clip(d_P, -reach, reach), reach)
        shown = np.unique(
            np.r_[
                np.argsort(-np.abs(height_P))[: GAIN_POINTS // 2],
                np.arange(0, len(d_P), max(1, 2 * len(d_P) // GAIN_POINTS)),
            ]
        )
        last = max(int(position_P[-1]), 1)
        points = [
            {"x": round(int(position_P[i]) / last, 4), "y": round(0.5 - 0.48 * float(height_P[i]) / reach, 4)}
            for i in shown
        ]
        plots.append(
            {
                "seed": row["seed"],
                "reach": f"{reach:.2g}",
                "asked": len(d_P),
                "shown": len(shown),
                "points": points,
                "largest": f"{float(np.abs(finite_P).max(initial=0.0)):.1e}",
            }
        )
    return plots


def _claimed_losses(path: Path) -> list[tuple[float, float]]:
    """(fraction of the training, loss) from progress texts such as `step 10 loss 3.21`, thinned."""
    if not path.exists():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
            words = str(event.get("claim", "")).split()
            if event.get("stage") == "train" and "loss" in words[:-1]:
                points.append((float(event["fraction"]), float(words[words.index("loss") + 1].strip(",:"))))
        except ValueError:  # a claim that is no number, or the line on which a killed run ended
            continue
    finite = [point for point in points if np.isfinite(point[1])]
    return finite[:: max(1, len(finite) // CURVE_POINTS)]
