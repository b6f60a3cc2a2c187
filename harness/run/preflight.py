"""Choosing what a run stands on: dataset, runner and image, never in silence.

The dataset is `--data`, or the profile's own. The runner is docker where an engine answers, local where none
does; an engine without the image builds it or says how, and never falls back to the local runner. Not
covered: the run (run.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from harness.base.errors import MachineFault, UsageError
from harness.base.host import gpus
from harness.base.paths import home
from harness.base.progress import ProgressDisplay
from harness.data import pocket
from harness.data.dataset import Dataset
from harness.edition import Limits
from harness.run.submission import Manifest
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.images import build
from harness.runners.local import LocalRunner

RunnerName = Literal["docker", "local"]


class Preflight(NamedTuple):
    """A runner, and the lock of the image that it uses."""

    runner: Runner
    image_lock: str | None


def choose_dataset(data: Path | None, profile: str, variant: str, progress: ProgressDisplay) -> Dataset:
    """The dataset of a run, checked against its own hashes.

    Raises UsageError when there is none, with the command that makes it.
    """
    if data is not None:
        folder = data
    elif profile == "pocket":
        folder = home() / "datasets" / "pocket"
        if not (folder / "dataset.json").exists():
            with progress.stage("prepare the pocket dataset") as report:
                pocket.prepare(folder, progress=report)
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
    with progress.stage("verify the dataset") as report:
        dataset.verify(report)
    return dataset


def choose_runner(
    wanted: RunnerName | None, manifest: Manifest, limits: Limits, progress: ProgressDisplay
) -> Preflight:
    """The runner that was asked for, or docker where an engine answers, or local.

    Raises MachineFault when docker was asked for and no engine answers, UsageError for a lock that is not the
    manifest's or a profile that needs GPUs which are not here.
    """
    present = len(gpus())
    if present < limits.gpus:
        raise UsageError(
            f"this profile needs {limits.gpus} GPUs, found {present}",
            hint="--profile pocket runs anywhere, with --data on any dataset",
        )
    client = None if wanted == "local" else docker_engine.connect()
    if client is None:
        if wanted == "docker":
            raise MachineFault(
                "no container engine answers", hint="start it (dockerd), or say --runner local"
            )
        progress.say(
            "no container engine: the local runner limits the contestant but does not isolate it"
            if wanted is None
            else "local runner: isolation none, as asked"
        )
        return Preflight(LocalRunner(), None)
    name = "cuda" if limits.gpus else "cpu"
    lock = require_lock(manifest, name)
    image_id = build.find(client, name)
    if image_id is None:
        progress.say(
            f"image {name} is not built yet: building it now (once; `pgolf image build {name}` does the same)"
        )
        image_id = build.build(name, log=progress.say)
    runner = DockerRunner(client, image_id)
    if runner.reaped:
        progress.say(f"removed {runner.reaped} containers and volumes that a dead run had left")
    return Preflight(runner, lock)


def require_lock(manifest: Manifest, name: str) -> str:
    """The image lock's hash. Raises UsageError when it is not the one that the manifest names."""
    lock = f"sha256:{build.lock_sha256(name)}"
    named = getattr(manifest.image, name)
    if named != lock:
        raise UsageError(
            f"manifest {manifest.name} names image lock {named} for {name}, images/{name} has {lock}",
            hint="another environment is another submission: check out its images/, or declare the new lock",
        )
    return lock
