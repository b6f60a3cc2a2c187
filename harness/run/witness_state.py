"""witness.json: which witness was asked for, its random seed, and how each round ended.

The seed is drawn after the ledger closed and written down before the first question. An interrupted witness
resumes with the same seed, so nobody can draw again until the sample is favourable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.base import files
from harness.base.errors import UsageError
from harness.edition import PROBES
from harness.run.folder import SeedFolder


@dataclass(frozen=True)
class WitnessRequest:
    """What a witness is asked: `probes` tokens on average, out of at most `chunks` chunks (a random prefix),
    or all.
    """

    probes: int
    chunks: int | None = None
    batched: bool = False
    """Ask many contexts at once, and certify.STRICT_PROBES tokens by strict prefixes too."""


def witness_request(
    profile: str, probes: int | None = None, chunks: int | None = None, batched: bool = False
) -> WitnessRequest | None:
    """The request of a command; None for no witness. Without a number of probes it is the profile's.

    Raises UsageError for an unknown profile.
    """
    if profile not in PROBES:
        raise UsageError(f"unknown profile {profile!r}", hint=f"one of {', '.join(PROBES)}")
    probes = PROBES[profile] if probes is None else probes
    return WitnessRequest(probes, chunks, batched) if probes else None


class WitnessState(BaseModel):
    """The content of witness.json; its keys `lanes` and `looks` are older than the names here."""

    model_config = ConfigDict(extra="forbid")

    seed: str = Field(pattern="^[0-9a-f]{64}$")
    ledger_sha256: str
    probes: int = Field(gt=0)
    chunks: int | None = None
    batched: bool = Field(default=False, alias="lanes")
    times_begun: int = 1
    rounds: list[dict[str, Any]] = Field(default=[], alias="looks")

    def request(self) -> WitnessRequest:
        """What was asked for when it began."""
        return WitnessRequest(self.probes, self.chunks, self.batched)

    def save(self, folder: SeedFolder) -> None:
        files.write_json(folder.witness, self.model_dump(by_alias=True))


def load_state(folder: SeedFolder) -> WitnessState | None:
    """The witness that was begun for a seed; None for none. Raises UsageError where its file was changed."""
    if not folder.witness.exists():
        return None
    try:
        return WitnessState.model_validate(files.read_json(folder.witness))
    except ValidationError as error:
        raise UsageError(
            f"{folder.witness}: {error.errors(include_url=False)[0]['msg']}",
            hint="the file was changed by hand; --again runs the seed anew",
        ) from error


def begin_or_resume(folder: SeedFolder, ledger_sha256: str, request: WitnessRequest) -> WitnessState:
    """A state with a fresh random seed, or that of an interrupted witness of the same ledger, from its first
    round on.

    Raises UsageError where the state belongs to another ledger.
    """
    earlier = load_state(folder)
    if earlier is None:
        return WitnessState(
            seed=os.urandom(32).hex(),
            ledger_sha256=ledger_sha256,
            probes=request.probes,
            chunks=request.chunks,
            lanes=request.batched,
        )
    if earlier.ledger_sha256 != ledger_sha256:
        raise UsageError(
            f"{folder.witness}: its random seed belongs to another ledger", hint="--again runs the seed anew"
        )
    return earlier.model_copy(update={"times_begun": earlier.times_begun + 1, "rounds": []})
