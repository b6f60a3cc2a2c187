"""`just bench`: compare golf's training to the challenge's starting script, at one shape, on this CPU.

The contestants are the script; golf with the script's techniques (same model, optimizers and batches); and
golf with the best recipe of that size. They train in turns (golf/bench/interleaved.py) for the same seconds
of their own clocks, in bfloat16 if the machine has it natively, compiled if --compile says so (which needs a
C++ compiler). Each rate is shown next to the bound from this machine's own matrix rate (golf/bench/work.py),
each result as bits per byte of the same text (golf/bench/evaluation.py). The script is skipped if it is
missing or another version.

    just bench --data DIR --script train_gpt.py [--json]

DIR holds tokenizer.model, train_*.bin and val_*.bin, as written by `just data prepare`. The table goes to
stdout, progress to stderr. See golf/bench/gpu for GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from golf.bench import contestants, evaluation, interleaved, script, work
from golf.bench.contestants import BenchConfig
from golf.bench.interleaved import Contestant, to_stderr
from golf.recipe.config import load
from golf.recipe.schema import Config
from golf.runtime import dist

SHAPE = """
model: {layers: 4, width: 256, heads: 4, kv_heads: 2, mlp_hidden: 512}
train: {batch_tokens: 16384, seq_len: 512}
optim: {warmdown: 0.5}
hardware: {micro_tokens: 4096}
"""
"""The script's techniques are golf's defaults."""

BEST = """
model: {layers: 4, width: 256, heads: 4, kv_heads: 2, mlp_hidden: 512, rope_dims: 16, ln_scale: true,
        xsa_last: 2, attn_gate: true, smear: true, init: orthogonal}
train: {batch_tokens: 4096, seq_len: 512}
optim: {muon_lr: 0.03, muon_variant: lerp, muon_momentum_warmup: 0.2, embed_lr: 0.035, scalar_lr: 0.025,
        clip: 0.3, warmdown: 0.6, warmdown_shape: cosine, ema_fraction: 0.05}
hardware: {micro_tokens: 4096}
"""
"""hadamard-ve128's techniques that need no embedding table, with batches small enough for many steps."""

SAME, OWN = "golf, same model", "golf, best recipe"
SCRIPT = "starting script"


def shard_files(folder: Path, split: str) -> list[Path]:
    """Shards of a dataset folder, in order; ValueError if there are none."""
    found = sorted(folder.glob(f"{split}_*.bin"))
    if not found:
        raise ValueError(f"{folder}: no {split}_*.bin; `just data prepare pocket` makes such a folder")
    return found


