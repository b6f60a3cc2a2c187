"""`just windows`: score packed models under several window rules: bits per byte, seconds, and agreement.

Every model is a seed's folder of a finished run, with artifact.bin and config.yaml; they should be seeds of
one recipe. Each scores the same validation tokens under each rule of RULES, in one process, on a GPU if there
is one. The table shows means over the models, the difference to the first rule with its standard error over
the models, the positions computed per token, and by how much a row that is asked alone, as `predict` asks it,
differs from the number that was scored.

    just windows --data DIR [--profile pocket] runs/NAME/pocket-.../seed-* [--json]

DIR holds tokenizer.model and val_*.bin. The table goes to stdout, progress to stderr. Seconds are those of
scoring the text without compilation: of the processor on a CPU, of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch

from golf.bench import contestants, evaluation
from golf.bench.__main__ import measure_and_print, shard_files, vocab_size
from golf.bench.evaluation import Text
from golf.bench.interleaved import to_stderr
from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer, WindowRule
from golf.model import kernels
from golf.recipe.config import PROFILES, load
from golf.recipe.schema import Config
from golf.runtime import compilation, dist
from golf.runtime.dist import Ranks
from golf.stages import pack

RULES = [(align, stride) for align in ("stream", "documents") for stride in (64, 256, 512)]
"""(score.align, score.stride); the first is the one that the others are compared with."""
MAX_BYTES = 1 << 30


class Scored(NamedTuple):
    """What one model's score of the text under one rule says."""

    bits_per_byte: float
    seconds: float
    largest_nats: float
    """Of the differences between rows asked alone and the reported numbers."""
    rms_nats: float


def predictor_of(folder: Path, profile: str, vocab: int, ranks: Ranks) -> tuple[Config, Predictor]:
    """A seed's recipe, and its packed model under the recipe's own rule."""
    config = load((folder / "config.yaml").read_text(encoding="utf-8"), profile)
    dtype = dist.precision(config, ranks.device)
    kernel = kernels.choose(ranks.device, dtype, config, kernels.scoring_calls(config)).name
    artifact = folder / pack.ARTIFACT_FILE
    model = pack.load(artifact, config, vocab, MAX_BYTES, dtype=dtype, attention=kernel).to(ranks.device)
    full = compilation.Compiled(model) if compilation.wanted(ranks.device) else None
    cfg = config.score
    return config, Predictor(
        model, window=cfg.window, stride=cfg.stride, batch=cfg.batch_windows, device=ranks.device, full=full
    )


def open_seed(folder: Path, profile: str, vocab: int, ranks: Ranks) -> tuple[Config, Predictor]:
    """Its recipe and model. Raises ValueError for no packed seed of this profile and vocabulary."""
    if not (folder / pack.ARTIFACT_FILE).is_file():
        raise ValueError(
            f"{folder}: no {pack.ARTIFACT_FILE}; name the folder of a packed seed, RUN_DIR/seed-*"
        )
    try:
        return predictor_of(folder, profile, vocab, ranks)
    except ValueError as error:
        text = f"the run's profile must be {profile} (--profile), and its vocabulary the dataset's, {vocab:,}"
        raise ValueError(f"{error}; {text}") from error


def positions_per_token(rule: WindowRule, tokens: np.ndarray, batch: int) -> float:
    """Positions that the rule computes for each token of a text, without the filling of the last batches."""
    windows = rule.windows(TokenBuffer(0, tokens), 0, len(tokens))
    return sum(len(each) * each[0].length for each in rule.batches(windows, batch)) / len(tokens)


def score(predictor: Predictor, text: Text, n_rows: int) -> Scored:
    """Score the text in one chunk, then ask `n_rows` tokens of it alone."""
    tokens, window = text.tokens.astype(np.uint16), predictor.rule.window
    predictor.warm_up()
    clock = time.process_time if predictor.device.type == "cpu" else time.perf_counter
    began = clock()
    nats_N = predictor.nats(TokenBuffer(0, tokens), 0, len(tokens))
    seconds = clock() - began
    asked = np.random.default_rng(0).choice(np.arange(1, len(tokens)), n_rows, replace=False)
    contexts = [TokenBuffer(max(0, t - window), tokens[max(0, t - window) : t]) for t in asked.tolist()]
    alone = np.array([-predictor.row(each)[tokens[each.stop]] for each in contexts])
    difference = alone - nats_N[asked]
    bits = evaluation.bits_per_byte(nats_N.astype(np.float64), text)
    return Scored(
        bits, seconds, float(np.abs(difference).max()), float(np.sqrt(np.square(difference).mean()))
    )


