"""The numbers of a rules edition, per profile: clocks, sizes, and what a machine must grant or withhold.

One table, so that a reviewer sees every limit at once (docs/rules.md explains them and gives their sources).
No limit is written anywhere else. What happens when one is exceeded: protocol/, runners/, verdict/rules/.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

EDITION = "official-2026-05"
ProfileName = Literal["record", "solo", "pocket"]

MB = 1_000_000
MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one stage may take. Seconds are wall time by the judge's monotonic clock, sizes are bytes."""

    setup_seconds: float
    """Container start to `ready`, each stage; reported, not counted."""
    train_seconds: float
    """`train` sent to `trained` received, checkpoint written (R2)."""
    pack_seconds: float
    """`ready` to `packed`; reported, not counted (#1868: quantisation mathematics is outside the train
    clock)."""
    score_seconds: float
    """First chunk revealed to the last commit (R3)."""
    memory_bytes: int
    """Resident memory of the whole stage, GPU memory apart."""
    gpus: int
    """GPUs a stage may see; 0 hides them all."""
    grace_seconds: float = 0.5
    """A train stop this late is accepted: 1,505 public logs overshoot by a median of 0.026 s, 95 % by 0.148
    s."""
    counted_bytes: int = 16 * MB
    """code.pyz + config.yaml + artifact.bin, decimal megabytes (R1)."""
    checkpoint_bytes: int = 4 * GiB
    """Everything that train leaves behind; pack sees nothing else."""
    log_bytes: int = 16 * MiB
    """stdout and stderr of a stage."""
    pids: int = 512
    """Processes and threads at once."""
    shm_bytes: int = 1 * GiB
    """/dev/shm, raised above the engine's 64 MiB for NCCL and gloo."""
    scratch_bytes: int = 1 * GiB
    """/tmp and HOME."""
    out_files: int = 1024
    """Files that a stage may leave."""
    chunk_tokens: int = 262_144
    """Largest chunk that may be scored before the judge commits it."""

    def with_train_clock(self, seconds: float) -> Limits:
        """The same limits under another train clock."""
        return replace(self, train_seconds=seconds)

    def public(self) -> dict[str, float | int]:
        """The limits as `setup` tells them to the contestant and verdict.json records them."""
        return asdict(self)


PROFILES: dict[str, Limits] = {
    "record": Limits(
        900,
        600,
        900,
        600,
        memory_bytes=512 * GiB,
        gpus=8,
        shm_bytes=16 * GiB,
        pids=8192,
        checkpoint_bytes=16 * GiB,
        scratch_bytes=16 * GiB,
    ),
    "solo": Limits(
        900,
        600,
        900,
        3600,
        memory_bytes=64 * GiB,
        gpus=1,
        shm_bytes=8 * GiB,
        pids=2048,
        checkpoint_bytes=8 * GiB,
        scratch_bytes=8 * GiB,
    ),
    "pocket": Limits(120, 45, 60, 60, memory_bytes=6 * GiB, gpus=0, checkpoint_bytes=1 * GiB),
}

PROBES = {"record": 32_768, "solo": 8_192, "pocket": 4_096}
"""Probes of the witness, on average, where the command names no number (docs/certificate.md: what more would
buy)."""

OFFICIAL_GPU, OFFICIAL_GPUS = "NVIDIA H100 80GB HBM3", 8
"""Name of the SXM card as the driver reports it, and how many."""


@dataclass(frozen=True)
class Significance:
    """A rule profile for 'better than the baseline': one-sided Welch test with a margin (docs/rules.md,
    Better than).
    """

    name: str
    p_below: float
    margin_nats: float
    """Nats a token; in bits per byte it depends on the tokenizer (0.0030 for SP1024, 0.0019 for SP8192)."""
    source: str


SIGNIFICANCE = (
    Significance("readme", 0.01, 0.005, "README of the challenge, R5"),
    Significance("progression-2026-04-28", 0.25, 0.0, "#1902: chronological frontier"),
)


@dataclass(frozen=True)
class Tolerances:
    """By how much two numbers may differ and still count as the same. Nats are per token unless said
    otherwise.
    """

    row_nats: float = 1e-3
    """|logsumexp| of a row of log-probabilities; rows from float32 logits stay below 1e-4
    (docs/protocol.md)."""
    boundary_nats: float = 1e-3
    """A chunk's first token before and after it was shown, computed with the same shapes."""
    boundary_breach_nats: float = 0.05
    """Beyond this difference the rule fails, whatever the arithmetic: rows in bfloat16 differ by 0.02."""
    boundary_gap_nats: float = 0.2
    """The most that may be tolerated where many boundaries show noise: noise of 0.0125 reached 0.13."""
    boundary_spreads: float = 8.0
    """Robust standard deviations that one boundary must exceed where there are many."""
    exact_nats: float = 1e-3
    """A witness's row and the reported number, of a program whose numbers repeat."""
    batched_nats: float = 0.05
    """A row asked in a batch of contexts and the same row after a strict prefix: bfloat16 brings 0.02."""
    mean_gain_nats: float = 1e-3
    """A mean gain of the scorer over its witness that counts as noise, a fifth of the challenge's margin; the
    bound G still includes it."""
    spike_nats: float = 1.0
    """One token's gain."""
    spread_nats: float = 0.05
    """Root mean square of the gains."""
    claim_bpb: float = 0.004
    """A claimed score and the measured one: honest re-runs on other machines shifted by 0.0037 (#1177 of
    #1120)."""
    rescore_bpb: float = 1e-3
    """Two scorings of one artifact on a GPU."""
    size_share: float = 0.03
    """A contestant's size estimate closer to the cap than this share of it decides nothing."""
    size_error_share: float = 0.2
    """How far off such an estimate may be: trained a little, tables compress far better than it assumes."""


TOLERANCES = Tolerances()

BUSY_SHARE = 0.05
"""Share of the cores that other processes took during a stage, beyond which reports say so; it decides
nothing. A twentieth of the cores costs up to a twentieth of the steps, about what seeds differ by; below it
come the container engine's own work and the ticks of the counters (cpu_use.LEAST_SECONDS)."""
