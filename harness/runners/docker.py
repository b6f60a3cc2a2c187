"""The `docker` runner: each stage runs in its own container and can reach only its socket, /in and /out.

No network, read-only root, no capabilities, no new privileges, the engine's default seccomp profile, an
unprivileged user, limits on memory, processes, /dev/shm, scratch and output. /out is a tmpfs volume of
bounded size. An idle second container keeps that volume mounted, because a tmpfs disappears with the
last container that mounts it. This run removes its containers and the volume; after `kill -9` the next
run does (owner_lock.py).
Not covered: side channels between two containers of one machine, and a kernel that fails to isolate.
"""

from __future__ import annotations

import contextlib
import functools
import tarfile
import threading
import time
import uuid
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
from harness.runners.base import StageSpec, contestant_environment
from harness.runners.clear_caches import SCRIPT
from harness.runners.collect import collect, walk_tar
from harness.runners.docker_engine import (
    LABEL,
    StreamReader,
    container_cpu_seconds,
    engine_faults,
    ignore_missing,
    is_this_machine,
    reap,
    remove_owned,
    require_limits,
)
from harness.runners.engine_errors import explain, hint_of
from harness.runners.log_pump import LogPump
from harness.runners.owner_lock import OwnerLock
from harness.runners.staging import Staging

