"""The `docker` runner: each stage runs in its own container and can reach only its socket, /in and /out.

No network, read-only root, no capabilities, no new privileges, the engine's default seccomp profile, an
unprivileged user, limits on memory, processes, /dev/shm, scratch and output. This run removes its containers
and volumes; after `kill -9` the next run does (owner_lock.py).
Not covered: side channels between two containers of one machine, and a kernel that fails to isolate.
"""

from __future__ import annotations

import docker
import docker.errors
import requests

from harness.base.errors import MachineFault
from harness.base.signals import interrupts_held
from harness.edition import Limits
from harness.runners.base import StageSpec
from harness.runners.clear_caches import SCRIPT
from harness.runners.docker_engine import (
    LABEL,
    engine_faults,
    ignore_missing,
    reap,
    remove_owned,
    require_limits,
)
from harness.runners.docker_isolation import ISOLATION_OPTIONS, gpu_requests
from harness.runners.docker_stage import DockerStage
from harness.runners.images import build
from harness.runners.owner_lock import OwnerLock

CLEAR_SECONDS = 300


class DockerRunner:
    name = "docker"
    isolation = (
        "container: no network, read-only root, no capabilities, no new privileges, default seccomp profile, "
        "user 10001, bounded memory, processes, scratch and output"
    )
    isolated = True

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self.client, self.image = client, image
        with engine_faults("looking for the image"):
            self.image_lacks = build.lacks(client.images.get(image).labels)
        require_limits(client)
        self.owner_lock = OwnerLock()
        self.reaped = reap(client)

    def start(self, spec: StageSpec) -> DockerStage:
        with engine_faults(f"starting stage {spec.stage}"):
            return DockerStage(self.client, self.image, self.owner_lock, spec)

    def clear_channels(self, limits: Limits) -> str:
        """Runs clear_caches.py's script in a container of the image. Raises MachineFault if it fails."""
        with engine_faults("clearing what scorer and witness share"):
            with interrupts_held():
                container = self.client.containers.create(
                    self.image,
                    ["python3", "-c", SCRIPT, str(limits.gpus)],
                    labels={LABEL: str(self.owner_lock.path)},
                    device_requests=gpu_requests(limits.gpus),
                    tmpfs={"/tmp": "size=64m"},
                    environment={"HOME": "/tmp"},
                    log_config={"type": "none"},
                    **ISOLATION_OPTIONS,
                )
            try:
                stream = container.attach(stdout=True, stderr=True, stream=True, logs=False)
                container.start()
                code = container.wait(timeout=CLEAR_SECONDS)["StatusCode"]
                output = b"".join(stream).decode("ascii", "replace")
            finally:
                ignore_missing(container.remove, force=True)
        if code or not output:
            raise MachineFault(
                f"clearing what scorer and witness share ended with exit code {code}: "
                f"{output[-300:] or 'no output'}",
                hint="does the image hold python3, and on GPUs a torch that sees them?",
            )
        return output

    def close(self) -> None:
        """Removes what is left of this run and releases its lock.

        The lock file stays if anything could not be removed: it shows a later run that its owner is dead.
        """
        mine = {"label": f"{LABEL}={self.owner_lock.path}"}
        try:
            remove_owned(self.client, lambda owner: owner == self.owner_lock.path)
            containers = self.client.api.containers(all=True, filters=mine)
            volumes = self.client.api.volumes(filters=mine)["Volumes"] or []
            something_left = bool(containers or volumes)
        except (docker.errors.DockerException, requests.RequestException, OSError):
            something_left = True
        self.owner_lock.release(keep_file=something_left)