def vocab_size(tokenizer: Path) -> int:
    """Number of pieces of a tokenizer."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).vocab_size()


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    default = Path(os.environ.get("PGOLF_HOME", Path.home() / ".cache/pgolf")) / "datasets/pocket"
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__.split("\n")[0])
    parser.add_argument("--script", type=Path, help="the challenge's train_gpt.py; skipped without it")
    parser.add_argument("--data", type=Path, default=default, help=f"dataset folder (default: {default})")
    parser.add_argument(
        "--seconds", type=float, default=60, help="seconds of training for each contestant (default: 60)"
    )
    parser.add_argument("--turn", type=float, default=5, help="seconds of a turn (default: 5)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of each contestant (default: all cores)"
    )
    parser.add_argument(
        "--val-tokens", type=int, default=200_000, help="tokens of validation text (default: 200,000)"
    )
    parser.add_argument(
        "--compile",
        choices=("none", "script", "all"),
        default="none",
        help="which programs use torch.compile",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(argv)


def row(
    contestant: Contestant,
    config: Config,
    options: argparse.Namespace,
    bench_config: BenchConfig,
    text: evaluation.Text,
    rate: work.Rate,
) -> dict[str, Any]:
    """The report on one contestant."""
    last, limit = contestant.reports[-1], work.bound(config, bench_config.vocab_size, rate)
    assert last.weights is not None
    nats_N = evaluation.row_nats(last.weights, config, bench_config.vocab_size, text)
    return {
        "name": contestant.name,
        "parameters": sum(array.size for array in last.weights.values()),
        "batch_tokens": contestant.batch_tokens,
        "seconds": last.seconds,
        "steps": last.steps,
        "tokens_per_second": contestant.rate,
        "bound": limit,
        "utilisation": contestant.rate / limit,
        "bits_per_byte": evaluation.bits_per_byte(nats_N, text),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark; returns what `--json` prints."""
    train, tokenizer = shard_files(options.data, "train"), options.data / "tokenizer.model"
    vocab = vocab_size(tokenizer)
    configs = {SCRIPT: load(SHAPE), SAME: load(SHAPE), OWN: load(BEST)}
    ours, theirs = (
        BenchConfig(train, tokenizer, vocab, options.seconds, options.threads, compiled)
        for compiled in (options.compile == "all", options.compile != "none")
    )
    entries = [
        Contestant(name, configs[name].train.batch_tokens, contestants.train_golf, (configs[name], ours))
        for name in (SAME, OWN)
    ]
    skipped = ""
    try:
        text_of_script = script.read(options.script, script.SHA256)
        entries.insert(
            0,
            Contestant(
                SCRIPT,
                configs[SCRIPT].train.batch_tokens,
                contestants.train_script,
                (text_of_script, configs[SCRIPT], theirs),
            ),
        )
    except script.Skip as reason:
        skipped = str(reason)
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    dtype, model = dist.precision(configs[SAME], device), work.model_of(configs[SAME], vocab)
    rates = {
        each: work.matrix_rate(model, model.plan, each, device, configs[SAME].hardware.micro_tokens)
        for each in dict.fromkeys((torch.float32, dtype))
    }
    to_stderr("matrix products measured; building the contestants")
    interleaved.run(entries, options.turn, to_stderr)
    tokens = np.concatenate(
        [tokens for _, tokens in contestants.open_shards(shard_files(options.data, "val"))]
    )[: options.val_tokens]
    text = evaluation.make_text(tokens, tokenizer, configs[SAME].train.seq_len)
    rows = [row(each, configs[each.name], options, ours, text, rates[dtype]) for each in entries]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, torch "
        f"{torch.__version__}",
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": options.compile,
        "gflops_per_token": work.flops_per_token(model, model.plan, configs[SAME].train.seq_len) / 1e9,
        "matrix_gflops": {
            str(d).removeprefix("torch."): rate.flops_per_second / 1e9 for d, rate in rates.items()
        },
        "validation": {"tokens": len(text.tokens) - 1, "bytes": int(text.bytes.sum())},
        "contestants": rows,
        "skipped": skipped,
        "ratio": dict(zip(("median", "low", "high"), interleaved.ratio(entries[1], entries[0]), strict=True))
        if not skipped
        else None,
    }


def table(found: dict[str, Any]) -> str:
    """The result as text."""
    rates = ", ".join(f"{rate:.0f} GFLOP/s in {dtype}" for dtype, rate in found["matrix_gflops"].items())
    lines = [
        f"{found['machine']}; {found['dtype']}, compiled: {found['compiled']}",
        f"products of the same shapes alone: {rates}; {found['gflops_per_token'] * 1000:.2f} MFLOP per token",
        "",
        "| contestant | parameters | batch | train s | steps | tokens/s | bound | of bound | bits per byte |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["contestants"]:
        lines.append(
            f"| {row['name']} | {row['parameters']:,} | {row['batch_tokens']:,} | {row['seconds']:.1f} | "
            f"{row['steps']} "
            f"| {row['tokens_per_second']:,.0f} | {row['bound']:,.0f} | {row['utilisation']:.0%} | "
            f"{row['bits_per_byte']:.4f} |"
        )
    text = found["validation"]
    lines += [
        "",
        f"bits per byte of {text['tokens']:,} tokens, {text['bytes']:,} bytes, in float32, rows that do not "
        "overlap",
    ]
    if found["skipped"]:
        return "\n".join([*lines, f"{SCRIPT}: skipped ({found['skipped']}); nothing is claimed about it"])
    ratio = found["ratio"]
    return "\n".join(
        [
            *lines,
            f"{SAME} compared with {SCRIPT}: {ratio['median']:.2f} times the tokens per second "
            f"(median of the rounds; {ratio['low']:.2f} to "
            f"{ratio['high']:.2f})",
        ]
    )


def measure_and_print(
    name: str, measure: Callable[[], dict[str, Any]], table: Callable[[dict[str, Any]], str], as_json: bool
) -> int:
    """Measure and print; exit status 0, or 2 and a line on stderr for unusable input."""
    try:
        found = measure()
    except (ValueError, OSError) as error:
        to_stderr(f"{name}: {error}")
        return 2
    print(json.dumps(found, indent=1) if as_json else table(found))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured (perhaps without the script), 2 for missing data."""
    options = arguments(argv)
    return measure_and_print("bench", lambda: measure(options), table, options.json)


if __name__ == "__main__":
    sys.exit(main())
