"""Connect to the container engine, read its streams, and remove what dead runs left in it."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import docker
import docker.errors
import docker.utils
import psutil
import requests
from docker.context import ContextAPI
from docker.models.containers import Container
from docker.utils.config import find_config_file

from harness.base.errors import MachineFault, UsageError
from harness.base.files import read_bounded
from harness.base.text import plain, quote
from harness.runners.engine_errors import explain, explain_connection
from harness.runners.owner_lock import is_dead

LABEL = "pgolf.owner"
"""On every container and volume of a run: the path of its owner's lock file (owner_lock.py)."""
API_SECONDS = 60
CONFLICT_STATUS = 409
"""The engine's HTTP status for something that is in use, or that somebody else is removing already."""
ENFORCED = {"MemoryLimit": "memory", "PidsLimit": "number of processes"}
"""What the engine says of itself -> the limit that it enforces if so."""
TAR_END_BYTES = 1024
"""A complete tar archive ends in two 512-byte blocks of zeros."""
DEFAULT_SOCKET = "/var/run/docker.sock"
MAX_CONFIGURATION_BYTES = 1 << 20
ODD_CONFIGURATION = (AttributeError, LookupError, TypeError, RecursionError, UsageError)
"""What docker-py raises by accident for a configuration of valid JSON with values of other types or too deep,
and what `_read_configuration` raises for one that is no regular file.
"""


class NoEngine(MachineFault):
    """No container engine answers; the message says why.

    `required`: an environment variable names the engine, so that nothing may replace it. `absent`: there is
    no engine on this machine, as far as anybody said.
    """

    def __init__(self, message: str, *, hint: str, required: bool, absent: bool) -> None:
        super().__init__(message, hint=hint)
        self.required, self.absent = required, absent


class Address(NamedTuple):
    """Where the engine listens, and what says so."""

    url: str
    named_by: str
    """DOCKER_HOST, or a context of docker; empty for the default socket."""
    required: bool
    """Whether an environment variable names it."""
    arguments: dict[str, Any]
    """What docker-py is given: `base_url`, and `tls` where it is used."""


def connect(timeout: float = API_SECONDS) -> docker.DockerClient:
    """A client of the container engine. Raises NoEngine, which says why none answers."""
    address = engine_address()
    try:
        _check_configuration()
        if docker.utils.parse_host(address.url).startswith("npipe:"):
            raise docker.errors.DockerException("named pipes exist on Windows only")
        client = docker.DockerClient(**address.arguments, timeout=timeout)
        client.ping()
    except ODD_CONFIGURATION as error:
        raise _odd_configuration(address.required) from error
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        if isinstance(error.__cause__, ODD_CONFIGURATION):
            raise _odd_configuration(address.required) from error
        message, hint = explain_connection(error, address.url, address.named_by)
        absent = not address.named_by and not os.path.lexists(DEFAULT_SOCKET)
        raise NoEngine(message, hint=hint, required=address.required, absent=absent) from error
    return client


def engine_address() -> Address:
    """DOCKER_HOST (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH), else the context that DOCKER_CONTEXT or
    docker's own configuration names, else the default socket.

    Raises NoEngine for certificates, a configuration and contexts that cannot be read.
    """
    if host := os.environ.get("DOCKER_HOST"):
        return _named_host(host)
    variable = os.environ.get("DOCKER_CONTEXT")
    name = variable or _configured_context() or "default"
    if not isinstance(name, str):
        raise _odd_configuration(required=False)
    if name != "default":
        return _named_context(name, required=bool(variable))
    url = f"unix://{DEFAULT_SOCKET}"
    return Address(url, "", False, {"base_url": url})


def _configured_context() -> object:
    """The context that docker's configuration names, or None. Raises NoEngine for a file that cannot be read,
    which docker-py would ignore. An empty file names nothing, as for docker itself.
    """
    try:
        return _read_configuration().get("currentContext")
    except (OSError, ValueError, *ODD_CONFIGURATION) as error:
        raise _odd_configuration(required=False) from error


def _check_configuration() -> None:
    """Raises one of ODD_CONFIGURATION for a configuration that docker-py would read without an end, and for
    detachKeys that are no text, which it would hand to the engine. Does nothing for one that cannot be read
    or is not JSON: docker-py ignores it.
    """
    with suppress(OSError, ValueError):
        if not isinstance(_read_configuration().get("detachKeys"), str | None):
            raise TypeError("detachKeys is no text")


def _read_configuration() -> Any:
    """The JSON value in docker's configuration, a file or a link to one. An empty object where there is none,
    and for the older .dockercfg, which knows no contexts.

    Raises UsageError for something else than a regular file of at most MAX_CONFIGURATION_BYTES, which
    docker-py would read without an end; OSError, ValueError or RecursionError for one that cannot be read.
    """
    found = find_config_file()
    if found is None:
        return {}
    content = read_bounded(Path(found).resolve(), MAX_CONFIGURATION_BYTES)
    return json.loads(content.strip() or b"{}") if Path(found).name == "config.json" else {}


def _named_host(host: str) -> Address:
    named_by = "DOCKER_HOST"
    try:
        return Address(host, named_by, True, docker.utils.kwargs_from_env())
    except (docker.errors.DockerException, OSError) as error:
        message, hint = explain_connection(error, host, named_by)
        raise NoEngine(message, hint=hint, required=True, absent=False) from error


def _odd_configuration(required: bool) -> NoEngine:
    return NoEngine(
        f"docker's configuration {plain(str(find_config_file()))} cannot be used: expected a regular file "
        "with a JSON object whose settings have the types that docker writes",
        hint="correct the file, or name another folder in DOCKER_CONFIG",
        required=required,
        absent=False,
    )


def _named_context(name: str, required: bool) -> Address:
    named_by, hint = f"docker context {quote(name)}", "`docker context ls` lists the contexts that there are"
    try:
        arguments = ContextAPI.kwargs_from_context(name)
    except Exception as error:  # docker-py raises a bare Exception for a context that it cannot read
        message = f"{named_by} cannot be read: {quote(str(error))}"
        raise NoEngine(message, hint=hint, required=required, absent=False) from error
    if not arguments:
        message = f"{named_by} does not exist, or names no engine"
        raise NoEngine(message, hint=hint, required=required, absent=False)
    return Address(arguments["base_url"], named_by, required, arguments)


def require_limits(client: docker.DockerClient) -> None:
    """Raises MachineFault for an engine that would drop a limit of the stages with no more than a warning."""
    with engine_faults("asking the engine which limits it enforces"):
        facts = client.info()
    if missing := [words for key, words in ENFORCED.items() if facts.get(key) is False]:
        raise MachineFault(
            f"the container engine does not limit the {' and the '.join(missing)} of a container",
            hint="its kernel or its rootless set-up hands it no control group for that: use cgroup v2 with "
            "delegation, or an engine that root runs; or --runner local",
        )


@contextmanager
def engine_faults(doing: str) -> Iterator[None]:
    """Turns a failure of the engine, or of this machine's files, into a MachineFault with the hint that fits:
    it is never the contestant's fault.
    """
    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        message, hint = explain(error)
        raise MachineFault(f"{doing}: {message}", hint=hint) from error


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
