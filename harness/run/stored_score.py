"""A seed's score on disk: nats.f32 and docs.npz, written once and checked against the ledger when read
again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base import files
from harness.base.arrays import read_arrays, write_arrays
from harness.base.errors import UsageError
from harness.base.files import sha256_of
from harness.data.dataset import Dataset
from harness.protocol import ledger
from harness.protocol.conversation import ChunkBoundary, ScoringPass
from harness.run.folder import SeedFolder
from harness.run.records import Attempt, SeedRecord
from harness.scoring import bpb, low_bpb_documents

SAME_BPB = 1e-9
"""Relative difference up to which two sums of the same bits are the same bits per byte."""


def store(folder: SeedFolder, measured: bpb.Metric, scored: ScoringPass) -> dict[str, Any]:
    """Write nats.f32 and docs.npz; returns the metric and the scan of the documents as JSON-ready facts."""
    files.write_bytes(folder.nats, scored.nats_T.astype("<f4").tobytes())
    write_arrays(
        folder.documents, {"starts": measured.starts_D, "bits": measured.bits_D, "bytes": measured.bytes_D}
    )
    return {
        "bpb": measured.bpb,
        "nats_per_token": measured.nats_per_token,
        "scored_tokens": measured.scored_tokens,
        "scored_bytes": measured.scored_bytes,
        "documents": low_bpb_documents.scan(measured.bits_D, measured.bytes_D, measured.starts_D),
    }


def load(folder: SeedFolder, dataset: Dataset, done: Attempt) -> ScoringPass:
    """The pass of a finished score stage. Raises UsageError where nats.f32 was changed since."""
    facts, claims = done.facts, done.claims
    nats_T = load_nats(folder, dataset, done)
    assert done.seconds is not None
    return ScoringPass(
        nats_T,
        facts["ledger_sha256"],
        done.seconds,
        claims["chunk_tokens"],
        claims["adapts"],
        claims["context"],
        [ChunkBoundary(**boundary) for boundary in facts["borders"]],
        facts.get("adapt_seconds", 0.0),
    )


def load_nats(folder: SeedFolder, dataset: Dataset, done: Attempt) -> npt.NDArray[np.float32]:
    """nats_T of a finished score stage. Raises UsageError where it does not give the recorded ledger."""
    tokens_T, nats_T = dataset.validation_tokens(), np.fromfile(folder.nats, "<f4")
    recorded = done.facts["ledger_sha256"]
    if (
        len(nats_T) != len(tokens_T)
        or ledger.replay(tokens_T, nats_T, done.claims["chunk_tokens"]) != recorded
    ):
        raise UsageError(
            f"{folder.nats}: does not match the ledger in {folder.record.name}",
            hint="the file was changed after the run; `pgolf run --again` runs the seed anew",
        )
    return nats_T


def require_packed_artifact(folder: SeedFolder, record: SeedRecord) -> None:
    """Only the artifact that was packed and counted is scored. Raises UsageError for any other."""
    packed = record.done("pack")
    if packed is None or sha256_of(folder.artifact) != packed.facts["artifact_sha256"]:
        raise UsageError(
            f"{folder.artifact}: is not the artifact that was packed",
            hint="the file was changed after the stage; --again runs the seed anew",
        )


def require_recorded_bpb(folder: SeedFolder, done: Attempt) -> None:
    """Raises UsageError where the recorded bits per byte are not those of the stored documents."""
    bits_D, bytes_D = read_arrays(folder.documents, "bits", "bytes")
    stored = float(bits_D.sum() / bytes_D.sum())
    if not math.isclose(stored, done.facts["bpb"], rel_tol=SAME_BPB):
        raise UsageError(
            f"{folder.record}: states {done.facts['bpb']:.6f} bits per byte, its documents have {stored:.6f}",
            hint="the file was changed after the run; --again runs the seed anew",
        )
