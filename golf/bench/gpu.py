"""`just gpu`: run every check that needs a GPU, in under nine minutes, without a network; print a table.

Each check (golf/bench/checks.py) runs in its own process with its own time limit, because a failing kernel
may crash its process and a compiler may hang. Then its row says FAILED and why, the other checks still run,
and the exit status is 1. A check for which no time is left has failed too. Without a GPU nothing is checked
or claimed, and the exit status is 0.

    just gpu [--out FILE.json] [--script train_gpt.py --data DIR]

Given the challenge's starting script and a dataset folder (tokenizer.model, train_*.bin), the script and golf
train in turns at the script's own shape on the same card. Everything runs on one GPU, with one GPU's share of
a batch meant for 8.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from golf.bench import checks, contestants, interleaved, script
from golf.bench.checks import CheckSettings, Passed, StepCost
from golf.bench.contestants import BenchConfig
from golf.bench.interleaved import Contestant, to_stderr
from golf.recipe.config import load

SECONDS = 520.0
"""For all checks together: nine minutes minus start and stop."""
SUBMISSIONS = Path(__file__).parents[2] / "submissions"
COMPARISON_SECONDS = 15.0
SCRIPT_SHAPE = "optim: {warmdown: 0.5}\n"
"""The defaults are the script's shape and batch."""


class Check(NamedTuple):
    """A name, the function that returns its rows, and its time limit."""

    name: str
    run: Callable[[], list[Passed]]
    seconds: float


class Row(NamedTuple):
    """A row of the table."""

    name: str
    passed: bool
    seen: str
    numbers: dict[str, float]
    seconds: float


def _in_process(pipe: Connection, run: Callable[[], list[Passed]]) -> None:
    try:
        pipe.send(run())
    except Exception as error:
        if not isinstance(error, checks.Failed):
            traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {error}")


def run_check(check: Check, remaining: float) -> list[Row]:
    """Run a check in its own process, for at most its own seconds and those that remain."""
    allowed, began = min(check.seconds, remaining), time.monotonic()
    if allowed <= 0:
        return [Row(check.name, False, "no time was left for it", {}, 0.0)]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(theirs, check.run))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(allowed) else f"not done after {allowed:.0f} s"
    except EOFError:
        process.join()
        found = f"its process ended with status {process.exitcode}"
    process.kill()
    process.join()
    seconds = time.monotonic() - began
    if isinstance(found, str):
        return [Row(check.name, False, (found.splitlines() or [""])[0], {}, seconds)]
    return [Row(part.name, True, part.seen, part.numbers, seconds) for part in found]


def run_checks(listed: Sequence[Check], seconds: float) -> list[Row]:
    """Run checks one after another until the seconds are used up."""
    rows, end = [], time.monotonic() + seconds
    for check in listed:
        to_stderr(f"{check.name} ...")
        rows += run_check(check, end - time.monotonic())
        to_stderr(f"{check.name}: {rows[-1].seen} ({rows[-1].seconds:.0f} s)")
    return rows


def compare_with_script(text: str, folder: Path) -> list[Passed]:
    """Train the starting script and golf in turns on this card, with the same model and batch."""
    config, tokenizer = load(SCRIPT_SHAPE), folder / "tokenizer.model"
    train = sorted(folder.glob("train_*.bin"))
    bench_config = BenchConfig(
        train, tokenizer, 1024, COMPARISON_SECONDS, torch.get_num_threads(), compiled=True
    )
    both = [
        Contestant(
            "starting script",
            config.train.batch_tokens,
            contestants.train_script,
            (text, config, bench_config, "cuda"),
        ),
        Contestant(
            "golf, same model",
            config.train.batch_tokens,
            contestants.train_golf,
            (config, bench_config, "cuda"),
        ),
    ]
    interleaved.run(both, COMPARISON_SECONDS / 5, to_stderr)
    median, low, high = interleaved.ratio(both[1], both[0])
    rows = [
        Passed(f"training, {each.name}", f"{each.rate:,.0f} tokens/s", {"tokens_per_second": each.rate})
        for each in both
    ]
    seen = f"{median:.2f} times the script's tokens per second ({low:.2f} to {high:.2f})"
    return [
        *rows,
        Passed("golf against the starting script", seen, {"ratio": median, "low": low, "high": high}),
    ]


