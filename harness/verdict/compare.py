"""Two runs, document by document: which is better, by how much, and how sure is that?

Both scored the same documents, so the difference of each document's bits is far steadier than either sum:
hard documents are hard for both. Seeds are a random effect: with S pairs of seeds and D documents, y_ds =
bits_A - bits_B,

    difference = sum y / (S sum bytes)     variance = (between seeds) + (between documents)
    between seeds      sample variance of the seeds' own differences, over S         (0 where S = 1, and said so)
    between documents  sum_d (r_d - mean r)^2 / (sum bytes)^2, r_d = mean_s y_ds - difference * bytes_d     (ratio estimator)

The first term alone is what means of seeds give, without the pairing; the second is what the sample of
documents leaves open. The interval of `this text` has the first alone, that of `such text` both (Student,
Satterthwaite's degrees of freedom). Not covered: seeds beyond those that both runs share, or paired in order
where they share none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base import arrays
from harness.base.errors import UsageError

Floats = npt.NDArray[np.float64]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Bits per byte of `first` less `second`, JSON-ready. Raises UsageError for runs that did not score the
    same documents."""
    ours, theirs = _seeds(first), _seeds(second)
    shared = sorted(ours.keys() & theirs.keys())
    pairs = [(seed, seed) for seed in shared] or list(zip(sorted(ours), sorted(theirs), strict=False))
    bits_a: list[Floats] = []
    bits_b: list[Floats] = []
    reference: tuple[Any, Any] | None = None
    for seed_a, seed_b in pairs:
        for folder, kept in ((ours[seed_a], bits_a), (theirs[seed_b], bits_b)):
            starts_D, bits_D, bytes_D = _load(folder)
            if reference is None:
                reference = starts_D, bytes_D
            if not (np.array_equal(starts_D, reference[0]) and np.array_equal(bytes_D, reference[1])):
                raise UsageError(
                    f"{folder}: other documents than {ours[pairs[0][0]]}",
                    hint="both runs must have scored the same text in the same tokens",
                )
            kept.append(bits_D)
    assert reference is not None
    found = difference(np.array(bits_a), np.array(bits_b), reference[1])
    return {"first": str(first), "second": str(second), "seeds": [list(pair) for pair in pairs], **found}


def difference(a_SD: Floats, b_SD: Floats, bytes_D: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The paired comparison of two tables of bits, seeds by documents (see the module), in bits per byte."""
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
        "quantiles_bpb": {f"{q:g}": float(np.quantile(share_D, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
    }


def describe(compared: dict[str, Any]) -> str:
    """For people: a table."""

    def line(name: str, interval: list[float] | None, why: str) -> str:
        return f"  {name:34} " + (
            f"[{interval[0]:+.5f}, {interval[1]:+.5f}]" if interval else f"not to be had: {why}"
        )

    several = len(compared["seeds"]) > 1
    better = "second" if compared["difference_bpb"] > 0 else "first"
    return "\n".join(
        [
            f"first   {compared['first_bpb']:.5f}  {compared['first']}",
            f"second  {compared['second_bpb']:.5f}  {compared['second']}",
            f"first - second: {compared['difference_bpb']:+.5f} bits per byte over {compared['documents']:,} "
            "documents and "
            f"{len(compared['seeds'])} pairs of seeds: {better} is better here",
            line(
                "95 %, such text and other seeds",
                compared["ci95_such_text_bpb"] if several else None,
                "one seed",
            ),
            line("95 %, this text, other seeds", compared["ci95_this_text_bpb"], "one seed"),
            line(
                "95 %, such text, these weights",
                compared["ci95_one_seed_bpb"],
                "several seeds; the first line holds",
            ),
            line("95 %, from the means alone", compared["ci95_seed_means_bpb"], "one seed"),
            f"  second is better on {compared['second_better_share']:.1%} of the documents",
        ]
    )


def _interval(mean: float, parts: list[tuple[float, int]]) -> list[float] | None:
    """Student's 95 % interval; the parts are variances with their degrees of freedom (Satterthwaite)."""
    from scipy import stats

    parts = [(variance, df) for variance, df in parts if variance > 0 and df > 0]
    total = math.fsum(variance for variance, _ in parts)
    if not parts:
        return None
    df = total**2 / math.fsum(variance**2 / df for variance, df in parts)
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(total)
    return [mean - half, mean + half]


def _seeds(folder: Path) -> dict[int, Path]:
    """docs.npz by seed, in a run folder or in one seed's folder."""
    if (folder / "docs.npz").is_file():
        return {0: folder / "docs.npz"}
    found = {
        int(path.parent.name.removeprefix("seed-")): path
        for path in folder.glob("seed-*/docs.npz")
        if path.parent.name.removeprefix("seed-").isdigit()
    }
    if not found:
        raise UsageError(
            f"{folder}: no scored seed", hint="give a run folder, such as runs/<submission>/pocket-<hash>"
        )
    return found


def _load(path: Path) -> tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.int64]]:
    """starts_D, bits_D, bytes_D of docs.npz, checked. Raises UsageError for a damaged file."""
    starts_D, bits_D, bytes_D = arrays.read_arrays(path, "starts", "bits", "bytes")
    if not (
        starts_D.shape == bits_D.shape == bytes_D.shape and np.isfinite(bits_D).all() and bytes_D.sum() > 0
    ):
        raise UsageError(
            f"{path}: not the bits and bytes of documents",
            hint="the file was changed after the run; `pgolf run --again` runs the seed anew",
        )
    return starts_D, bits_D, bytes_D
