"""The environment variables of a contestant's container: the same names as in every other runner."""

from __future__ import annotations

import docker

from harness.base import host
from harness.runners.base import GPU_LIBRARIES, StageSpec, contestant_environment
from harness.runners.docker_folders import SCRATCH

KEPT_OF_IMAGE = ("PATH",)
KEPT_OF_IMAGE_FOR_GPUS = (*KEPT_OF_IMAGE, GPU_LIBRARIES, "NVIDIA_DRIVER_CAPABILITIES")
"""Variables of the image that a contestant keeps, without and with GPUs; all others are removed."""


def container_environment(client: docker.DockerClient, image: str, spec: StageSpec) -> dict[str, str | None]:
    """The variables of a contestant's container. None removes one that the image or the engine would set."""
    kept = KEPT_OF_IMAGE_FOR_GPUS if spec.gpus else KEPT_OF_IMAGE
    of_image = client.images.get(image).attrs["Config"].get("Env") or []
    names = {"HOSTNAME", *(variable.split("=", 1)[0] for variable in of_image)}
    chosen = contestant_environment(spec, "/run/pgolf/s", SCRATCH, host.cores())
    return {**dict.fromkeys(sorted(names.difference(kept))), **chosen}
