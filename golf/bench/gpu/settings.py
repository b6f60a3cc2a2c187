"""Where a call runs and at what sizes: the real ones for a GPU, tiny ones to rehearse the call on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from golf.recipe.config import load
from golf.recipe.schema import Config

OFFICIAL_GPUS = 8
"""GPUs of an official run, which share a batch and a text equally."""
SUBMISSIONS = Path(__file__).parents[3] / "submissions"
TINY_MODEL = {"layers": 4, "width": 64, "heads": 4, "kv_heads": 2, "mlp_hidden": 128, "rope_dims": 8}
TINY_TRAIN = {"seq_len": 64, "batch_tokens": 1024, "warmup_steps": 1}
"""A pass of 2 rows of 64 tokens for each of the 8 logical ranks."""


class Places(NamedTuple):
    """Files and folders of a call."""

    data: Path
    """Dataset folder in SP1024."""
    script: Path | None
    """#586's train_gpt.py."""
    carried: Path
    """What golf/bench/gpu/carry.py gathered."""
    out: Path
    """What comes back from the machine: few files."""
    work: Path
    """Everything else that is written: logs, runs, caches."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the processes of a call share."""

    device: torch.device
    data: Path
    script: Path | None
    carried: Path
    out: Path
    work: Path
    hadamard: Config
    record: Config
    """sp8192-parres-ttt in the record's profile."""
    lowrank: Config
    turn_seconds: float = 5.0
    race_seconds: float = 70.0
    """At most, for both together."""
    step_seconds: float = 0.56
    """Of #586 on one H100 (8 x 70 ms): the race's schedules expect the number of steps that follows."""
    rows: int = 32
    """Rows of a pass, everywhere."""
    steps: int = 8
    windows: int = 512
    """Windows of a timed sliding evaluation."""
    submission: Path = SUBMISSIONS / "hadamard-ve128"
    """What is run under the judge."""
    judged: tuple[str, ...] = ()
    """Options of `pgolf run` for it."""
    threads: int | None = None
    """Threads of a process's torch; None leaves its default."""

    @property
    def caches(self) -> Path:
        """Where the compilers keep what they have compiled."""
        return self.work / "caches"

    def limit_threads(self) -> None:
        """Give this process's torch its number of threads."""
        if self.threads:
            torch.set_num_threads(self.threads)

    @property
    def dtype(self) -> torch.dtype:
        """Of attention's inputs."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32


def recipe(name: str, profile: str, **sections: dict[str, Any]) -> Config:
    """A submission's recipe with some fields replaced, section by section."""
    config = load((SUBMISSIONS / name / "config.yaml").read_text(encoding="utf-8"), profile)
    changed = {name: replace(getattr(config, name), **fields) for name, fields in sections.items()}
    return replace(config, **changed)


def on_gpu(places: Places) -> Settings:
    """The real sizes: 32 rows of 2048 tokens in a pass of #586's model, 48 of SP8192's."""
    return Settings(
        device=torch.device("cuda", 0),
        **places._asdict(),
        hadamard=recipe("hadamard-ve128", "solo"),
        record=recipe("sp8192-parres-ttt", "record"),
        lowrank=recipe("lowrank-q-qat", "record"),
        judged=("--profile", "solo", "--train-seconds", "35", "--witness", "64", "--witness-lanes"),
    )


def rehearsal(places: Places) -> Settings:
    """Tiny sizes on the CPU in float32: they show that the call works, and nothing about any GPU."""
    hardware = {"micro_tokens": 128, "precision": "float32"}
    score = {"window": 64, "stride": 16, "chunk_tokens": 128, "batch_windows": 4}
    common: dict[str, dict[str, Any]] = {"train": TINY_TRAIN, "hardware": hardware, "score": score}
    ve = {"ve_dim": 16, "ve_layers": (2, 3), "xsa_last": 2}
    recurrent = {"loop_layers": (1, 2), "loop_passes": 1, "parallel_last": 1, "xsa_last": 4}
    return Settings(
        device=torch.device("cpu"),
        **places._asdict(),
        hadamard=recipe("hadamard-ve128", "solo", model={**TINY_MODEL, **ve}, **common),
        record=recipe(
            "sp8192-parres-ttt",
            "record",
            model={**TINY_MODEL, **recurrent},
            adapt={"seq_len": 64, "batch_rows": 2},
            **common,
        ),
        lowrank=recipe(
            "lowrank-q-qat", "record", model={**TINY_MODEL, "q_rank": 16, "xsa_last": 2}, **common
        ),
        turn_seconds=0.3,
        race_seconds=4.0,
        step_seconds=0.05,
        rows=4,
        steps=2,
        windows=8,
        judged=("--profile", "pocket", "--train-seconds", "10", "--witness", "64"),
        threads=1,
    )