def all_checks(settings: CheckSettings, options: argparse.Namespace) -> tuple[list[Check], str]:
    """Every check, cheap ones first; and why the script is skipped, if it is."""
    hadamard, parallel, lowrank = (
        checks.submission_recipe(SUBMISSIONS / name)
        for name in ("hadamard-ve128", "sp8192-parres-ttt", "lowrank-q-qat")
    )
    full_rank = replace(lowrank, model=replace(lowrank.model, q_rank=0))
    plain = replace(lowrank, train=replace(lowrank.train, qat_bits=0))
    qat = StepCost("quantisation-aware training", lowrank, plain, "public: +6 %", quantised=True)
    full_rank = replace(full_rank, train=plain.train)
    low_rank_queries = StepCost("low-rank queries", plain, full_rank, "public: -8 %")
    share = 524_288 // checks.OFFICIAL_GPUS
    listed = [
        Check(f"attention {name}", partial(checks.attention, name, settings), 40)
        for name in ("flash3", "cudnn", "sdpa", "blocks")
    ]
    listed += [
        Check(
            "training hadamard-ve128",
            partial(checks.training, "hadamard-ve128", hadamard, 1024, share, settings),
            100,
        ),
        Check(
            "training sp8192-parres-ttt",
            partial(
                checks.training,
                "sp8192-parres-ttt",
                parallel,
                8192,
                786_432 // checks.OFFICIAL_GPUS,
                settings,
            ),
            140,
        ),
        Check(
            "sliding evaluation hadamard-ve128",
            partial(checks.sliding, "hadamard-ve128", hadamard, 1024, 8, settings),
            60,
        ),
        Check(
            "sliding evaluation sp8192-parres-ttt",
            partial(checks.sliding, "sp8192-parres-ttt", parallel, 8192, 8, settings),
            60,
        ),
        Check(
            "adaptation sp8192-parres-ttt",
            partial(checks.adaptation, "sp8192-parres-ttt", parallel, 8192, settings),
            90,
        ),
        Check(
            "step time of quantisation-aware training",
            partial(checks.overhead, qat, 1024, share, settings),
            120,
        ),
        Check(
            "step time of low-rank queries",
            partial(checks.overhead, low_rank_queries, 1024, share, settings),
            120,
        ),
        Check("compiled against plain", partial(checks.compiled_forward, hadamard, 1024, settings), 90),
    ]
    try:
        text = script.read(options.script)
        if not options.data:
            raise script.Skip("it needs --data")
    except script.Skip as reason:
        return listed, str(reason)
    return [
        *listed,
        Check("golf against the starting script", partial(compare_with_script, text, options.data), 150),
    ], ""


def table(rows: Sequence[Row]) -> str:
    """The result as text."""
    lines = ["| check | | seen | s |", "|---|---|---|---|"]
    lines += [
        f"| {row.name} | {'ok' if row.passed else 'FAILED'} | {row.seen} | {row.seconds:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def report(rows: Sequence[Row], machine: str, out: Path | None) -> int:
    """Print the table and write the JSON; returns the exit status."""
    print(f"{machine}\n\n{table(rows)}")
    if out:
        whole: dict[str, Any] = {"machine": machine, "rows": [row._asdict() for row in rows]}
        out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if all checks passed or there is no GPU, 1 if any failed."""
    parser = argparse.ArgumentParser(prog="just gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    parser.add_argument("--script", type=Path, help="the challenge's train_gpt.py; skipped without it")
    parser.add_argument("--data", type=Path, help="dataset folder in SP1024, for the script")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(f"no GPU here (torch {torch.__version__}): nothing was checked, nothing is claimed")
        return 0
    listed, skipped = all_checks(checks.default_settings(torch.device("cuda", 0)), options)
    status = report(
        run_checks(listed, SECONDS),
        f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}",
        options.out,
    )
    if skipped:
        print(f"starting script: skipped ({skipped}); nothing is claimed about it")
    return status


if __name__ == "__main__":
    sys.exit(main())
