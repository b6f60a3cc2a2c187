"""`just codecs CHECKPOINT`: how near each lossless coder comes to Shannon's bound on a trained model.

The checkpoint is packed by its recipe, and the integers of all quantised matrices are taken out of the
artifact. Every coder of golf/bench/codecs_coders.py stores them and must give them back. Their bytes stand
beside two bounds:

    histogram   the sum over matrices of the entropy of the matrix's own histogram, without its cost
    contexts    the same with a histogram for each context of golf/storage/entropy.py, shared by all matrices

A coder that sees more than a histogram can be below the first bound; only golf's own coder is held to the
second. What is no integer (steps, scales, float16 tensors) is the same for all coders and counted apart.

    just codecs CHECKPOINT [--config FILE] [--profile NAME] [--only TEXT] [--json]

CHECKPOINT is the folder that training wrote; its recipe is config.resolved.yaml beside it, or FILE. Seconds
are CPU seconds of one run, programs included. Results hold for this training only.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from golf.bench.__main__ import measure_and_print
from golf.bench.codecs_coders import Coder, Matrices, coders
from golf.bench.codecs_decoder import decoder_bytes
from golf.bench.interleaved import to_stderr
from golf.recipe.config import Config, digest, load
from golf.runtime.program import code_bytes
from golf.stages import pack
from golf.storage import arrays, entropy
from golf.storage.codec import CODECS, shuffle
from golf.training import checkpoint

MAX_BYTES = 1 << 33
COUNTED_BYTES = 16_000_000
"""The challenge's limit, for recipes that allocate up to it."""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="codecs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="the folder that training wrote")
    parser.add_argument("--config", type=Path, help="its recipe (default: config.resolved.yaml beside it)")
    parser.add_argument("--profile", default="record", help="profile of the recipe (default: record)")
    parser.add_argument("--only", default="", help="try only coders whose name holds this text, e.g. brotli")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(argv)


def read_config(options: argparse.Namespace) -> Config:
    """The checkpoint's recipe. Raises ValueError if there is none."""
    path = options.config or options.checkpoint.resolve().parent / "config.resolved.yaml"
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe; name the one of this checkpoint with --config")
    return load(path.read_text(encoding="utf-8"), options.profile, str(path))


def read_arrays(folder: Path, config: Config) -> tuple[dict[str, Any], bytes, dict[str, np.ndarray]]:
    """A checkpoint's header, its artifact by the recipe, and the artifact's arrays by name.

    Raises ValueError for a folder that is no checkpoint of this recipe.
    """
    path = folder / checkpoint.WEIGHTS_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: is no checkpoint: it has no {checkpoint.WEIGHTS_FILE}")
    header, _ = arrays.read(path)
    vocab_size = header.get("vocab_size")
    if type(vocab_size) is not int or not 1 <= vocab_size <= 1 << 16:
        raise ValueError(f"{path}: its header has no vocabulary size from 1 to {1 << 16}")
    weights = checkpoint.read_weights(folder, config, vocab_size, MAX_BYTES)
    stats = checkpoint.read_statistics(folder, config, vocab_size, MAX_BYTES)
    limit = config.quant.target_bytes or COUNTED_BYTES - code_bytes()
    data = pack.to_artifact(weights, stats, config, limit, to_stderr)
    return header, data, pack.read_arrays(data, config, checkpoint.shapes_of(config, vocab_size))


def cpu_seconds() -> float:
    """CPU seconds so far of this process and of the programs that it waited for."""
    return sum(os.times()[:4])


