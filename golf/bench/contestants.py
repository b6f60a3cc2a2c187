"""What trains in a contestant's process: golf's own Trainer, or the challenge's starting script.

Both read the same shards in the same order (loader A), with the same number of threads, for the same seconds
of their own clocks. Both return weights under golf's names, so one evaluator reads both.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from golf.bench import script
from golf.bench.interleaved import InterleavedClock, Weights
from golf.optim.schedule import TrainingProgress
from golf.recipe.schema import Config
from golf.runtime import dist
from golf.runtime.dist import Ranks
from golf.training import loader as data
from golf.training.trainer import Trainer, compiled_loss

CPU = torch.device("cpu")
WARM_UP_STEPS = 2
SEED = 1337


class BenchConfig(NamedTuple):
    """What all contestants of a benchmark share."""

    train: list[Path]
    tokenizer: Path
    vocab_size: int
    seconds: float
    threads: int
    compiled: bool


def open_shards(paths: list[Path]) -> list[tuple[str, np.ndarray]]:
    """Shard files -> (name, tokens) of each, whose number of tokens follows from the file's size."""
    found: list[tuple[str, np.ndarray]] = []
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            n_tokens = (path.stat().st_size - data.HEADER_BYTES) // 2
            found.append((path.name, data.map_shard(descriptor, path.name, n_tokens)))
        finally:
            os.close(descriptor)
    return found


def _numpy(tensors: Mapping[str, Tensor]) -> Weights:
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}


def train_golf(pipe: Connection, config: Config, bench_config: BenchConfig) -> None:
    """Train golf in one process on the CPU, in turns."""
    dist.keep_freed_memory()
    torch.set_num_threads(bench_config.threads)
    trainer = Trainer(config, bench_config.vocab_size, SEED, Ranks(0, 1, CPU))
    if bench_config.compiled:
        trainer.loss = compiled_loss(trainer.model, config.hardware.loss_in_graph)
    cfg = config.train
    clock = InterleavedClock(pipe)
    start = {name: tensor.clone() for name, tensor in trainer.state().items()}
    for step in range(WARM_UP_STEPS):
        batch = data.synthetic(step, trainer.logical, cfg.batch_tokens, cfg.seq_len, bench_config.vocab_size)
        trainer.step(batch, TrainingProgress(step, 0.0))
    trainer.restore(start)
    loader = data.LOADERS[cfg.loader](
        open_shards(bench_config.train), bench_config.vocab_size, trainer.logical, cfg.seq_len
    )
    step = 0
    while clock.perf_counter() < bench_config.seconds:
        clock.wait_for_turn()
        trainer.step(
            loader.batch(cfg.batch_tokens),
            TrainingProgress(step, min(clock.perf_counter() / bench_config.seconds, 1.0)),
        )
        step += 1
    trainer.finish()
    clock.finish(step, _numpy(trainer.parameters))


SCRIPT_NAMES = (
    (r"attn\.c_([qkv])", r"attn.\1"),
    (r"attn\.proj", "attn.out"),
    (r"attn\.attn_gate", "attn.gate"),
    (r"mlp\.fc", "mlp.up"),
    (r"mlp\.proj", "mlp.down"),
    (r"bigram\.emb", "bigram.table"),
    (r"smear_gate", "smear.gate"),
    (r"ve_shared\.embed", "value_embedding.table"),
    (r"ve_shared\.proj", "value_embedding.proj"),
)
"""(pattern of a script's parameter names, golf's name), for the starting script and #586."""


def golf_name(name: str) -> str:
    """A parameter's name in a script -> its name in golf."""
    for pattern, new in SCRIPT_NAMES:
        name = re.sub(pattern, new, name)
    return name


def script_settings(
    config: Config, vocab_size: int, tokenizer: Path, folder: Path, seconds: float
) -> dict[str, str]:
    """The script's environment for a recipe's shape, batch and warmdown; ValueError if impossible."""
    model, train = config.model, config.train
    if model.mlp_hidden % model.width or isinstance(config.optim.warmdown, int):
        raise ValueError(
            "the script needs a feed-forward width that is a multiple of the model width, and a benchmark "
            "needs optim.warmdown as a fraction"
        )
    numbers = {
        "SEED": SEED,
        "VOCAB_SIZE": vocab_size,
        "NUM_LAYERS": model.layers,
        "MODEL_DIM": model.width,
        "NUM_HEADS": model.heads,
        "NUM_KV_HEADS": model.kv_heads,
        "MLP_MULT": model.mlp_hidden // model.width,
        "TRAIN_BATCH_TOKENS": train.batch_tokens,
        "TRAIN_SEQ_LEN": train.seq_len,
        "ITERATIONS": 1_000_000,
        "MAX_WALLCLOCK_SECONDS": seconds,
        "WARMDOWN_ITERS": round(1000 * config.optim.warmdown),
        "WARMUP_STEPS": WARM_UP_STEPS,
        "TRAIN_LOG_EVERY": 0,
        "DATA_PATH": folder,
        "TOKENIZER_PATH": tokenizer,
    }
    return {name: str(number) for name, number in numbers.items()}


def train_script(pipe: Connection, text: str, config: Config, bench_config: BenchConfig) -> None:
    """Train the script at the shape of `config`, in turns, in a temporary folder."""
    dist.keep_freed_memory()
    torch.set_num_threads(bench_config.threads)
    clock = InterleavedClock(pipe)
    bfloat16 = dist.precision(config, CPU) == torch.bfloat16
    source = script.patched(text, bfloat16=bfloat16, compiled=bench_config.compiled)

    def deliver(model: nn.Module) -> None:
        clock.finish(clock.steps + 1, _numpy({golf_name(name): p for name, p in model.named_parameters()}))

    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), open(os.devnull, "w") as nowhere:
        for i, path in enumerate(bench_config.train):
            Path(f"fineweb_train_{i:06d}.bin").symlink_to(path.resolve())
        # The script requires a validation shard, but never reads it here.
        Path("fineweb_val_000000.bin").symlink_to(bench_config.train[0].resolve())
        settings = script_settings(
            config,
            bench_config.vocab_size,
            bench_config.tokenizer.resolve(),
            Path(name),
            bench_config.seconds,
        )
        with contextlib.redirect_stdout(nowhere):
            script.run(source, settings, time=clock, deliver=deliver)
