"""Compare two runs document by document: read the bits of each document, and put the comparison into words.

Seeds that both runs have are paired with each other; runs without a common seed are paired in the order of
their seeds, and seeds without a partner are left out and named. What differs between the runs besides their
recipes (code, clocks, runner, dataset) is named too. The arithmetic is in harness/scoring/paired.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base import arrays
from harness.base.errors import UsageError
from harness.base.text import count
from harness.run.folder import SEED_NAME, RunFolder
from harness.run.seeds import load_records
from harness.scoring import paired
from harness.verdict.run_differences import run_differences

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
    return {
        "first": str(first),
        "second": str(second),
        "seeds": [list(pair) for pair in pairs],
        "left_out": {
            "first": sorted(ours.keys() - {pair[0] for pair in pairs}),
            "second": sorted(theirs.keys() - {pair[1] for pair in pairs}),
        },
        **run_differences(first, second),
        **found,
    }


def describe(compared: dict[str, Any]) -> str:
    """The comparison as lines of text."""
    several = len(compared["seeds"]) > 1
    no_spread = "no difference varies" if several else "one seed"
    return "\n".join(
        [
            *_caveats(compared),
            f"first   {compared['first_bpb']:.5f}  {compared['first']}",
            f"second  {compared['second_bpb']:.5f}  {compared['second']}",
            f"first - second: {compared['difference_bpb']:+.5f} bits per byte over "
            f"{count(compared['documents'], 'document')} and {count(len(compared['seeds']), 'pair')} of "
            f"seeds: {_better(compared)}",
            _interval_line(
                "95 %, other documents and seeds",
                compared["ci95_such_text_bpb"] if several else None,
                no_spread,
            ),
            _interval_line("95 %, this text, other seeds", compared["ci95_this_text_bpb"], no_spread),
            _interval_line(
                "95 %, other documents, this seed",
                compared["ci95_one_seed_bpb"],
                "several seeds; see the first interval" if several else "no document differs",
            ),
            _interval_line("95 %, from the means alone", compared["ci95_seed_means_bpb"], "one seed"),
            f"  second is better on {compared['second_better_share']:.1%} of the documents",
        ]
    )


def _better(compared: dict[str, Any]) -> str:
    """Which run is better on this text, and whether that can be told from chance."""
    difference = compared["difference_bpb"]
    if difference == 0:
        return "a tie"
    better = "second" if difference > 0 else "first"
    interval = compared["ci95_such_text_bpb"] or compared["ci95_one_seed_bpb"]
    if interval is None or interval[0] > 0 or interval[1] < 0:
        return f"{better} is better here"
    return f"{better} is better here, by less than chance explains (the interval contains 0)"


def _caveats(compared: dict[str, Any]) -> list[str]:
    """What a reader must know before the numbers."""
    lines = [
        f"differs: {each['what']}: {each['first']} in the first, {each['second']} in the second"
        for each in compared["differs"]
    ]
    lines += [f"{which}, {line}" for which, busy in compared["busy"].items() for line in busy]
    if None in compared["verdicts"].values():
        lines.append("one side has no plan.json: nothing is known of its clocks, runner, dataset and code")
    if Path(compared["first"]).resolve() == Path(compared["second"]).resolve():
        lines.append("both are one and the same run")
    if any(first != second for first, second in compared["seeds"]):
        lines.append("the runs have no seed in common: seeds are paired in their order")
    for which, seeds in compared["left_out"].items():
        if seeds:
            lines.append(f"left out of the {which}: seeds {', '.join(map(str, seeds))}, without a partner")
    for which, standing in compared["verdicts"].items():
        if standing is not None:
            lines.append(f"{which:6}  {standing}")
    return lines


def _interval_line(name: str, interval: list[float] | None, why_none: str) -> str:
    shown = f"[{interval[0]:+.5f}, {interval[1]:+.5f}]" if interval else f"undefined: {why_none}"
    return f"  {name:34} {shown}"


def _documents_by_seed(folder: Path) -> dict[int, Path]:
    """The docs.npz of each scored seed of a run folder, or that of one seed's or `pgolf score`'s folder."""
    own = SEED_NAME.fullmatch(folder.resolve().name)
    if (folder / "docs.npz").is_file():
        return {int(own["seed"]) if own else 0: folder / "docs.npz"}
    run = RunFolder(folder)
    found = {seed: path for seed in run.seeds() if (path := run.seed(seed).documents).is_file()}
    if run.plan.is_file():  # documents without a record of their score belong to no verdict
        scored = {record.seed for record in load_records(run, list(found)) if record.done("score")}
        found = {seed: path for seed, path in found.items() if seed in scored}
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
