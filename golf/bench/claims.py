"""`just claims`: test what public systems say about their techniques, on trained weights of their full shape.

Four models (golf/bench/trained_models.py) are trained for --steps steps, the first for twice as many, on the
device at hand. Every claim that one training can test is shown next to the measurement:

    hadamard-ve128          rotation, the row-scale floor, GPTQ on top of rotation (#586)
    lowrank-q-qat           FTLE precision against uniform bits, the gap of quantisation-aware training (#316)
    lowrank-q-plain         the same without quantisation-aware training
    lowrank-q-shared        lowrank-q-plain with 4 layers that run three times each (12 layer steps)

A difference between two ways to pack the same weights has an interval over the rows of the text. So has a
difference between two trainings, but it says nothing about other seeds. Step times are ratios of medians over
alternating steps, with the range over pairs of steps.

A claim `holds` if the whole interval is on its side, `fails` if it is on the other side, and is `undecided`
otherwise. All results are for the scale that was trained.

    just claims --data DIR --work DIR [--steps N] [--json]

An interrupted training continues. Scores use rows that do not overlap, without test-time training.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from golf.bench import compression, contestants, evaluation, trained_models
from golf.bench.__main__ import measure_and_print, shard_files, vocab_size
from golf.bench.compression import CompressionResult, Interval, paired
from golf.bench.contestants import BenchConfig
from golf.bench.evaluation import Text
from golf.bench.gpu import training
from golf.bench.interleaved import to_stderr
from golf.bench.trained_models import ModelSpec, TrainedModel
from golf.runtime import dist

FULL_PRECISION: dict[str, dict[str, Any]] = {"train": {"qat_bits": 0}}
SHARED: dict[str, dict[str, Any]] = {
    "model": {"layers": 4, "loop_layers": [0, 1, 2, 3], "loop_passes": 2},
    **FULL_PRECISION,
}
ROTATED = ModelSpec("hadamard-ve128", "hadamard-ve128", {"stats": {"hessian_batches": 16}}, times=2)
QUANTISED = ModelSpec("lowrank-q-qat", "lowrank-q-qat", {"stats": {"row_score_every": 10}})
PLAIN = ModelSpec("lowrank-q-plain", "lowrank-q-qat", FULL_PRECISION)
LAYERS_SHARED = ModelSpec("lowrank-q-shared", "lowrank-q-qat", SHARED)
FULL_RANK = ModelSpec("full-rank-q", "lowrank-q-qat", {"model": {"q_rank": 0}, **FULL_PRECISION})
MIN_GAIN = 0.0005
"""A smaller gain, in bits per byte, counts as none."""
TIMED_TOKENS = 16_384
"""Tokens of a timed step: more than in training, as the optimizer takes a smaller share of a record run."""
TIMED_STEPS = 10


class Claim(NamedTuple):
    """A row of the table: the claim, its source, their result, our result, and the outcome."""

    claim: str
    source: str
    public: str
    ours: str
    outcome: str


class Bench:
    """Trains, packs and scores models on demand, and keeps each result."""

    def __init__(self, bench_config: BenchConfig, steps: int, folder: Path, text: Text) -> None:
        self.bench_config, self.steps, self.folder, self.text = bench_config, steps, folder, text
        self.models: dict[str, TrainedModel] = {}
        self.packed: dict[tuple[str, str], CompressionResult] = {}
        self.scored: dict[tuple[str, str], np.ndarray] = {}

    def trained(self, spec: ModelSpec) -> TrainedModel:
        """The model after its training."""
        if spec.name not in self.models:
            self.models[spec.name] = trained_models.train_or_read(
                spec, self.steps, self.bench_config, self.folder, to_stderr
            )
        return self.models[spec.name]

    def compress(self, spec: ModelSpec, **quant: Any) -> CompressionResult:
        """The model packed with these fields of `quant` in place of its own."""
        key = _key(spec, quant)
        if key not in self.packed:
            to_stderr(f"{spec.name}: packing with {quant}")
            self.packed[key] = compression.measure_compression(
                self.trained(spec), self.bench_config.vocab_size, **quant
            )
        return self.packed[key]

    def unpacked_nats(self, spec: ModelSpec) -> np.ndarray:
        """nats_N of the model as trained."""
        return self._nats(_key(spec, None), self.trained(spec), self.trained(spec).weights)

    def nats(self, spec: ModelSpec, **quant: Any) -> np.ndarray:
        """nats_N of the model packed with these fields of `quant` in place of its own."""
        return self._nats(_key(spec, quant), self.trained(spec), self.compress(spec, **quant).weights)

    def _nats(self, key: tuple[str, str], model: TrainedModel, weights: dict[str, Tensor]) -> np.ndarray:
        if key not in self.scored:
            self.scored[key] = compression.nats(
                weights, model.config, self.bench_config.vocab_size, self.text
            )
        return self.scored[key]


def _key(spec: ModelSpec, quant: dict[str, Any] | None) -> tuple[str, str]:
    return spec.name, json.dumps(quant, sort_keys=True)


def outcome(low: float, high: float, *, below: float = 0.0) -> str:
    """The outcome of the claim that a number is less than `below`, given the number's interval."""
    return "holds" if high < below else "fails" if low > below else "undecided"


