"""The plan of a run, fixed before the first seed: what two equal runs share, hashed into a folder name.

The hash covers the code bundle, the recipe, the manifest without its prose, the image lock, the runner, the
dataset and the edition's numbers. Contents are hashed, not only names, so that changed code never gets an
old verdict. The hash covers neither the seeds nor the host, whose facts are recorded with every attempt.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.base import files
from harness.base.errors import UsageError
from harness.data.dataset import Dataset
from harness.edition import EDITION, PROFILES, Limits
from harness.protocol.frames import Description
from harness.run.bundle import Bundle
from harness.run.folder import RunFolder
from harness.run.submission import Submission
from harness.runners.base import Runner


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
    """One run: a submission, a profile, a dataset; and a runner, once `on` has added it."""

    submission: Submission
    profile: str
    limits: Limits
    dataset: Dataset
    bundle: Bundle
    runner: str = ""
    isolated: bool = False
    isolation: str = ""
    """What separates the contestant from the machine, in a sentence."""
    image: str | None = None
    image_lock: str | None = None
    image_lacks: tuple[str, ...] = ()
    """The wheels that the lock pins and the image was built without."""

    def on(self, runner: Runner, image_lock: str | None) -> Plan:
        """The same plan on a runner, which has the image of that lock."""
        return replace(
            self,
            runner=runner.name,
            isolated=runner.isolated,
            isolation=runner.isolation,
            image=runner.image,
            image_lock=image_lock,
            image_lacks=runner.image_lacks,
        )

    def in_containers(self, image_lock: str) -> Plan:
        """The same plan on the docker runner, before its image is known: it has the run folder already."""
        return replace(self, runner="docker", image_lock=image_lock)

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
            "manifest": manifest.model_dump(mode="json", by_alias=True),
            "declared_seeds": list(manifest.seeds),
            "isolated": self.isolated,
            "isolation": self.isolation,
            "image": self.image,
            "image_lacks": list(self.image_lacks),
            "dataset": {
                "name": self.dataset.name,
                "folder": str(self.dataset.folder),
                "compressors": self.dataset.compressors,
            },
            "code_bytes": len(self.bundle.pyz),
            "config_bytes": len(self.submission.config),
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


def begun_image(path: Path) -> str | None:
    """The image id that a run or an ablation recorded in `path` (plan.json, study.json).

    None where it was not begun. Raises UsageError for a damaged file.
    """
    if not path.exists():
        return None
    stored = files.read_json(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("image"), str):
        raise UsageError(f"{path}: names no image", hint="the file was changed: restore it")
    return str(stored["image"])


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
            hint="repeat the command, which looks for that image; or remove the run folder to begin anew",
        )
    if earlier.get("identity") != facts["identity"]:
        raise UsageError(
            f"{folder.plan}: does not describe this run", hint="the file was changed; remove the folder"
        )
    return True


def update(plan: Plan, folder: RunFolder) -> None:
    """Write the parts of plan.json that the hash does not cover, such as the manifest's claim.

    A seed that was declared once stays declared: it is not dropped with its line in the manifest (R10).
    """
    stored = files.read_json(folder.plan)
    current = {**stored, **plan.facts()}
    current["declared_seeds"] = list(
        dict.fromkeys([*stored.get("declared_seeds", []), *plan.submission.manifest.seeds])
    )
    if stored != current:
        files.write_json(folder.plan, current)


def write(plan: Plan, folder: RunFolder, described: Description) -> None:
    """Write plan.json: the plan, and what the contestant claims of its recipe."""
    claims = {
        "parameters": described.parameters,
        "techniques": described.techniques,
        "estimated_bytes": described.estimated_bytes,
    }
    files.write_json(folder.plan, {**plan.facts(), "claims": claims})