def try_coder(coder: Coder, matrices: Matrices, bounds: dict[str, float]) -> dict[str, Any]:
    """A row of the table. Raises AssertionError unless the coder gives the matrices back."""
    began = cpu_seconds()
    data = coder.encode(matrices)
    packed = cpu_seconds()
    again = coder.decode(data, [(each.shape[0], each.shape[1]) for each in matrices])
    unpacked = cpu_seconds()
    assert all(map(np.array_equal, matrices, again)), f"{coder.name} lost something"
    to_stderr(f"{coder.name}: {len(data):,} bytes, {unpacked - began:.1f} CPU seconds")
    return {
        "coder": coder.name,
        "bytes": len(data),
        **{f"over_{name}": len(data) / bound - 1 for name, bound in bounds.items()},
        "decoder_bytes": decoder_bytes(coder),
        "pack_seconds": packed - began,
        "unpack_seconds": unpacked - packed,
    }


def bounds_of(matrices: Matrices) -> dict[str, float]:
    """Shannon's bounds in bytes; at least 1, so that they can be divided by."""
    contexts = entropy.encode(matrices).counts_XA
    found = {
        "histogram": sum(map(entropy.shannon_bytes, matrices)),
        "contexts": entropy.entropy_bytes(contexts),
    }
    return {name: max(bound, 1.0) for name, bound in found.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Pack and try every coder; returns what `--json` prints."""
    wanted = [coder for coder in coders() if options.only in coder.name]
    if not wanted:
        names = ", ".join(coder.name for coder in coders())
        raise ValueError(f"no coder's name holds {options.only!r}; there are: {names}")
    config = read_config(options)
    header, data, content = read_arrays(options.checkpoint, config)
    matrices = [array for array in content.values() if array.dtype == np.int8]
    if not matrices:
        raise ValueError(f"{options.checkpoint}: its recipe quantises nothing (quant.bits, quant.fp16_limit)")
    rest = {name: array for name, array in content.items() if array.dtype != np.int8}
    compress, _ = CODECS[config.quant.codec]
    bounds = bounds_of(matrices)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "recipe": digest(config)[:12],
        "steps": header["steps"],
        "vocab_size": header["vocab_size"],
        "matrices": len(matrices),
        "numbers": sum(map(np.size, matrices)),
        "bounds": bounds,
        "artifact": {
            "bytes": len(data),
            "codec": config.quant.codec,
            "level": config.quant.level,
            "entropy": config.quant.entropy,
        },
        "rest_bytes": len(
            compress(shuffle(arrays.to_bytes({}, rest), config.quant.shuffle), config.quant.level)
        ),
        "skipped": [coder.name for coder in wanted if not coder.available],
        "coders": [try_coder(coder, matrices, bounds) for coder in wanted if coder.available],
    }


def table(found: dict[str, Any]) -> str:
    """The result as text."""
    artifact, bounds = found["artifact"], found["bounds"]
    how = f"{artifact['codec']} {artifact['level']}" + (" after rANS" if artifact["entropy"] else "")
    lines = [
        f"{found['machine']}; recipe {found['recipe']}, {found['steps']:,} steps, vocabulary "
        f"{found['vocab_size']:,}",
        f"{found['numbers']:,} integers in {found['matrices']} matrices; everything else takes "
        f"{found['rest_bytes']:,} bytes",
        f"artifact as the recipe packs it ({how}): {artifact['bytes']:,} bytes",
        f"Shannon's bound: {bounds['histogram']:,.0f} bytes with a histogram for each matrix, "
        f"{bounds['contexts']:,.0f} with contexts",
        "",
        "| coder | bytes | over histograms | over contexts | decoder bytes | CPU s to pack | to unpack |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["coders"]:
        cells = (
            row["coder"],
            f"{row['bytes']:,}",
            f"{row['over_histogram']:+.2%}",
            f"{row['over_contexts']:+.2%}",
            f"{row['decoder_bytes']:,}",
            f"{row['pack_seconds']:.1f}",
            f"{row['unpack_seconds']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    if found["skipped"]:
        lines += ["", f"not installed here: {', '.join(found['skipped'])}"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 measured, 2 for a folder that is no checkpoint or of another recipe."""
    options = arguments(argv)
    return measure_and_print("codecs", lambda: measure(options), table, options.json)


if __name__ == "__main__":
    sys.exit(main())
