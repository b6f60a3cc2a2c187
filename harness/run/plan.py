"""The plan of a run, fixed before the first seed: what two equal runs share, hashed into a folder name.

The hash covers the code bundle, the recipe, the manifest without its prose, the image lock, the runner, the
dataset and the edition's numbers. Contents are hashed, not only names, so that changed code never gets an
old verdict. The hash covers neither the seeds nor the host, whose facts are recorded with every attempt.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files
from harness.base.errors import UsageError
from harness.data.dataset import Dataset
from harness.edition import EDITION, PROFILES, Limits
from harness.protocol.frames import Description
from harness.run import bundle
from harness.run.folder import RunFolder, SeedFolder
from harness.run.submission import Submission


@dataclass(frozen=True)
class StageTerms:
    """What every stage of a run is told, whoever plans it."""

    run_id: str
    """Names containers and temporary folders; decides nothing."""
    track: str
    profile: str
    limits: Limits
    tokenizer: Path
    vocab_size: int


@dataclass(frozen=True)
class Plan:
    """One run: a submission, a profile, a dataset, a runner."""

    submission: Submission
    profile: str
    limits: Limits
    dataset: Dataset
    bundle: bundle.Bundle
    runner: str
    image: str | None
    image_lock: str | None

    def facts(self) -> dict[str, Any]:
        """JSON-ready: what plan.json records. `identity` is what the hash covers."""
        manifest = self.submission.manifest
        identity = {
            "code": self.bundle.sha256,
            "config": hashlib.sha256(self.submission.config).hexdigest(),
            "manifest": manifest.digest(),
            "image_lock": self.image_lock,
            "runner": self.runner,
            "dataset": self.dataset.sha256,
            "edition": EDITION,
            "profile": self.profile,
            "limits": self.limits.public(),
        }
        return {
            "schema": 1,
            "submission": manifest.name,
            "track": manifest.track,
            "identity": identity,
            "image": self.image,
            "dataset": {"name": self.dataset.name, "folder": str(self.dataset.folder)},
            "code_modules": list(self.bundle.modules),
        }

    @property
    def hash12(self) -> str:
        text = json.dumps(self.facts()["identity"], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self, runs: Path) -> RunFolder:
        return RunFolder(runs / self.submission.manifest.name / f"{self.profile}-{self.hash12}")

    @property
    def terms(self) -> StageTerms:
        manifest = self.submission.manifest
        return StageTerms(
            f"{manifest.name}-{self.hash12}",
            manifest.track,
            self.profile,
            self.limits,
            self.dataset.tokenizer,
            self.dataset.vocab_size,
        )


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Identity(_Stored):
    """The parts of a stored plan that a rescoring must find unchanged."""

    code: str
    config: str
    runner: Literal["docker", "local"]
    dataset: str
    profile: str
    limits: Limits


class Located(_Stored):
    """Where the run found its dataset."""

    name: str
    folder: Path


class StoredPlan(_Stored):
    """plan.json of a run that was begun, perhaps by somebody else."""

    submission: str
    track: Literal["A", "B"]
    identity: Identity
    image: str | None
    dataset: Located

    def terms(self, dataset: Dataset) -> StageTerms:
        """The terms of a rescoring on the run's dataset."""
        identity = self.identity
        return StageTerms(
            f"rescore-{self.submission}",
            self.track,
            identity.profile,
            identity.limits,
            dataset.tokenizer,
            dataset.vocab_size,
        )


def read(folder: RunFolder) -> StoredPlan:
    """The plan of a run folder. Raises UsageError when the file is missing, damaged or no plan."""
    try:
        return StoredPlan.model_validate(files.read_json(folder.plan))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UsageError(
            f"{folder.plan}: {place}: {first['msg']}", hint="is this the folder of a run?"
        ) from error


def require_unchanged(plan: StoredPlan, folder: SeedFolder) -> None:
    """Raises UsageError where a seed's code or recipe is not the plan's, naming the file."""
    config = hashlib.sha256(folder.config.read_bytes()).hexdigest()
    for path, found, expected in (
        (folder.code, bundle.digest_of(folder.code), plan.identity.code),
        (folder.config, config, plan.identity.config),
    ):
        if found != expected:
            raise UsageError(
                f"{path}: is not what the run was made with", hint="the file was changed after the run"
            )


def profile_limits(profile: str, train_seconds: float | None = None) -> Limits:
    """The edition's limits for a profile, with a shorter train clock if one is given.

    Raises UsageError for an unknown profile and for a clock that is not shorter.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}", hint=f"one of {', '.join(PROFILES)}")
    limits = PROFILES[profile]
    if train_seconds is None:
        return limits
    if not 0 < train_seconds <= limits.train_seconds:
        raise UsageError(
            f"--train-seconds {train_seconds:g}: the train clock of profile {profile} is "
            f"{limits.train_seconds:g} s "
            "and can only be shortened",
            hint="another profile has another clock",
        )
    return limits.with_train_clock(train_seconds)


def is_begun(plan: Plan, folder: RunFolder) -> bool:
    """Whether the folder holds this run's plan already.

    Raises UsageError where it was begun with another image: a verdict must not mix two environments.
    """
    if not folder.plan.exists():
        return False
    facts, earlier = plan.facts(), files.read_json(folder.plan)
    if earlier.get("image") != facts["image"]:
        raise UsageError(
            f"{folder.path}: was begun with image {earlier.get('image')}, now it is {facts['image']}",
            hint="remove the run folder, or build the image that it was begun with",
        )
    if earlier.get("identity") != facts["identity"]:
        raise UsageError(
            f"{folder.plan}: does not describe this run", hint="the file was changed; remove the folder"
        )
    return True


def write(plan: Plan, folder: RunFolder, described: Description) -> None:
    """Write plan.json: the plan, and what the contestant claims of its recipe."""
    claims = {
        "parameters": described.parameters,
        "techniques": described.techniques,
        "estimated_bytes": described.estimated_bytes,
    }
    files.write_json(folder.plan, {**plan.facts(), "claims": claims})
