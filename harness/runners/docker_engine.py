"""Connect to the container engine, read its streams, and remove what dead runs left in it."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import psutil
import requests
from docker.models.containers import Container

from harness.base.errors import MachineFault
from harness.runners.owner_lock import is_dead

LABEL = "pgolf.owner"
"""On every container and volume of a run: the path of its owner's lock file (owner_lock.py)."""
API_SECONDS = 60
CONFLICT_STATUS = 409
"""The engine's HTTP status for something that is in use, or that somebody else is removing already."""
TAR_END_BYTES = 1024
"""A complete tar archive ends in two 512-byte blocks of zeros."""


def connect() -> docker.DockerClient | None:
    """A client of this machine's container engine, or None if no engine answers."""
    try:
        client = docker.from_env(timeout=API_SECONDS)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException):
        return None
    return client


@contextmanager
def engine_faults(doing: str) -> Iterator[None]:
    """Turns a failure of the engine into a MachineFault: it is never the contestant's fault."""
    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise MachineFault(
            f"the container engine failed while {doing}: {error}",
            hint="start the engine again and repeat the command: finished stages are kept",
        ) from error


def reap(client: docker.DockerClient) -> int:
    """Removes the containers and volumes of dead runs and returns how many; those of a living run
    are not touched.
    """
    with engine_faults("looking for what a dead run left"):
        count, cleared = remove_owned(client, is_dead)
    for path in cleared:
        path.unlink(missing_ok=True)
    return count


def remove_owned(client: docker.DockerClient, selected: Callable[[Path], bool]) -> tuple[int, set[Path]]:
    """Removes all containers and volumes of the owners (lock file paths) that `selected` accepts.

    Returns the number removed, and the owners of whom nothing is left. Uses only the engine's lists and no
    further lookup of a single container, because another run may remove it in between.
    """
    api, count = client.api, 0
    cleared, kept = set[Path](), set[Path]()
    containers = [
        (found["Labels"], api.remove_container, found["Id"])
        for found in api.containers(all=True, filters={"label": LABEL})
    ]
    volumes = [
        (found["Labels"], api.remove_volume, found["Name"])
        for found in api.volumes(filters={"label": LABEL})["Volumes"] or []
    ]
    for labels, remove, name in containers + volumes:
        owner = Path(labels[LABEL])
        if not selected(owner):
            continue
        cleared.add(owner)
        try:
            ignore_missing(remove, name, force=True)
            count += 1
        except docker.errors.APIError as error:
            if error.status_code != CONFLICT_STATUS:
                raise
            kept.add(owner)  # another run is removing it right now
    return count, cleared - kept


def container_cpu_seconds(container: Container) -> float | None:
    """CPU seconds of all processes of a container, as the engine reads them from its cgroup (v1 and v2).

    None once it has exited, for then the engine reports 0, and where the engine does not answer.
    """
    try:
        answer = container.client.api.stats(container.id, stream=False, one_shot=True)
        nanoseconds = answer["cpu_stats"]["cpu_usage"]["total_usage"]
    except (docker.errors.DockerException, requests.RequestException, LookupError, TypeError):
        return None
    return nanoseconds / 1e9 if nanoseconds else None


def is_this_machine(client: docker.DockerClient) -> bool:
    """Whether the engine runs on this machine and kernel, judged by the exact size of the memory."""
    try:
        facts = client.info()
    except (docker.errors.DockerException, requests.RequestException):
        return False
    ours = (platform.release(), psutil.virtual_memory().total)
    return (facts.get("KernelVersion"), facts.get("MemTotal")) == ours


def ignore_missing(remove: Callable[..., Any], *arguments: str, **options: bool) -> None:
    """Calls `remove`; something that no longer exists is no error."""
    try:
        remove(*arguments, **options)
    except docker.errors.NotFound:
        pass


class StreamReader(io.RawIOBase):
    """The engine's stream of byte chunks as a readable file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.rest, self.tail = iter(chunks), b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self.rest or (size < 0):
            chunk = next(self.chunks, b"")
            if not chunk:
                break
            self.rest += chunk
            self.tail = (self.tail + chunk)[-TAR_END_BYTES:]
        taken, self.rest = (self.rest, b"") if size < 0 else (self.rest[:size], self.rest[size:])
        return taken

    def ends_like_a_tar(self) -> bool:
        """Reads to the end; returns whether the stream closed with a tar archive's end marker."""
        while self.read(1 << 20):
            pass
        return self.tail == bytes(TAR_END_BYTES)
