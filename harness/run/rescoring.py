"""One seed of a finished run, scored again: the two scores, and a later certificate where one is asked for.

The run folder is read; logs and certificates go where the stage job writes. What a whole run's rescoring
means is in commands/rescore.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.base import files
from harness.base.errors import Violation
from harness.base.progress import ProgressCallback, ProgressDisplay
from harness.data.dataset import Dataset
from harness.edition import TOLERANCES
from harness.protocol.conversation import ScoringPass
from harness.run import stages, stored_plan, stored_score
from harness.run.certify import certify_score
from harness.run.folder import SeedFolder
from harness.run.records import Attempt, SeedRecord
from harness.run.stages import StageJob
from harness.run.stored_plan import StoredPlan
from harness.run.witness_state import WitnessRequest
from harness.scoring import bpb


def titles(seed: int, request: WitnessRequest | None) -> list[str]:
    """The titles of the stages of one seed: its score, and its witness if one is asked."""
    score = f"rescore seed {seed}"
    return [score] if request is None else [score, f"{score} witness"]


@dataclass(frozen=True)
class Rescoring:
    """One seed, scored again."""

    plan: StoredPlan
    job: StageJob
    """Its folder holds the run's code, recipe and artifact, and is where logs and certificates go."""
    record: SeedRecord
    stored: SeedFolder
    """What the run left."""
    dataset: Dataset

    def run(self, display: ProgressDisplay, request: WitnessRequest | None) -> dict[str, Any]:
        """The row of the seed: both scores and ledgers, or why scoring it again broke."""
        with display.stage(titles(self.record.seed, request)[0]) as on_progress:
            row, scored = self._score(on_progress)
        if request is None or scored is None:
            return row
        return row | self._certify(scored, row["scored_bytes"], request, display)

    def _score(self, on_progress: ProgressCallback) -> tuple[dict[str, Any], ScoringPass | None]:
        """The row, and the pass; a pass that breaks is an outcome of its own (`broken`)."""
        stored_plan.require_unchanged(self.plan, self.stored)
        stored_score.require_packed_artifact(self.stored, self.record)
        earlier = self.record.done("score")
        assert earlier is not None
        expected, tokens_T = earlier.facts["ledger_sha256"], self.dataset.validation_tokens()
        stored_T = stored_score.load_nats(self.stored, self.dataset, earlier)
        try:
            result, scored = stages.score(self.job, tokens_T, on_progress, log="rescore")
        except Violation as violation:
            return self._broken(violation, earlier), None
        again = bpb.measure(tokens_T, scored.nats_T, self.dataset.byte_table())
        same, difference = scored.ledger_sha256 == expected, abs(again.bpb - earlier.facts["bpb"])
        on_gpu = self.job.limits.gpus > 0
        row = {
            "seed": self.record.seed,
            "outcome": "scored",
            "rule": None,
            "reason": None,
            "limit": False,
            "bpb": earlier.facts["bpb"],
            "rescored_bpb": again.bpb,
            "difference_bpb": difference,
            "ledger_sha256": expected,
            "rescored_ledger_sha256": scored.ledger_sha256,
            "same_ledger": same,
            "agrees": (same and difference <= stored_score.SAME_BPB * again.bpb)
            or (on_gpu and difference <= TOLERANCES.rescore_bpb),
            "largest_difference_nats": float(np.abs(scored.nats_T.astype(np.float64) - stored_T).max()),
            "scored_bytes": again.scored_bytes,
            "score_seconds": result.seconds,
        }
        return row, scored

    def _broken(self, violation: Violation, earlier: Attempt) -> dict[str, Any]:
        """The row of a pass that did not come to its end."""
        numbers = (
            "rescored_bpb",
            "difference_bpb",
            "rescored_ledger_sha256",
            "largest_difference_nats",
            "scored_bytes",
            "score_seconds",
        )
        return {
            "seed": self.record.seed,
            "outcome": "broken",
            "rule": violation.rule,
            "reason": str(violation),
            "limit": violation.limit,
            "bpb": earlier.facts["bpb"],
            "ledger_sha256": earlier.facts["ledger_sha256"],
            "same_ledger": False,
            "agrees": False,
            **dict.fromkeys(numbers),
        }

    def _certify(
        self, scored: ScoringPass, n_bytes: int, request: WitnessRequest, display: ProgressDisplay
    ) -> dict[str, Any]:
        """A certificate with a random seed of its own, kept beside earlier ones; says how many there were."""
        folder = self.job.folder
        number = 1 + max((int(path.name.rpartition("-")[2]) for path in folder.rescorings()), default=0)
        job = replace(self.job, folder=folder.rescored(number))
        tokens_T = self.dataset.validation_tokens()

        def say(text: str) -> None:
            display.say(f"{text}; a later certificate is listed, and the run's own decides")

        with display.stage(titles(self.record.seed, request)[1]) as on_progress:
            found = certify_score(job, tokens_T, scored, n_bytes, request, on_progress, say)
        files.write_json(job.folder.path / "rescored.json", found)
        return {**found, "certificates_before": number - 1}
