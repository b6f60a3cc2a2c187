"""The `docker` runner: each stage in a container of its own, with nothing in reach but its socket, /in and
/out.

No network, read-only root, no capabilities, no new privileges, the engine's default seccomp profile, a user
without rights, limits on memory, processes, /dev/shm, scratch and output. /out is a tmpfs volume of bounded
size; an idle container holds it, since a tmpfs is gone with the last container that mounts it. Whatever
happens the containers and the volume are removed: by this run, or after `kill -9` by the next (owner.py). Not
covered: side channels between two containers of one machine, and a kernel that fails to isolate."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import docker
import docker.errors
import psutil
import requests
from docker.models.containers import Container
from docker.types import DeviceRequest, Mount

from harness.base.errors import HarnessError, MachineFault, Violation
from harness.edition import Limits
from harness.runners.base import LogPump, StageSpec, Staging, environment
from harness.runners.clear_caches import SCRIPT
from harness.runners.collect import collect, walk_tar
from harness.runners.owner_lock import OwnerLock, is_dead

USER = "10001:10001"
LABEL = "pgolf.owner"
STOP_SECONDS = 10
POLL_SECONDS = 0.1
API_SECONDS, CLEAR_SECONDS = 60, 300
IN_PROGRESS = 409
"""The engine's status for a thing that is in use, or that somebody is removing already."""
TAR_END_BYTES = 1024
"""A complete archive ends in two blocks of zeros."""


def connect() -> docker.DockerClient | None:
    """The engine that answers here, or None."""
    try:
        client = docker.from_env(timeout=API_SECONDS)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException):
        return None
    return client


@contextmanager
def engine_faults(what: str) -> Iterator[None]:
    """Failures of the engine are the machine's, never the contestant's."""
    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise MachineFault(
            f"the container engine failed while {what}: {error}",
            hint="start the engine again and repeat the command: finished stages are kept",
        ) from error


class DockerRunner:
    name = "docker"
    isolation = (
        "container: no network, read-only root, no capabilities, no new privileges, default seccomp profile, "
        "user 10001, bounded memory, processes, scratch and output"
    )
    isolated = True

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self.client, self.image = client, image
        self.owner = OwnerLock()
        self.reaped = reap(client)

    def start(self, spec: StageSpec) -> DockerStage:
        with engine_faults(f"starting stage {spec.stage}"):
            return DockerStage(self.client, self.image, self.owner, spec)

    def clear_channels(self, limits: Limits) -> str:
        """Page cache and GPU memory, by a container of the same image (clearing.py). Raises MachineFault
        where it fails."""
        gpus = [DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])] if limits.gpus else None
        with engine_faults("clearing what scorer and witness share"):
            container = self.client.containers.create(
                self.image,
                ["python3", "-c", SCRIPT, str(limits.gpus)],
                user=USER,
                labels={LABEL: str(self.owner.path)},
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                device_requests=gpus,
                tmpfs={"/tmp": "size=64m"},
                environment={"HOME": "/tmp"},
                log_config={"type": "none"},
            )
            try:
                output = container.attach(stdout=True, stderr=True, stream=True, logs=False)
                container.start()
                code = container.wait(timeout=CLEAR_SECONDS)["StatusCode"]
                said = b"".join(output).decode("ascii", "replace")
            finally:
                _quietly(container.remove, force=True)
        if code or not said:
            raise MachineFault(
                f"clearing what scorer and witness share ended with exit code {code}: "
                f"{said[-300:] or 'no word'}",
                hint="does the image hold python3, and on GPUs a torch that sees them?",
            )
        return said

    def close(self) -> None:
        """Lets go of the lock. Its file stays where something could not be removed: the next run knows it by
        that."""
        try:
            clear(self.client, self.owner.path.__eq__)
            left = self.client.api.containers(all=True, filters={"label": f"{LABEL}={self.owner.path}"})
            left += self.client.api.volumes(filters={"label": f"{LABEL}={self.owner.path}"})["Volumes"] or []
        except (docker.errors.DockerException, requests.RequestException, OSError):
            left = [None]
        self.owner.release(keep_file=bool(left))


