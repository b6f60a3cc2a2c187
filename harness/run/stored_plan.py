"""plan.json of a run that was begun, perhaps by somebody else, read strictly.

Written by plan.py. Rescoring and exporting read `StoredPlan`; a verdict also needs `Judged`, which folders
made by earlier versions lack.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.base import files
from harness.base.errors import UsageError
from harness.data.dataset import Dataset
from harness.edition import EDITION, Limits, ProfileName
from harness.run import bundle
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import StageTerms
from harness.run.submission import Manifest

Stored = TypeVar("Stored", bound="_Stored")


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Identity(_Stored):
    """What the hash of a stored plan covers."""

    code: str
    config: str
    image_lock: str | None = None
    runner: Literal["docker", "local"]
    dataset: str
    edition: str = EDITION
    profile: ProfileName
    limits: Limits


class Located(_Stored):
    """Where the run found its dataset, and bits per byte of compressors on the same text."""

    name: str
    folder: Path
    compressors: dict[str, float] = {}


def _manifest(stored: Any) -> Any:
    """A manifest as JSON stores it, where seeds that are keys are text."""
    return Manifest.model_validate_json(json.dumps(stored)) if isinstance(stored, dict) else stored


class Judged(_Stored):
    """What a verdict needs to know of the submission and the runner."""

    manifest: Annotated[Manifest, BeforeValidator(_manifest)]
    declared_seeds: list[int] = []
    """Every seed that the manifest declared when this folder was run."""
    isolated: bool
    isolation: str
    code_bytes: int
    config_bytes: int


class Claimed(_Stored):
    """What the contestant says of its recipe."""

    parameters: int = Field(0, ge=0)


class StoredPlan(_Stored):
    """plan.json of a run that was begun, perhaps by somebody else."""

    submission: str
    track: Literal["A", "B"]
    identity: Identity
    image: str | None
    image_lacks: tuple[str, ...] = ()
    dataset: Located
    claims: Claimed = Claimed(parameters=0)

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
    return _read(folder, StoredPlan)


def read_judged(folder: RunFolder) -> Judged:
    """What a verdict needs of plan.json. Raises UsageError where the file does not hold it."""
    return _read(folder, Judged)


def _read(folder: RunFolder, model: type[Stored]) -> Stored:
    try:
        return model.model_validate(files.read_json(folder.plan))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UsageError(
            f"{folder.plan}: {place}: {first['msg']}",
            hint="is this the folder of a run? One made by an earlier version is brought up to date by the "
            "same `pgolf run`",
        ) from error


def require_unchanged(plan: StoredPlan, folder: SeedFolder) -> None:
    """Raises UsageError where a seed's code or recipe is not the plan's, naming the file.

    Also where the sources kept beside the code are not those that it was made from.
    """
    code = bundle.read(folder.code)
    config = hashlib.sha256(folder.config.read_bytes()).hexdigest()
    for path, found, expected in (
        (folder.code, code.digest(), plan.identity.code),
        (folder.config, config, plan.identity.config),
    ):
        if found != expected:
            raise UsageError(
                f"{path}: is not what the run was made with", hint="the file was changed after the run"
            )
    bundle.require_source(folder.source, code)
