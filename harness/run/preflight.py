"""Select dataset, runner and image before a run, report each choice, and look at the room on the disks.

The dataset is `--data`, or the profile's own. If a container engine answers and the image is missing, the
image is built: the local runner replaces it only with `--runner local`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import docker

from harness.base.disk import require_room
from harness.base.errors import UsageError
from harness.base.host import gpus
from harness.base.paths import home
from harness.base.progress import ProgressDisplay
from harness.base.temporary import temporary_root
from harness.data import pocket
from harness.data.dataset import Dataset
from harness.edition import Limits
from harness.run import stored_plan
from harness.run.folder import RunFolder
from harness.run.plan import Plan, begun_image
from harness.run.submission import Manifest
from harness.runners.base import Runner
from harness.runners.images import build
from harness.runners.select import RunnerName, select_runner

NUMBER_BYTES = 8
"""Bytes of one parameter in a checkpoint: a float32, and about as much again for statistics."""


class Preflight(NamedTuple):
    """A runner, and the lock of the image that it uses; None for the local runner."""

    runner: Runner
    image_lock: str | None


def choose_dataset(data: Path | None, profile: str, variant: str, display: ProgressDisplay) -> Dataset:
    """The dataset of a run, checked against its own hashes; the pocket dataset is prepared if it is missing.

    Raises UsageError where there is none, with the command that makes it.
    """
    if data is not None:
        folder = data
    elif profile == "pocket":
        folder = home() / "datasets" / "pocket"
        if not (folder / "dataset.json").exists():
            with display.stage("prepare the pocket dataset") as on_progress:
                pocket.prepare(folder, progress=on_progress)
    else:
        folder = home() / "datasets" / f"fineweb-{variant}"
        if not (folder / "dataset.json").exists():
            raise UsageError(
                f"profile {profile} is scored on FineWeb, which is not here",
                hint=f"pgolf data prepare fineweb --variant {variant}, or give --data",
            )
    dataset = Dataset.open(folder)
    if not dataset.train:
        raise UsageError(
            f"{folder}: has no train shards", hint="a run trains first: prepare the dataset with --train"
        )
    with display.stage("verify the dataset") as on_progress:
        dataset.verify(on_progress)
    return dataset


def choose_runner(
    wanted: RunnerName | None,
    manifest: Manifest,
    limits: Limits,
    display: ProgressDisplay,
    begun_in: Callable[[str], Path] | None = None,
) -> Preflight:
    """The wanted runner, or docker where an engine answers, or local; builds the image if it is missing.

    `begun_in` gives the file in which a run with an image of that lock records its image's id: a run that
    was begun goes on in the very same image. Raises MachineFault where select_runner does, UsageError for a
    lock that is not the manifest's, for a profile that needs more GPUs than there are, and where the image of
    a run that was begun is missing.
    """
    present, lock = len(gpus()), None
    if present < limits.gpus:
        raise UsageError(
            f"this profile needs {limits.gpus} GPUs, found {present}",
            hint="--profile pocket runs anywhere, with --data on any dataset",
        )

    def find_or_build(client: docker.DockerClient, name: str) -> str:
        nonlocal lock
        lock = require_lock(manifest, name)
        recorded_in = begun_in and begun_in(lock)
        if recorded_in is not None and (begun := begun_image(recorded_in)) is not None:
            return build.require_image(client, begun, lock, recorded_in)
        if (found := build.find(client, name)) is not None:
            return found
        display.say(
            f"image {name} is not built yet: building it now (once; `pgolf image build {name}` does the same)"
        )
        return build.build(name, log=display.say)

    return Preflight(select_runner(wanted, limits, display.say, find_or_build), lock)


def require_disk_room(plan: Plan, folder: RunFolder, n_seeds: int) -> None:
    """Raises MachineFault where a disk has less room than the training of so many seeds may need.

    An estimate from the contestant's number of parameters: NUMBER_BYTES each in a checkpoint, 4 bytes a
    scored token, and what log and artifact may take.
    """
    if n_seeds == 0:
        return
    parameters = stored_plan.read(folder).claims.parameters
    stage = NUMBER_BYTES * parameters + plan.limits.counted_bytes + plan.limits.log_bytes
    seed = stage + 4 * plan.dataset.validation_tokens_total
    require_room({folder.path: n_seeds * seed, temporary_root(): stage})


def require_lock(manifest: Manifest, name: str) -> str:
    """The image lock's hash. Raises UsageError where it is not the one that the manifest names."""
    lock = f"sha256:{build.lock_sha256(name)}"
    named = getattr(manifest.image, name)
    if named != lock:
        raise UsageError(
            f"manifest {manifest.name} names image lock {named} for {name}, images/{name} has {lock}",
            hint="another environment is another submission: check out its images/, or declare the new lock",
        )
    return lock