def reap(client: docker.DockerClient) -> int:
    """Removes containers and volumes whose owner is dead; returns how many. A living run's are never
    touched."""
    with engine_faults("looking for what a dead run left"):
        count, cleared = clear(client, is_dead)
    for path in cleared:
        path.unlink(missing_ok=True)
    return count


def clear(client: docker.DockerClient, chosen: Callable[[Path], bool]) -> tuple[int, set[Path]]:
    """Removes what belongs to the chosen owners. Returns how many things, and the owners of whom nothing is
    left.

    Reads the engine's lists alone: what another run removes between a list and a closer look is no error.
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
        if not chosen(owner):
            continue
        cleared.add(owner)
        try:
            _quietly(remove, name, force=True)
            count += 1
        except docker.errors.APIError as error:
            if error.status_code != IN_PROGRESS:
                raise
            kept.add(owner)  # another run is removing it at this moment
    return count, cleared - kept


def _quietly(remove: Callable[..., Any], *what: str, **options: bool) -> None:
    """For removals: what is gone already needs no removing."""
    try:
        remove(*what, **options)
    except docker.errors.NotFound:
        pass


class DockerStage:
    """One contestant in its container, the volume for its /out, and the idle container that holds the
    volume."""

    def __init__(self, client: docker.DockerClient, image: str, owner: OwnerLock, spec: StageSpec) -> None:
        self.client, self.spec, self.image = client, spec, image
        self.staging = Staging(spec)
        self.listener = self.staging.listener
        self.out = "/out"
        self.labels = {LABEL: str(owner.path), "pgolf.run": spec.run_id, "pgolf.stage": spec.stage}
        self.containers: list[Container] = []
        self.volume: Any = None
        self.ended: dict[str, Any] | None = None
        self.engine_error: Exception | None = None
        try:
            self._create()
        except BaseException:
            self._remove()
            raise

    def _create(self) -> None:
        limits, name = self.spec.limits, f"pgolf-{uuid.uuid4().hex[:16]}"
        size = f"size={self.spec.out_bytes},nr_inodes={4 * limits.out_files},uid=10001,gid=10001,mode=0700"
        self.volume = self.client.volumes.create(
            name,
            driver="local",
            labels=self.labels,
            driver_opts={"type": "tmpfs", "device": "tmpfs", "o": size},
        )
        out = Mount("/out", name, type="volume")
        fence: dict[str, Any] = {
            "image": self.image,
            "labels": self.labels,
            "user": USER,
            "network_mode": "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "detach": True,
        }
        self.holder = self.client.containers.create(
            command=["sleep", "infinity"],
            mounts=[out],
            pids_limit=16,
            mem_limit="64m",
            name=f"{name}-out",
            **fence,
        )
        self.containers.append(self.holder)
        self.holder.start()
        # kernels compiled at run time are loaded from there
        scratch = f"size={limits.scratch_bytes},mode=1777,exec"
        memory = min(limits.memory_bytes, psutil.virtual_memory().total)
        self.container = self.client.containers.create(
            command=self.spec.argv("python3", self.inside),
            environment=environment(self.spec, "/run/pgolf/s", "/tmp", psutil.cpu_count() or 1),
            mounts=[
                out,
                Mount("/in", str(self.staging.inputs), type="bind", read_only=True),
                Mount("/run/pgolf", str(self.staging.run), type="bind", read_only=True),
            ],
            tmpfs={"/tmp": scratch},
            working_dir="/tmp",
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.pids,
            shm_size=limits.shm_bytes,
            log_config={"type": "none"},
            name=name,
            device_requests=[DeviceRequest(count=self.spec.gpus, capabilities=[["gpu"]])]
            if self.spec.gpus
            else None,
            **fence,
        )
        self.containers.append(self.container)
        output = self.container.attach(stdout=True, stderr=True, stream=True, logs=False)
        self.pump = LogPump(_Reader(output), self.spec.log, limits.log_bytes)  # type: ignore[arg-type]
        self.pump.start()
        self.started = time.monotonic()
        self.container.start()
        threading.Thread(target=self._await_end, daemon=True, name="container end").start()

    def _await_end(self) -> None:
        """The engine tells when the container ends; a broken wait means that the engine itself is gone."""
        try:
            self.container.wait(timeout=None)
            self.container.reload()
            self.ended = self.container.attrs["State"]
        except docker.errors.NotFound:
            pass  # removed by us
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.engine_error = error

    def inside(self, name: str) -> str:
        return f"/in/{name}"

    def watch(self) -> None:
        if self.engine_error is not None:
            raise MachineFault(
                f"the container engine went away in stage {self.spec.stage}: {self.engine_error}",
                hint="start the engine again and repeat the command: finished stages are kept",
            )
        self.pump.check()
        if self.ended is not None:
            raise self._post_mortem(self.ended)

    def _post_mortem(self, state: dict[str, Any]) -> HarnessError:
        stage = self.spec.stage
        if state.get("OOMKilled"):
            return Violation(
                "memory",
                f"killed in stage {stage} for taking more than {self.spec.limits.memory_bytes} "
                "bytes of memory (tmpfs included)",
                limit=True,
                hint="smaller micro-batches, or less scratch",
            )
        if self._out_is_full():
            return Violation(
                "output",
                f"/out of stage {stage} is full: at most {self.spec.out_bytes} bytes",
                limit=True,
                hint="only the checkpoint or the artifact belongs there",
            )
        if state.get("Error"):
            return MachineFault(
                f"the engine could not run stage {stage}: {state['Error']}", hint="pgolf doctor"
            )
        return Violation(
            "contestant",
            f"the contestant ended in stage {stage} with exit code {state.get('ExitCode')}",
            hint=f"{self.spec.log.name} in the run folder ends with the reason",
        )

    def _out_is_full(self) -> bool:
        """Asked of the idle container, which alone still holds the volume: free blocks and inodes of /out."""
        with engine_faults("measuring /out"):
            code, output = self.holder.exec_run(["stat", "-f", "-c", "%f %d", "/out"])
        free = output.decode("ascii", "replace").split()
        return code == 0 and "0" in free

    def freeze(self) -> None:
        """Pauses the container. One that is just ending can neither be paused nor has it ended: asked again
        for a while."""
        deadline = time.monotonic() + STOP_SECONDS
        with engine_faults("freezing a container"):
            while True:
                try:
                    self.container.pause()
                    return
                except docker.errors.APIError:
                    self.container.reload()
                    if self.container.status in (
                        "exited",
                        "dead",
                        "paused",
                    ):  # what ended by itself stands still
                        return
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_SECONDS)

    def collect(self, destination: Path) -> None:
        with engine_faults("copying /out"):
            stream, _ = self.holder.get_archive("/out", chunk_size=1 << 20)
            # an archive that is refused half-way must be closed: until then the engine holds the container's
            # lock
            with contextlib.closing(stream):
                reader = _Reader(stream)
                try:
                    with tarfile.open(fileobj=reader, mode="r|") as archive:
                        collect(
                            walk_tar(archive, "out"),
                            destination,
                            self.spec.out_bytes,
                            self.spec.limits.out_files,
                        )
                except tarfile.TarError as error:
                    raise OSError(f"the archive of /out broke off ({error})") from error
                if not reader.ended_with(
                    bytes(TAR_END_BYTES)
                ):  # a stream cut between two files looks whole otherwise
                    raise OSError("the archive of /out came without its end")

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.ended is None and self.engine_error is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._remove()
        self.pump.join(STOP_SECONDS)

    def _remove(self) -> None:
        """Removes everything; a dead engine keeps it until the next run reaps it."""
        try:
            for container in reversed(self.containers):
                _quietly(container.remove, force=True, v=True)
            if self.volume is not None:
                _quietly(self.volume.remove, force=True)
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.engine_error = self.engine_error or error
        finally:
            self.staging.remove()


class _Reader(io.RawIOBase):
    """The engine's stream of byte pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest, self.tail = iter(pieces), b"", b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self.rest or (size < 0):
            piece = next(self.pieces, b"")
            if not piece:
                break
            self.rest += piece
            self.tail = (self.tail + piece)[-TAR_END_BYTES:]
        taken, self.rest = (self.rest, b"") if size < 0 else (self.rest[:size], self.rest[size:])
        return taken

    def ended_with(self, ending: bytes) -> bool:
        """Whether the stream, read to its end, closed with these bytes."""
        while self.read(1 << 20):
            pass
        return self.tail == ending
