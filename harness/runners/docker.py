"""The `docker` runner: each stage runs in its own container and can reach only its socket, /in and /out.

No network, read-only root, no capabilities, no new privileges, the engine's default seccomp profile, an
unprivileged user, limits on memory, processes, /dev/shm, scratch and output. /out and /tmp are tmpfs volumes
of bounded size. An idle second container keeps them mounted, because a tmpfs disappears with the last
container that mounts it. This run removes its containers and volumes; after `kill -9` the next run does
(owner_lock.py). The contestant is a child of the engine's init process: as process 1 of its container it
would be immune to its own signals, unlike in the local runner.

A stage in which the kernel killed a process for memory, or refused to start one, is a violation, also where
the contestant went on and the conversation succeeded.
Not covered: side channels between two containers of one machine, and a kernel that fails to isolate. A full
folder that was emptied again before the stage ended, and a full /dev/shm: the contestant alone saw the error.
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
from docker.types import DeviceRequest, Mount, Ulimit

from harness.base.errors import HarnessError, MachineFault, Violation
from harness.edition import Limits
from harness.runners import control_group
from harness.runners.base import SCRATCH_FILES, StageSpec, ended_by_contestant
from harness.runners.clear_caches import SCRIPT
from harness.runners.collect import collect, walk_tar
from harness.runners.control_group import ControlGroup, Counts
from harness.runners.docker_engine import (
    CONFLICT_STATUS,
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
from harness.runners.docker_environment import container_environment
from harness.runners.docker_limits import HELD_SCRATCH, OUT, SCRATCH, full_folder, has_oom_event, over_limit
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
    "ipc_mode": "private",
    "ulimits": [Ulimit(name="core", soft=0, hard=0)],
    "healthcheck": {"test": ["NONE"]},
    "use_config_proxy": False,
}
"""How every container of a run is isolated. The last four replace defaults that come from elsewhere: the
engine's configuration, the image, and the proxies, with their passwords, in the user's ~/.docker/config.json.
"""
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
    """One contestant in its container, the volumes of its /out and /tmp, and an idle container with both."""

    def __init__(
        self, client: docker.DockerClient, image: str, owner_lock: OwnerLock, spec: StageSpec
    ) -> None:
        self.client, self.spec, self.image = client, spec, image
        self.staging = Staging(spec)
        self.listener = self.staging.listener
        self.out = OUT
        self.labels = {LABEL: str(owner_lock.path), "pgolf.run": spec.run_id, "pgolf.stage": spec.stage}
        self.containers: list[Container] = []
        self.volumes: list[Any] = []
        self.group: ControlGroup | None = None
        self.counts: Counts | None = None
        """What the kernel counted when it was last read."""
        self.exit_state: dict[str, Any] | None = None
        self.engine_error: Exception | None = None
        try:
            self._create()
        except BaseException:
            self._remove()
            raise

    def _create(self) -> None:
        limits, name = self.spec.limits, f"pgolf-{uuid.uuid4().hex[:16]}"
        owned_by_contestant = f"nr_inodes={4 * limits.out_files},uid=10001,gid=10001,mode=0700"
        out = self._volume(f"{name}-out", f"size={self.spec.out_bytes},{owned_by_contestant}")
        # executable, because GPU kernels compiled at run time are loaded from there
        scratch = self._volume(
            f"{name}-tmp", f"size={limits.scratch_bytes},nr_inodes={SCRATCH_FILES},mode=1777,nosuid,nodev"
        )
        common = {"image": self.image, "labels": self.labels, "detach": True, **ISOLATION_OPTIONS}
        self.volume_holder = self.client.containers.create(
            command=["sleep", "infinity"],
            mounts=[Mount(OUT, out, type="volume"), Mount(HELD_SCRATCH, scratch, type="volume")],
            pids_limit=16,
            mem_limit="64m",
            name=f"{name}-out",
            **common,
        )
        self.containers.append(self.volume_holder)
        self.volume_holder.start()
        memory = min(limits.memory_bytes, psutil.virtual_memory().total)
        self.container = self.client.containers.create(
            command=self.spec.argv("python3", self.inside),
            environment=container_environment(self.client, self.image, self.spec),
            mounts=[
                Mount(OUT, out, type="volume"),
                Mount(SCRATCH, scratch, type="volume"),
                Mount("/in", str(self.staging.inputs), type="bind", read_only=True),
                Mount("/run/pgolf", str(self.staging.run), type="bind", read_only=True),
            ],
            working_dir=SCRATCH,
            init=True,
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.pids + 1,  # the init process
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
        self.container.reload()
        self.group = control_group.of_container(self.container.attrs["State"]["Pid"], str(self.container.id))
        if self.group is not None:
            threading.Thread(target=self._read_last_counts, daemon=True, name="last counts").start()

    def _volume(self, name: str, options: str) -> str:
        """Makes a tmpfs volume; returns its name."""
        volume = self.client.volumes.create(
            name,
            driver="local",
            labels=self.labels,
            driver_opts={"type": "tmpfs", "device": "tmpfs", "o": options},
        )
        self.volumes.append(volume)
        return name

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
        self._read_counts()
        if (error := self._over_limit()) is not None:
            raise error
        if self.exit_state is not None:
            raise self._exit_error(self.exit_state)

    def _read_counts(self) -> bool:
        """Reads the kernel's counters; returns whether they can be read, which ends with the container."""
        counts = self.group.counts() if self.group is not None else None
        self.counts = counts or self.counts
        return counts is not None

    def _exit_error(self, state: dict[str, Any]) -> HarnessError:
        """The error that explains why the container exited."""
        stage = self.spec.stage
        if (full := full_folder(self.spec, self.volume_holder)) is not None:
            return full
        if state.get("Error"):
            return MachineFault(
                f"the engine could not run stage {stage}: {state['Error']}", hint=hint_of(state["Error"])
            )
        return Violation(
            "contestant", f"the contestant ended in stage {stage} with exit code {state.get('ExitCode')}"
        )

    def _check_at_end(self) -> None:
        """Raises the error for a limit that was exceeded without ending the stage."""
        with engine_faults("asking whether memory ran out"):
            if not self._read_counts():  # the engine tells, once the container has ended
                self._end_container()
                state = self.exit_state
                if state is not None and not state.get("OOMKilled"):
                    state["OOMKilled"] = has_oom_event(self.client, str(self.container.id), state)
        if (error := self._over_limit() or full_folder(self.spec, self.volume_holder)) is not None:
            raise error

    def _read_last_counts(self) -> None:
        assert self.group is not None
        self.group.wait_for_end()
        self._read_counts()

    def _over_limit(self) -> HarnessError | None:
        state = self.exit_state or {}
        return over_limit(self.spec, self.counts, bool(state.get("OOMKilled")))

    def _end_container(self) -> None:
        """Kills the container if it has not ended, and waits for its last state."""
        try:
            self.container.kill()
        except docker.errors.APIError as error:
            if error.status_code != CONFLICT_STATUS:  # it has ended
                raise
        self.wait(STOP_SECONDS)

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
            self._read_counts()
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if ended_by_contestant(error[1]):
                self._check_at_end()
        finally:
            self._remove()
            self.pump.join(STOP_SECONDS)
        if error[0] is None:
            self.pump.check()

    def _remove(self) -> None:
        """Removes everything. What a dead engine keeps, the next run removes (docker_engine.reap)."""
        try:
            for container in reversed(self.containers):
                ignore_missing(container.remove, force=True, v=True)
            for volume in self.volumes:
                ignore_missing(volume.remove, force=True)
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.engine_error = self.engine_error or error
        finally:
            self.staging.remove()
