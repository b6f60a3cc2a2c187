"""Select the runner: docker where an engine answers, local where none does, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import docker as engine

from harness.base.errors import MachineFault, UsageError
from harness.base.temporary import remove_abandoned
from harness.base.text import count
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.images import build
from harness.runners.local import LocalRunner

RunnerName = Literal["docker", "local"]
FindImage = Callable[[engine.DockerClient, str], str]
"""The id of the image with a name (cpu or cuda). Raises UsageError where there is none that will do."""


def built_image(client: engine.DockerClient, name: str) -> str:
    """The image built from today's lock. Raises UsageError where it is not built."""
    found = build.find(client, name)
    if found is None:
        raise UsageError(f"image {name} is not built", hint=f"`pgolf image build {name}`, or --runner local")
    return found


def select_runner(
    wanted: RunnerName | None, gpus: int, say: Callable[[str], None], find_image: FindImage = built_image
) -> Runner:
    """The runner, ready to start stages. `say` is told when nothing isolates the contestant.

    `gpus` above 0 takes the cuda image. Raises MachineFault where docker is wanted and no engine answers.
    """
    if (folders := remove_abandoned().folders) > 0:
        say(f"removed {count(folders, 'temporary folder')} that a killed command had left")
    client = None if wanted == "local" else docker_engine.connect()
    if client is None:
        if wanted == "docker":
            raise MachineFault(
                "no container engine answers",
                hint="start it (dockerd); `pgolf run --runner local` and "
                "`pgolf score --runner local` need none",
            )
        say(
            "no container engine: the local runner limits the contestant but does not isolate it"
            if wanted is None
            else "local runner: isolation none, as asked"
        )
        return LocalRunner()
    runner = DockerRunner(client, find_image(client, "cuda" if gpus else "cpu"))
    if runner.reaped:
        say(f"removed {runner.reaped} containers and volumes that a dead run had left")
    return runner
