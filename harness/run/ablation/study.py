"""What an ablation compares (the submission's own recipe, `base`, and its variants), and its folder.

    runs/<submission>/ablation-<profile>-<hash12>/
      study.json steps.json ablation.json ablation.md ablation.html
      <variant>/seed-<n>/   recipe, artifact, logs, and result.json, which is written last
      base/seed-<n>/        the same, and checkpoint/

The hash covers what a run's hash covers, the steps and the scored tokens. It does not cover the seeds and the
selected variants, so both can be added later.
"""

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
"""Clocks of an ablation in multiples of the profile's. Steps are matched, so a slow variant must not fail."""


class Arm(NamedTuple):
    """One recipe of the comparison: the base or a variant."""

    name: str
    config: bytes
    unquantised: bytes | None
    """The same recipe without quantisation, if the contestant gave one."""
    changes: Literal["train", "pack", "score"]
    """The first stage whose result differs from the base's; `train` for the base itself."""

    @property
    def slug(self) -> str:
        """A folder name, different for every arm."""
        if self.name == BASE:
            return BASE
        readable = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:60]
        return f"{readable}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"


def arms_of(config: bytes, described: Description, only: Sequence[str]) -> list[Arm]:
    """The base, then the variants in the order described: those named in `only`, or all if it is empty.

    A name in `only` may omit a leading `without`. Raises UsageError for an unknown name, and for a variant
    that is named like the base.
    """
    base = Arm(BASE, config, _encoded(described.unquantised), "train")
    variants = [
        Arm(v.name, v.config.encode(), _encoded(v.unquantised), v.changes) for v in described.variants
    ]
    if any(arm.name == BASE for arm in variants):
        raise UsageError(
            f"a variant is named {BASE!r}, the name of the submission's own recipe",
            hint="rename it in `describe`",
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
    """The profile's limits with clocks GENEROUS times as long."""
    return replace(
        limits,
        train_seconds=GENEROUS * limits.train_seconds,
        pack_seconds=GENEROUS * limits.pack_seconds,
        score_seconds=GENEROUS * limits.score_seconds,
    )


@dataclass(frozen=True)
class Study:
    """One ablation."""

    plan: Plan
    """Its limits have generous clocks."""
    clock: Limits
    """The profile's own limits, under which steps are counted if `steps` is None."""
    steps: int | None
    """Steps of every training; None for as many as the profile's own train clock allows."""
    val_tokens: int | None
    """How many tokens of the validation stream are scored; None for all."""

    @property
    def terms(self) -> StageTerms:
        """The plan's terms with the run id of an ablation."""
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
        """The folder in which the same weights are packed unquantised; it shares checkpoint and code."""
        folder = SeedFolder(self.path / "unquantised")
        folder.checkpoint, folder.code = self.checkpoint, self.code
        return folder


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
    """study.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    identity: dict[str, Any]
    image: str | None
    description: Description


def save(study: Study, folder: StudyFolder, described: Description) -> None:
    """Write study.json: what is compared, and what the contestant says of the recipe."""
    files.write_json(
        folder.study,
        {
            "schema": 1,
            "identity": study.identity(),
            "image": study.plan.image,
            "description": described.model_dump(mode="json"),
        },
    )


def load_description(study: Study, folder: StudyFolder) -> Description | None:
    """The description in study.json; None if no ablation was begun in this folder.

    Raises UsageError for another image, and for a file that is damaged or was changed.
    """
    if not folder.study.exists():
        return None
    try:
        stored = _StoredStudy.model_validate(files.read_json(folder.study))
    except ValidationError as error:
        raise UsageError(
            f"{folder.study}: {error.errors(include_url=False)[0]['msg']}", hint="remove the folder"
        ) from error
    if stored.image != study.plan.image:
        raise UsageError(
            f"{folder.path}: was begun with image {stored.image}, now it is {study.plan.image}",
            hint="repeat the command, which looks for that image; or remove the folder to begin anew",
        )
    if stored.identity != json.loads(json.dumps(study.identity())):
        raise UsageError(
            f"{folder.study}: does not describe this ablation", hint="the file was changed; remove the folder"
        )
    return stored.description
