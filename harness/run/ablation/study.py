"""What an ablation compares: the submission's own recipe (`base`) and its variants, and the folder of the
results.

    runs/<submission>/ablation-<profile>-<hash12>/
      study.json steps.json ablation.json ablation.md ablation.html
      <variant>/seed-<n>/ result.json, written last, beside logs, recipe and artifact; checkpoint/ of the base is kept

The hash covers what a run's hash covers, and steps and scored tokens; not the seeds and not which variants
are asked for, so that both can be added later. Not covered: how one of them is measured (pairs.py)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files
from harness.base.errors import UsageError
from harness.edition import Limits
from harness.protocol.frames import Description
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import Plan, StageTerms

BASE = "base"
GENEROUS = 10
"""Clocks of an ablation in multiples of the profile's: steps are what is matched, and a slow variant is no
failure."""


class Arm(NamedTuple):
    """One recipe of the comparison."""

    name: str
    config: bytes
    unquantised: bytes | None
    """The recipe with its weights left as trained, where the contestant gave one."""
    changes: Literal["train", "pack", "score"]
    """The first stage whose outcome differs from the base's; `train` for the base itself."""

    @property
    def slug(self) -> str:
        """Names a folder, one for each name."""
        if self.name == BASE:
            return BASE
        readable = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:60]
        return f"{readable}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"


def arms_of(config: bytes, described: Description, only: Sequence[str]) -> list[Arm]:
    """The base, then the variants in the order of the description; those named in `only` where it names any.

    A name may leave out a leading `without`. Raises UsageError for a name that no variant has, and for a
    variant that calls itself as the base is called."""
    base = Arm(BASE, config, _encoded(described.unquantised), "train")
    variants = [
        Arm(v.name, v.config.encode(), _encoded(v.unquantised), v.changes) for v in described.variants
    ]
    if any(arm.name == BASE for arm in variants):
        raise UsageError(
            f"a variant is named {BASE!r}, as the submission's own recipe is", hint="rename it in `describe`"
        )
    known = {arm.name: arm for arm in variants}
    chosen = {name if name in known else f"without {name}" for name in only}
    if unknown := sorted(chosen - set(known)):
        raise UsageError(
            f"no variant {unknown[0].removeprefix('without ')!r}",
            hint=f"known here: {', '.join(name.removeprefix('without ') for name in known) or 'none'}",
        )
    return [base, *(arm for arm in variants if not only or arm.name in chosen)]


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def with_generous_clocks(limits: Limits) -> Limits:
    """The profile's limits with clocks that an ablation does not meet."""
    return replace(
        limits,
        train_seconds=GENEROUS * limits.train_seconds,
        pack_seconds=GENEROUS * limits.pack_seconds,
        score_seconds=GENEROUS * limits.score_seconds,
    )


@dataclass(frozen=True)
class Study:
    """One ablation. `plan.limits` are generous; `steps` null: as many as the profile's own train clock
    allows."""

    plan: Plan
    clock: Limits
    """The profile's own limits, under which steps are counted where none are given."""
    steps: int | None
    val_tokens: int | None
    """How many tokens of the validation stream are scored; null for all."""

    @property
    def terms(self) -> StageTerms:
        """The plan's, labelled as an ablation's."""
        return replace(self.plan.terms, run_id=f"ablation-{self.plan.submission.manifest.name}")

    def identity(self) -> dict[str, Any]:
        """What the hash covers."""
        return {**self.plan.facts()["identity"], "steps": self.steps, "val_tokens": self.val_tokens}

    def folder(self, runs: Path) -> StudyFolder:
        text = json.dumps(self.identity(), sort_keys=True)
        hash12 = hashlib.sha256(text.encode()).hexdigest()[:12]
        return StudyFolder(
            runs / self.plan.submission.manifest.name / f"ablation-{self.plan.profile}-{hash12}"
        )


class PairFolder(SeedFolder):
    """Paths of one (variant, seed)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.result = path / "result.json"

    def unquantised(self) -> SeedFolder:
        """Where the same weights are packed as trained; checkpoint and code are this folder's."""
        beside = SeedFolder(self.path / "unquantised")
        beside.checkpoint, beside.code = self.checkpoint, self.code
        return beside


class StudyFolder(RunFolder):
    """Paths of one ablation."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / "study.json"
        self.steps = path / "steps.json"
        self.table = path / "ablation.json"
        self.report = path / "ablation.md"
        self.page = path / "ablation.html"

    def pair(self, arm: Arm, seed: int) -> PairFolder:
        return PairFolder(self.path / arm.slug / f"seed-{seed}")


class _StoredStudy(BaseModel):
    """study.json"""

    model_config = ConfigDict(extra="ignore", frozen=True)
    identity: dict[str, Any]
    image: str | None
    description: Description


def begin(study: Study, folder: StudyFolder, described: Description) -> None:
    """Records what is studied, and what the contestant says of it."""
    files.write_json(
        folder.study,
        {
            "schema": 1,
            "identity": study.identity(),
            "image": study.plan.image,
            "description": described.model_dump(mode="json"),
        },
    )


def is_begun(study: Study, folder: StudyFolder) -> Description | None:
    """The description of an ablation that was begun here; None where none was.

    Raises UsageError for another image, and for a file that is damaged or was changed.
    """
    if not folder.study.exists():
        return None
    try:
        earlier = _StoredStudy.model_validate(files.read_json(folder.study))
    except ValidationError as error:
        raise UsageError(
            f"{folder.study}: {error.errors(include_url=False)[0]['msg']}", hint="remove the folder"
        ) from error
    if earlier.image != study.plan.image:
        raise UsageError(
            f"{folder.path}: was begun with image {earlier.image}, now it is {study.plan.image}",
            hint="remove the folder, or build the image that it was begun with",
        )
    if earlier.identity != json.loads(json.dumps(study.identity())):
        raise UsageError(
            f"{folder.study}: does not describe this ablation", hint="the file was changed; remove the folder"
        )
    return earlier.description
