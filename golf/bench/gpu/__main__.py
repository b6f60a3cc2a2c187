"""`just gpu`: the first or the second call on a machine with one GPU, or a rehearsal of it on a CPU.

    just gpu [--call first|second] [--out DIR] [--carried DIR] [--rehearse]

A call runs its rows one after another under a timetable of less than nine minutes
(golf/bench/gpu/timetable.py) and needs no network. It writes at most 8 files to DIR: gpu.jsonl (a line a row,
as soon as it ends), gpu.json, gpu.md, the logs and the compile caches. What a bare machine lacks is gathered
beforehand by golf/bench/gpu/carry.py. A row is ok, failed or skipped, and a skipped row claims nothing. The
exit status is 1 if a row failed. Without a GPU nothing is run or claimed and the status is 0, unless
--rehearse asks for tiny sizes on the CPU, which say nothing about any GPU. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from golf.bench.gpu import card, pieces
from golf.bench.gpu.call import Call
from golf.bench.gpu.calls import CALLS
from golf.bench.gpu.results import Failed, Journal, Skipped
from golf.bench.gpu.settings import Places, Settings, on_gpu, rehearsal
from golf.bench.gpu.timetable import Entry, Timetable
from golf.bench.interleaved import to_stderr

BUILD = Path(__file__).parents[3] / "build"
CARRIED, OUT, WORK = BUILD / "gpu", BUILD / "gpu-out", BUILD / "gpu-work"
"""Always the same path, since compiled code may name its own."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="just gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--call", choices=tuple(CALLS), default="first", help="default: first")
    parser.add_argument("--out", type=Path, default=OUT, help="where the results go (default: build/gpu-out)")
    parser.add_argument(
        "--carried", type=Path, default=CARRIED, help="what `just gpu-carry` gathered (default: build/gpu)"
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU")
    return parser.parse_args(argv)


def use_caches(folder: Path) -> None:
    """Make every process that starts from here on keep what it compiles in this folder."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")


def run(
    name: str,
    settings: Settings,
    entries: Sequence[Entry] | None = None,
    read: Callable[[], float] = time.monotonic,
) -> Journal:
    """Run a call and write everything that it found; `entries` replaces its timetable."""
    rows, own = CALLS[name]
    journal = Journal(settings.out)
    shutil.rmtree(settings.work, ignore_errors=True)
    use_caches(settings.caches)
    try:
        with Call(Timetable(entries or own, read), journal, settings.work / "logs") as call:
            try:
                rows(call, settings)
            finally:
                call.finish()
    finally:
        machine = {"call": name, **card.facts(settings.device)}
        print(journal.write(machine), flush=True)
        try:
            to_stderr(f"logs: {pieces.pack(settings.work / 'logs', settings.out, 'logs', most=1).seen}")
        except (Failed, Skipped) as error:
            to_stderr(f"logs: {error}")
    return journal


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if no row failed or there is no GPU, 1 otherwise."""
    options = arguments(argv)
    if not options.rehearse and not torch.cuda.is_available():
        print(f"no GPU here (torch {torch.__version__}): nothing was checked, nothing is claimed")
        to_stderr("hint: --rehearse runs the rows with tiny models on the CPU")
        return 0
    carried = options.carried.resolve()
    if not (carried / "sp1024").is_dir():
        to_stderr(f"{carried}/sp1024 is missing: rows that read text fail; `just gpu-carry` gathers it")
    places = Places(carried / "sp1024", carried / "train_gpt.py", carried, options.out.resolve(), WORK)
    journal = run(options.call, rehearsal(places) if options.rehearse else on_gpu(places))
    return 1 if any(row.outcome == "failed" for row in journal.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