def as_text(interval: Interval) -> str:
    """A difference in bits per byte, as text."""
    return f"{interval.mean:+.5f} ± {interval.half:.5f}"


def rotation(bench: Bench) -> list[Claim]:
    """#586: ratio and gap with and without rotation and floor; GPTQ on top."""
    ways = [{"rotate": rotate, "floor": floor} for rotate in (True, False) for floor in (True, False)]
    both, no_floor, unrotated, neither = (bench.compress(ROTATED, **way).ratio for way in ways)
    raw_N = bench.unpacked_nats(ROTATED)
    both_N, no_floor_N, unrotated_N, neither_N = (bench.nats(ROTATED, **way) for way in ways)
    gap, gap_no_floor, gap_unrotated = (
        paired(each_N - raw_N, bench.text) for each_N in (both_N, no_floor_N, unrotated_N)
    )
    change, change_no_floor = (
        paired(both_N - unrotated_N, bench.text),
        paired(no_floor_N - neither_N, bench.text),
    )
    gptq, gptq_unrotated = {"gptq": True, **ways[0]}, {"gptq": True, **ways[2]}
    gain, gain_unrotated = (
        paired(bench.nats(ROTATED, **way) - without_N, bench.text)
        for way, without_N in ((gptq, both_N), (gptq_unrotated, unrotated_N))
    )
    bytes_more = bench.compress(ROTATED, **gptq).n_bytes - bench.compress(ROTATED, **ways[0]).n_bytes
    return [
        Claim(
            "rotation improves the zstd ratio",
            "#586",
            "1.70x -> 1.76x",
            f"{unrotated:.3f}x -> {both:.3f}x with the floor, {neither:.3f}x -> {no_floor:.3f}x without it",
            "holds" if both > unrotated else "fails",
        ),
        Claim(
            "rotation cuts the gap of packing",
            "#586",
            "0.0093 -> 0.0084 bpb",
            f"{gap_unrotated.mean:.5f} -> {gap.mean:.5f}: {as_text(change)} with the floor, "
            f"{as_text(change_no_floor)} without it",
            outcome(change.low, change.high),
        ),
        Claim(
            "the row-scale floor is what drives the ratio",
            "our reading of #586",
            "-",
            f"the floor {no_floor:.3f}x -> {both:.3f}x, rotation {unrotated:.3f}x -> {both:.3f}x; "
            f"gap without the floor {gap_no_floor.mean:.5f}",
            "holds" if both - no_floor > abs(both - unrotated) else "fails",
        ),
        Claim(
            "GPTQ adds nothing on top of rotation at int6",
            "#586",
            "no gain",
            f"{as_text(gain)} on top of rotation, {as_text(gain_unrotated)} without it; "
            f"{bytes_more:+,} bytes",
            {"holds": "fails", "fails": "holds"}.get(
                outcome(gain.low, gain.high, below=-MIN_GAIN), "undecided"
            ),
        ),
    ]


def row_precision(bench: Bench) -> list[Claim]:
    """#316: uniform bits against FTLE bits per row."""
    found = []
    for bits in (8, 7, 6, 5):
        uniform, by_row = (bench.compress(QUANTISED, bits=bits, row_bits=rows) for rows in (False, True))
        public = "RMSE .00878 and .01093" if bits == 6 else "uniform wins"
        ours = (
            f"{uniform.n_bytes:,} and {by_row.n_bytes:,} bytes; squared error "
            f"{uniform.squared_error:.2e} and {by_row.squared_error:.2e} of the weights'"
        )
        better = [uniform.n_bytes < by_row.n_bytes, uniform.squared_error < by_row.squared_error]
        verdict = "holds" if all(better) else "undecided" if any(better) else "fails"
        found.append(
            Claim(f"uniform {bits} bits beat FTLE rows on error and bytes", "#316", public, ours, verdict)
        )
    return found


def quantisation_aware(bench: Bench) -> list[Claim]:
    """#316: the gap of packing with and without quantisation-aware training, at its bits and one fewer."""
    found = []
    for bits in (7, 6):
        way = {"bits": bits, "row_bits": False}
        qat_N, plain_N = (bench.nats(each, **way) - bench.unpacked_nats(each) for each in (QUANTISED, PLAIN))
        gap, gap_plain, change = (paired(each_N, bench.text) for each_N in (qat_N, plain_N, qat_N - plain_N))
        ours = f"{gap_plain.mean:.5f} -> {gap.mean:.5f}: {as_text(change)}"
        found.append(
            Claim(
                f"training for 7 bits cuts the gap, exported at {bits}",
                "#316",
                ".016 -> .005 bpb",
                ours,
                outcome(change.low, change.high),
            )
        )
    return found