ISOLATION_OPTIONS: dict[str, Any] = {
    "user": "10001:10001",
    "network_mode": "none",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
"""How every container of a run is isolated."""
STOP_SECONDS = 10
POLL_SECONDS = 0.1
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
        require_limits(client)
        self.owner_lock = OwnerLock()
        self.reaped = reap(client)

    def start(self, spec: StageSpec) -> DockerStage:
        with engine_faults(f"starting stage {spec.stage}"):
            return DockerStage(self.client, self.image, self.owner_lock, spec)

    def clear_channels(self, limits: Limits) -> str:
        """Runs clear_caches.py's script in a container of the image. Raises MachineFault if it fails."""
        with engine_faults("clearing what scorer and witness share"):
            container = self.client.containers.create(
                self.image,
                ["python3", "-c", SCRIPT, str(limits.gpus)],
                labels={LABEL: str(self.owner_lock.path)},
                device_requests=_gpu_requests(limits.gpus),
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


def _gpu_requests(n_gpus: int) -> list[DeviceRequest] | None:
    return [DeviceRequest(count=n_gpus, capabilities=[["gpu"]])] if n_gpus else None


class DockerStage:
    """One contestant in its container, a volume for its /out, and an idle container that holds the volume."""

    def __init__(
        self, client: docker.DockerClient, image: str, owner_lock: OwnerLock, spec: StageSpec
    ) -> None:
        self.client, self.spec, self.image = client, spec, image
        self.staging = Staging(spec)
        self.listener = self.staging.listener
        self.out = "/out"
        self.labels = {LABEL: str(owner_lock.path), "pgolf.run": spec.run_id, "pgolf.stage": spec.stage}
        self.containers: list[Container] = []
        self.volume: Any = None
        self.exit_state: dict[str, Any] | None = None
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
        common = {"image": self.image, "labels": self.labels, "detach": True, **ISOLATION_OPTIONS}
        self.volume_holder = self.client.containers.create(
            command=["sleep", "infinity"],
            mounts=[out],
            pids_limit=16,
            mem_limit="64m",
            name=f"{name}-out",
            **common,
        )
        self.containers.append(self.volume_holder)
        self.volume_holder.start()
        # exec, because GPU kernels compiled at run time are loaded from there
        scratch = f"size={limits.scratch_bytes},mode=1777,exec"
        memory = min(limits.memory_bytes, psutil.virtual_memory().total)
        self.container = self.client.containers.create(
            command=self.spec.argv("python3", self.inside),
            environment=contestant_environment(self.spec, "/run/pgolf/s", "/tmp", psutil.cpu_count() or 1),
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
            device_requests=_gpu_requests(self.spec.gpus),
            **common,
        )
        self.containers.append(self.container)
        output = self.container.attach(stdout=True, stderr=True, stream=True, logs=False)
        self.pump = LogPump(StreamReader(output), self.spec.log, limits.log_bytes)  # type: ignore[arg-type]
        self.pump.start()
        self.started = time.monotonic()
        self.container.start()
        threading.Thread(target=self._wait_for_exit, daemon=True, name="container end").start()

    def _wait_for_exit(self) -> None:
        """Blocks until the container exits. If the call to the engine breaks off, the engine
        itself is gone.
        """
        try:
            self.container.wait(timeout=None)
            self.container.reload()
            self.exit_state = self.container.attrs["State"]
        except docker.errors.NotFound:
            pass  # we removed it
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.engine_error = error

    def inside(self, name: str) -> str:
        return f"/in/{name}"

    def watch(self) -> None:
        if self.engine_error is not None:
            message, hint = explain(self.engine_error)
            raise MachineFault(f"stage {self.spec.stage}: {message}", hint=hint)
        self.pump.check()
        if self.exit_state is not None:
            raise self._exit_error(self.exit_state)

    def _exit_error(self, state: dict[str, Any]) -> HarnessError:
        """The error that explains why the container exited."""
        stage = self.spec.stage
        if state.get("OOMKilled"):
            return Violation(
                "memory",
                f"killed in stage {stage} for taking more than {self.spec.limits.memory_bytes:,} "
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
                f"the engine could not run stage {stage}: {state['Error']}", hint=hint_of(state["Error"])
            )
        return Violation(
            "contestant", f"the contestant ended in stage {stage} with exit code {state.get('ExitCode')}"
        )

    def _out_is_full(self) -> bool:
        """Whether /out has no free blocks or inodes. Asks the idle container, which still has
        the volume mounted.
        """
        with engine_faults("measuring /out"):
            code, output = self.volume_holder.exec_run(["stat", "-f", "-c", "%f %d", "/out"])
        free = output.decode("ascii", "replace").split()
        return code == 0 and "0" in free

    def cpu_seconds(self) -> float | None:
        return container_cpu_seconds(self.container) if self.on_this_machine else None

    @functools.cached_property
    def on_this_machine(self) -> bool:
        """Whether the engine shares this machine's cores, which are what CPU seconds are compared with."""
        return is_this_machine(self.client)

    def freeze(self) -> None:
        """Pauses the container. Retries for a while, because a container that is just exiting refuses to be
        paused before it is listed as exited.
        """
        deadline = time.monotonic() + STOP_SECONDS
        with engine_faults("freezing a container"):
            while True:
                try:
                    self.container.pause()
                    return
                except docker.errors.APIError:
                    self.container.reload()
                    if self.container.status in ("exited", "dead", "paused"):
                        return
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_SECONDS)

    def collect(self, destination: Path) -> None:
        with engine_faults("copying /out"):
            stream, _ = self.volume_holder.get_archive("/out", chunk_size=1 << 20)
            # Close an archive that is refused half-way: until then the engine holds the container's lock
            with contextlib.closing(stream):
                reader = StreamReader(stream)
                limits = self.spec.limits
                try:
                    with tarfile.open(fileobj=reader, mode="r|") as archive:
                        collect(walk_tar(archive, "out"), destination, self.spec.out_bytes, limits.out_files)
                except tarfile.TarError as error:
                    raise OSError(f"the archive of /out broke off ({error})") from error
                if not reader.ends_like_a_tar():  # a stream cut between two files looks complete otherwise
                    raise OSError("the archive of /out came without its end")

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.exit_state is None and self.engine_error is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._remove()
        self.pump.join(STOP_SECONDS)
        if error[0] is None:
            self.pump.check()

    def _remove(self) -> None:
        """Removes everything. What a dead engine keeps, the next run removes (docker_engine.reap)."""
        try:
            for container in reversed(self.containers):
                ignore_missing(container.remove, force=True, v=True)
            if self.volume is not None:
                ignore_missing(self.volume.remove, force=True)
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.engine_error = self.engine_error or error
        finally:
            self.staging.remove()
