"""#586's own training script as the opponent of golf: patched in memory, never part of this project.

It is given by path and only the version with this SHA-256 is accepted. The patches put the race's gate in
front of each step, record the losses, leave out validation, and end it when the race ends. Its schedule
counts steps instead of seconds, because its wall-clock rule puts the learning rate near 0 from the start of a
short run: warm-down, momentum warm-up and averaging are the fractions of profile `solo` of the steps
expected. Model, batches, optimizers, precision and attention stay its own. Afterwards its own evaluation
code is timed.

Source: github.com/openai/parameter-golf, pull request 586, train_gpt.py. It runs as one process.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import sentencepiece
import torch
from torch import Tensor, nn

from golf.bench import script, work
from golf.bench.contestants import SEED, WARM_UP_STEPS, golf_name
from golf.bench.gpu import card
from golf.bench.gpu.race import Gate
from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.settings import Settings
from golf.bench.gpu.worker import Requests
from golf.optim.schedule import TrainingProgress, average_decay
from golf.recipe.schema import Config

SHA256 = "4415518e3233e9a7c5ddfff4ca120d0d2fa2077716cd527d6d9906e410035c1e"
VOCABULARY = 1024
SCALES = "ve_layer_scales."

EVERYWHERE = (
    ('code = Path(__file__).read_text(encoding="utf-8")', 'code = ""', 1),
    ("        if should_validate:\n", "        if False:\n", 1),
    (
        "        if last_step:\n",
        "        if not turn(base_model):\n            return None\n        if False:\n",
        1,
    ),
    ("        train_loss /= ga_steps\n", "        train_loss /= ga_steps\n        record(train_loss)\n", 1),
)
"""(old text, new text, number of occurrences), as in golf/bench/script.py."""
ON_CPU = (
    ('assert torch.cuda.is_available(), "CUDA required"', "pass", 1),
    ('device = torch.device("cuda", local_rank)', 'device = torch.device("cpu")', 1),
    ("torch.cuda.set_device(device)", "pass", 1),
    ("torch.cuda.synchronize()", "pass", 10),
    ('device_type="cuda"', 'device_type="cpu"', 4),
    ("enable_math_sdp(False)", "enable_math_sdp(True)", 1),
    ("dtype=torch.bfloat16, enabled=True", "dtype=torch.bfloat16, enabled=False", 3),
    ("dtype=torch.bfloat16):", "dtype=torch.bfloat16, enabled=False):", 1),
    (").to(device).bfloat16()", ").to(device)", 1),
    ("X = G.bfloat16()", "X = G.float().clone()", 1),
    *script.UNCOMPILED,
)
"""On the CPU of a rehearsal it runs in float32 and uncompiled."""


def patched(text: str, device: torch.device) -> str:
    """The script for a device."""
    return script.apply(text, EVERYWHERE + (ON_CPU if device.type == "cpu" else ()))


def environment(config: Config, steps: int, folder: Path, tokenizer: Path) -> dict[str, str]:
    """The script's settings for golf's recipe in profile `solo`, on so many expected steps.

    Raises ValueError for horizons in steps, which belong to another number of steps.
    """
    model, optim, train = config.model, config.optim, config.train
    if isinstance(optim.warmdown, int) or isinstance(optim.muon_momentum_warmup, int):
        raise ValueError("#586's schedule needs optim.warmdown and optim.muon_momentum_warmup as fractions")
    middle = TrainingProgress(steps // 2, (steps // 2) / steps)
    numbers: dict[str, Any] = {
        "SEED": SEED,
        "DATA_PATH": folder,
        "TOKENIZER_PATH": tokenizer,
        "VOCAB_SIZE": VOCABULARY,
        "NUM_LAYERS": model.layers,
        "MODEL_DIM": model.width,
        "NUM_HEADS": model.heads,
        "NUM_KV_HEADS": model.kv_heads,
        "MLP_HIDDEN": model.mlp_hidden,
        "ROPE_DIMS": model.rope_dims,
        "ROPE_BASE": model.rope_base,
        "LN_SCALE": int(model.ln_scale),
        "XSA_LAYERS": model.xsa_last,
        "VE_DIM": model.ve_dim,
        "VE_LAYERS": ",".join(map(str, model.ve_layers)),
        "QK_GAIN_INIT": model.q_gain,
        "LOGIT_SOFTCAP": model.softcap,
        "TRAIN_BATCH_TOKENS": train.batch_tokens,
        "TRAIN_SEQ_LEN": train.seq_len,
        "ITERATIONS": steps,
        "MAX_WALLCLOCK_SECONDS": 0,
        "WARMUP_STEPS": WARM_UP_STEPS,
        "WARMDOWN_ITERS": round(steps * optim.warmdown),
        "MUON_MOMENTUM_WARMUP_STEPS": round(steps * optim.muon_momentum_warmup),
        "MUON_MOMENTUM": optim.muon_momentum,
        "MUON_MOMENTUM_WARMUP_START": optim.muon_momentum_start,
        "MUON_BACKEND_STEPS": optim.muon_steps,
        "MATRIX_LR": optim.muon_lr,
        "TIED_EMBED_LR": optim.embed_lr,
        "SCALAR_LR": optim.scalar_lr,
        "MUON_WEIGHT_DECAY": optim.muon_decay,
        "ADAM_WEIGHT_DECAY": optim.embed_decay,
        "GRAD_CLIP_NORM": optim.clip,
        "EMA_DECAY": average_decay(middle, optim.ema_decay, optim.ema_fraction),
        "VAL_LOSS_EVERY": 0,
        "TRAIN_LOG_EVERY": 0,
    }
    return {name: str(number) for name, number in numbers.items()}


def golf_weights(parameters: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The script's parameters under golf's names, float32; the scales of the value embedding as one array."""
    arrays = {name: parameter.detach().float().cpu().numpy() for name, parameter in parameters.items()}
    scales = [arrays.pop(name) for name in sorted(n for n in arrays if n.startswith(SCALES))]
    named = {golf_name(name): array for name, array in arrays.items()}
    return {**named, "value_embedding.scales": np.stack(scales)}


