"""Compare two runs document by document: read the bits of each document, and put the comparison into words.

Seeds that both runs have are paired with each other; runs without a common seed are paired in the order of
their seeds, and seeds without a partner are ignored. The arithmetic is in harness/scoring/paired.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base import arrays
from harness.base.errors import UsageError
from harness.base.text import count
from harness.scoring import paired

Floats = npt.NDArray[np.float64]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Bits per byte of `first` minus `second`, JSON-ready.

    Raises UsageError for runs that did not score the same documents.
    """
    ours, theirs = _documents_by_seed(first), _documents_by_seed(second)
    shared = sorted(ours.keys() & theirs.keys())
    pairs = [(seed, seed) for seed in shared] or list(zip(sorted(ours), sorted(theirs), strict=False))
    bits_a: list[Floats] = []
    bits_b: list[Floats] = []
    reference: tuple[Any, Any] | None = None
    for seed_a, seed_b in pairs:
        for path, bits in ((ours[seed_a], bits_a), (theirs[seed_b], bits_b)):
            starts_D, bits_D, bytes_D = _load(path)
            if reference is None:
                reference = starts_D, bytes_D
            if not (np.array_equal(starts_D, reference[0]) and np.array_equal(bytes_D, reference[1])):
                raise UsageError(
                    f"{path}: other documents than {ours[pairs[0][0]]}",
                    hint="both runs must have scored the same text in the same tokens",
                )
            bits.append(bits_D)
    assert reference is not None
    found = paired.difference(np.array(bits_a), np.array(bits_b), reference[1])
    return {"first": str(first), "second": str(second), "seeds": [list(pair) for pair in pairs], **found}


def describe(compared: dict[str, Any]) -> str:
    """The comparison as lines of text."""
    several = len(compared["seeds"]) > 1
    better = "second" if compared["difference_bpb"] > 0 else "first"
    return "\n".join(
        [
            f"first   {compared['first_bpb']:.5f}  {compared['first']}",
            f"second  {compared['second_bpb']:.5f}  {compared['second']}",
            f"first - second: {compared['difference_bpb']:+.5f} bits per byte over "
            f"{count(compared['documents'], 'document')} and {count(len(compared['seeds']), 'pair')} of "
            f"seeds: {better} is better here",
            _interval_line(
                "95 %, other documents and seeds",
                compared["ci95_such_text_bpb"] if several else None,
                "one seed",
            ),
            _interval_line("95 %, this text, other seeds", compared["ci95_this_text_bpb"], "one seed"),
            _interval_line(
                "95 %, other documents, this seed",
                compared["ci95_one_seed_bpb"],
                "several seeds; see the first interval",
            ),
            _interval_line("95 %, from the means alone", compared["ci95_seed_means_bpb"], "one seed"),
            f"  second is better on {compared['second_better_share']:.1%} of the documents",
        ]
    )


def _interval_line(name: str, interval: list[float] | None, why_none: str) -> str:
    shown = f"[{interval[0]:+.5f}, {interval[1]:+.5f}]" if interval else f"undefined: {why_none}"
    return f"  {name:34} {shown}"


def _documents_by_seed(folder: Path) -> dict[int, Path]:
    """The docs.npz of each seed of a run folder, or the one of a single seed's folder as that of seed 0."""
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