def row(
    align: str, stride: int, scored: list[Scored], first: list[Scored], positions: float
) -> dict[str, Any]:
    """The report on one rule: means over the models, and the difference to the first rule."""
    gains = [one.bits_per_byte - other.bits_per_byte for one, other in zip(scored, first, strict=True)]
    return {
        "align": align,
        "stride": stride,
        "bits_per_byte": fmean(each.bits_per_byte for each in scored),
        "difference": fmean(gains),
        "standard_error": stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None,
        "seconds": fmean(each.seconds for each in scored),
        "positions_per_token": positions,
        "largest_row_difference_nats": max(each.largest_nats for each in scored),
        "rms_row_difference_nats": max(each.rms_nats for each in scored),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Score every model under every rule; returns what `--json` prints."""
    ranks, tokenizer = dist.join(), options.data / "tokenizer.model"
    torch.set_num_threads(options.threads)
    shards = contestants.open_shards(shard_files(options.data, "val"))
    text = evaluation.make_text(np.concatenate([part for _, part in shards])[: options.tokens], tokenizer, 1)
    models = [open_seed(each, options.profile, vocab_size(tokenizer), ranks) for each in options.seeds]
    config, predictor = models[0]
    rows: list[dict[str, Any]] = []
    first: list[Scored] = []
    for align, stride in RULES:
        if stride > config.score.window:
            continue
        rule = WindowRule(config.score.window, stride, config.score.bos if align == "documents" else None)
        scored = []
        for each, (_, predictor) in zip(options.seeds, models, strict=True):
            predictor.rule = rule
            scored.append(score(predictor, text, options.rows))
            to_stderr(f"{each}: {align}, stride {stride}: {scored[-1].bits_per_byte:.4f} bits per byte")
        first = first or scored
        positions = positions_per_token(rule, text.tokens, predictor.batch)
        rows.append(row(align, stride, scored, first, positions))
    return {
        "machine": f"{platform.machine()}, {ranks.device}, {options.threads} CPU threads, "
        f"torch {torch.__version__}",
        "dtype": str(dist.precision(config, ranks.device)).removeprefix("torch."),
        "window": config.score.window,
        "models": len(models),
        "tokens": len(text.tokens),
        "bytes": int(text.bytes.sum()),
        "rows": rows,
    }


def table(found: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{found['machine']}; {found['dtype']}, window {found['window']:,}; {found['models']} models, "
        f"{found['tokens']:,} tokens, {found['bytes']:,} bytes",
        "",
        "| align | stride | bits per byte | difference | seconds | positions a token | rows differ, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found["rows"]:
        error = f" +- {each['standard_error']:.4f}" if each["standard_error"] is not None else ""
        lines.append(
            f"| {each['align']} | {each['stride']} | {each['bits_per_byte']:.4f} "
            f"| {each['difference']:+.4f}{error} | {each['seconds']:.1f} | {each['positions_per_token']:.2f} "
            f"| {each['largest_row_difference_nats']:.1e} (rms {each['rms_row_difference_nats']:.1e}) |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured, 2 for missing or unusable input."""
    parser = argparse.ArgumentParser(prog="just windows", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("seeds", type=Path, nargs="+", help="folders with artifact.bin and config.yaml")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--profile", choices=PROFILES, default="pocket", help="default: pocket")
    parser.add_argument("--tokens", type=int, default=200_000, help="tokens to score (default: 200,000)")
    parser.add_argument("--rows", type=int, default=64, help="tokens to ask alone (default: 64)")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(argv)
    return measure_and_print("windows", lambda: measure(options), table, options.json)


if __name__ == "__main__":
    sys.exit(main())