class Opponent:
    """Answers the call's questions about the script while it waits for a turn, and after the race."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.began, self.seconds = settings, time.monotonic(), 0.0
        self.model: nn.Module | None = None
        self.module: ModuleType | None = None

    def begin(self, model: nn.Module) -> None:
        """The script is about to take its first step, with this model."""
        self.model, self.seconds = model, time.monotonic() - self.began

    def ready(self) -> Found:
        """The seconds until every graph was compiled and warm."""
        assert self.model is not None
        parameters = sum(p.numel() for p in self.model.parameters())
        return Found(
            f"ready after {self.seconds:.1f} s, {parameters:,} parameters",
            {"seconds": self.seconds, "parameters": parameters},
        )

    def save_weights(self, file: Path) -> None:
        """Write the current weights under golf's names."""
        assert self.model is not None
        np.savez(file, allow_pickle=False, **golf_weights(dict(self.model.named_parameters())))

    def peak_bytes(self) -> int:
        """Most GPU memory in use so far."""
        return card.peak_bytes(self.settings.device)

    def sliding(self, windows: int) -> Found:
        """The script's own sliding evaluation over some windows of validation text, after a warm-up."""
        if self.module is None or self.model is None:
            raise Failed("the script has not finished its race")
        score, device, module = self.settings.hadamard.score, self.settings.device, self.module
        args = module.Hyperparameters()
        tokens = module.load_data_shard(sorted(self.settings.data.glob("val_*.bin"))[0])
        processor = sentencepiece.SentencePieceProcessor(model_file=args.tokenizer_path)
        tables = module.build_sentencepiece_luts(processor, VOCABULARY, device)

        def score_windows(n: int) -> None:
            text = tokens[: score.window + (n - 1) * score.stride + 1]
            module.eval_val_sliding(args, self.model, 0, 1, device, text, *tables, stride=score.stride)

        score_windows(min(64, windows))
        work.synchronise(device)
        began = time.perf_counter()
        score_windows(windows)
        work.synchronise(device)
        a_token = (time.perf_counter() - began) / (windows * score.stride)
        return Found(
            f"{a_token * 1e6:.2f} microseconds a token: {windows} windows of {score.window}, stride "
            f"{score.stride}, its own uncompiled code in batches of 64",
            {"seconds_per_token": a_token},
        )


def serve(requests: Requests, settings: Settings, steps: int) -> None:
    """The work of the opponent's process: run the script, then answer questions about it."""
    opponent = Opponent(settings)
    settings.limit_threads()
    source = patched(script.read(settings.script, SHA256), settings.device)
    gate = Gate(requests, opponent, partial(work.synchronise, settings.device))

    def turn(model: nn.Module) -> bool:
        if opponent.model is None:
            opponent.begin(model)
        return gate()

    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for split in ("train", "val"):
            for i, path in enumerate(sorted(settings.data.glob(f"{split}_*.bin"))):
                Path(f"fineweb_{split}_{i:06d}.bin").symlink_to(path.resolve())
        tokenizer = (settings.data / "tokenizer.model").resolve()
        variables = environment(settings.hadamard, steps, Path(name), tokenizer)
        opponent.module = script.run(source, variables, turn=turn, record=gate.record)
        requests.serve_all(opponent)
