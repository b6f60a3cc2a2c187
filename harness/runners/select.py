"""Select the runner: the one that was asked for, else docker where an engine answers, else local.

An engine that DOCKER_HOST or DOCKER_CONTEXT names must answer: nothing replaces it but --runner local.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import docker as engine

from harness.base.errors import MachineFault, UsageError
from harness.base.temporary import remove_abandoned
from harness.base.text import count
from harness.edition import Limits
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.docker_engine import NoEngine, engine_faults
from harness.runners.images import build
from harness.runners.local import LocalRunner
from harness.runners.probe_stage import probe_stage

RunnerName = Literal["docker", "local"]
FindImage = Callable[[engine.DockerClient, str], str]
"""The id of the image with a name (cpu or cuda). Raises UsageError where there is none that will do."""


def built_image(client: engine.DockerClient, name: str) -> str:
    """The image built from today's lock. Raises UsageError where it is not built."""
    found = build.find(client, name)
    if found is None:
        hint = f"`pgolf image build {name}`, or --runner local"
        if (untagged := build.find_untagged(client, name)) is not None:
            loaded = f"`docker tag {untagged} pgolf-{name}:loaded`"
            hint += f"; or, if another engine's whole image was loaded here without a tag, {loaded}"
        raise UsageError(f"image {name} is not built", hint=hint)
    return found


def select_runner(
    wanted: RunnerName | None, limits: Limits, say: Callable[[str], None], find_image: FindImage = built_image
) -> Runner:
    """The runner, after a stage that probes it (probe_stage.py). `say` is told when nothing isolates the
    contestant, and why.

    GPUs in `limits` take the cuda image. Raises MachineFault where docker is wanted, or an engine is named by
    DOCKER_HOST or DOCKER_CONTEXT, and no engine answers; and where a stage cannot do what every stage must.
    """
    if (folders := remove_abandoned().folders) > 0:
        say(f"removed {count(folders, 'temporary folder')} that a killed command had left")
    runner = _choose(wanted, limits, say, find_image)
    try:
        probe_stage(runner, limits)
    except BaseException:
        runner.close()
        raise
    return runner


def _choose(
    wanted: RunnerName | None, limits: Limits, say: Callable[[str], None], find_image: FindImage
) -> Runner:
    """The wanted runner, or docker where an engine answers, else local with the reason."""
    if wanted == "local":
        say("local runner: isolation none, as asked")
        return LocalRunner("--runner local was asked for")
    try:
        client = docker_engine.connect()
    except NoEngine as error:
        if wanted == "docker":
            raise
        if error.required:
            raise MachineFault(
                error.message, hint=f"{error.hint}; or --runner local, which needs none and isolates nothing"
            ) from error
        reason = "no container engine" if error.absent else f"{error.message} ({error.hint})"
        say(f"{reason}: the local runner limits the contestant but does not isolate it")
        return LocalRunner("there is no container engine here" if error.absent else error.message)
    with engine_faults("looking for the image"):
        image = find_image(client, "cuda" if limits.gpus else "cpu")
    runner = DockerRunner(client, image)
    if runner.image_lacks:
        say(
            f"the image is one without {', '.join(runner.image_lacks)}, which its lock pins: no whole one is "
            "built, and the verdict will say so"
        )
    if runner.reaped:
        say(f"removed {runner.reaped} containers and volumes that a dead run had left")
    return runner
