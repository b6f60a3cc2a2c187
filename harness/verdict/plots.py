"""The plots of the report, as coordinates between 0 and 1; the template draws them as inline SVG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base import arrays
from harness.base.text import count
from harness.run.folder import RunFolder

HISTOGRAM_BINS = 40
CURVE_POINTS = 400
GAIN_POINTS = 1200
LEAST_GAIN = 0.01
"""Nats, the noise of bfloat16 arithmetic: a plot with a finer scale would make noise look like gains."""


def histograms(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """Documents by bits per byte, one plot for each scored seed: bars with position, height and label."""
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
                "label": f"{edges[i]:.2f}-{edges[i + 1]:.2f} bpb: {count(int(n), 'document')}",
            }
            for i, n in enumerate(counts)
        ]
        plots.append(
            {
                "seed": row["seed"],
                "bars": bars,
                "low": f"{edges[0]:.2f}",
                "high": f"{edges[-1]:.2f}",
                "documents": count(len(bpb_D), "document"),
                "top": top,
            }
        )
    return plots


def curves(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """The training loss that the contestant printed, one curve for each seed, on a common scale; a claim."""
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
    """The witness's nats minus the reported nats at each asked token, one plot for each certified seed.

    The scale is symmetric around 0 and reaches the largest difference, at least LEAST_GAIN nats. A token
    without an answer is drawn at the top.
    """
    plots = []
    for row in verdict["seeds"]:
        if not row.get("certificate"):
            continue
        path = folder.seed(row["seed"]).responses(int(row["certificate"]["look"]))
        if not path.exists():
            continue
        position_P, witness_P, reported_P = arrays.read_arrays(path, "position", "witness_1", "claim")
        if len(position_P):
            plots.append({"seed": row["seed"], **_gain_plot(position_P, witness_P - reported_P)})
    return plots


def _gain_plot(position_P: npt.NDArray[np.int64], gain_P: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Points and labels for gains in nats: the largest, and every n-th, about GAIN_POINTS points in all."""
    answered_P = np.isfinite(gain_P)
    largest = float(np.abs(gain_P[answered_P]).max(initial=0.0))
    reach = max(LEAST_GAIN, largest)
    height_P = np.where(answered_P, np.clip(gain_P, -reach, reach), reach)
    largest_first = np.argsort(-np.abs(height_P))
    every_nth = np.arange(0, len(gain_P), max(1, 2 * len(gain_P) // GAIN_POINTS))
    shown = np.unique(np.r_[largest_first[: GAIN_POINTS // 2], every_nth])
    last = max(int(position_P[-1]), 1)
    return {
        "reach": f"{reach:.2g}",
        "asked": len(gain_P),
        "shown": len(shown),
        "points": [
            {"x": round(int(position_P[i]) / last, 4), "y": round(0.5 - 0.48 * float(height_P[i]) / reach, 4)}
            for i in shown
        ],
        "largest": f"{largest:.1e}",
    }


def _claimed_losses(path: Path) -> list[tuple[float, float]]:
    """(fraction of the training, loss) from progress texts such as `step 10 loss 3.21`, thinned out."""
    if not path.exists():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
            words = str(event.get("claim", "")).split()
            if event.get("stage") == "train" and "loss" in words[:-1]:
                points.append((float(event["fraction"]), float(words[words.index("loss") + 1].strip(",:"))))
        except ValueError:  # a loss that is no number, or the incomplete last line of a killed run
            continue
    finite = [point for point in points if np.isfinite(point[1])]
    return finite[:: max(1, len(finite) // CURVE_POINTS)]