def sharing(bench: Bench) -> list[Claim]:
    """#316: 4 layers that run three times each against 12 layers, at equal training steps."""
    worse = paired(bench.unpacked_nats(LAYERS_SHARED) - bench.unpacked_nats(PLAIN), bench.text)
    return [
        Claim(
            "layer sharing costs bits at 512 wide",
            "#316",
            "+0.09 bpb",
            f"{as_text(worse)} for 12 visits to 4 layers; one training each",
            outcome(-worse.high, -worse.low),
        )
    ]


def step_times(bench: Bench) -> list[Claim]:
    """#316: what a step costs with fake quantisation, and with low-rank queries."""
    quantised, plain, full = (spec.config() for spec in (QUANTISED, PLAIN, FULL_RANK))
    found = []
    for name, public, with_it, without, on, sign in (
        ("quantisation-aware training costs step time", "+6 %", quantised, plain, True, 1),
        ("low-rank queries save step time", "-8 %", plain, full, False, -1),
    ):
        to_stderr(f"timing: {name}")
        timed = training.overhead(
            with_it,
            without,
            bench.bench_config.vocab_size,
            dist.join().device,
            TIMED_TOKENS,
            TIMED_STEPS,
            quantised=on,
        )
        low, ratio, high = (each - 1 for each in (timed.low, timed.first / timed.second, timed.high))
        found.append(
            Claim(
                name,
                "#316",
                public,
                f"{ratio:+.1%} ({low:+.1%} to {high:+.1%} over {TIMED_STEPS} pairs of steps)",
                outcome(*sorted((-sign * low, -sign * high))),
            )
        )
    return found


TESTS = (rotation, row_precision, quantisation_aware, sharing, step_times)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="just claims", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="dataset folder (just data prepare)")
    parser.add_argument("--work", type=Path, required=True, help="where trained models are kept")
    parser.add_argument(
        "--steps", type=int, default=200, help="training steps, twice as many for the first (default: 200)"
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)"
    )
    parser.add_argument("--val-tokens", type=int, default=65_537, help="of validation text (default: 65,537)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train what is missing, test all claims; returns what `--json` prints. ValueError for unusable input."""
    if options.steps < 1:
        raise ValueError(f"--steps {options.steps}: a training has at least 1")
    dist.keep_freed_memory()
    torch.set_num_threads(options.threads)
    tokenizer = options.data / "tokenizer.model"
    bench_config = BenchConfig(
        shard_files(options.data, "train"),
        tokenizer,
        vocab_size(tokenizer),
        0.0,
        options.threads,
        compiled=False,
    )
    shards = contestants.open_shards(shard_files(options.data, "val"))
    tokens = np.concatenate([part for _, part in shards])
    text = evaluation.make_text(tokens[: options.val_tokens], tokenizer, ROTATED.config().train.seq_len)
    bench = Bench(bench_config, options.steps, options.work, text)
    scored = {
        spec.name: evaluation.bits_per_byte(bench.unpacked_nats(spec), text)
        for spec in (ROTATED, QUANTISED, PLAIN, LAYERS_SHARED)
    }
    claims = [claim for test in TESTS for claim in test(bench)]
    return {
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
        "steps": options.steps,
        "batch_tokens": ROTATED.config().train.batch_tokens,
        "validation": {"tokens": len(text.tokens) - 1, "bytes": int(text.bytes.sum())},
        "bits_per_byte_as_trained": scored,
        "parameters": {
            name: sum(w.numel() for w in each.weights.values()) for name, each in bench.models.items()
        },
        "claims": [claim._asdict() for claim in claims],
        "portraits": {name: compression.describe_tensor(each) for name, each in bench.models.items()},
    }


def table(found: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{found['machine']}; {found['steps']} steps of {found['batch_tokens']:,} tokens; "
        f"{found['validation']['tokens']:,} tokens scored",
        *(
            f"{name}: {found['parameters'][name]:,} parameters, {bpb:.4f} bits per byte as trained"
            for name, bpb in found["bits_per_byte_as_trained"].items()
        ),
        "",
        "| claim | source | public | measured here | |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(claim.values()) + " |" for claim in found["claims"]),
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured, 2 for missing data."""
    options = arguments(argv)
    return measure_and_print("claims", lambda: measure(options), table, options.json)


if __name__ == "__main__":
    sys.exit(main())
