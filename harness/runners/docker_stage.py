"""One stage of the docker runner: a contestant in its container, watched until it ends.

The contestant is a child of the engine's init process: as process 1 of its container it would be immune to
its own signals, unlike in the local runner. Its folders are docker_folders.py's.
A stage in which the kernel killed a process for memory, or refused to start one, is a violation, also where
the contestant went on and the conversation succeeded.
Not covered: a full folder that was emptied again before the stage ended, and a full /dev/shm: the contestant
alone saw the error.
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
import requests
from docker.models.containers import Container
from docker.types import Mount

from harness.base.errors import HarnessError, MachineFault, Violation
from harness.base.signals import interrupts_held
from harness.base.text import quote
from harness.runners import control_group
from harness.runners.base import StageSpec, ended_by_contestant
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
)
from harness.runners.docker_environment import container_environment
from harness.runners.docker_folders import OUT, SCRATCH, DockerFolders
from harness.runners.docker_isolation import ISOLATION_OPTIONS, gpu_requests
from harness.runners.docker_limits import has_oom_event, memory_limit, over_limit
from harness.runners.engine_errors import NO_PROGRAM, explain, hint_of
from harness.runners.log_pump import LogPump
from harness.runners.owner_lock import OwnerLock
from harness.runners.staging import Staging

PYTHON = "python3"
STOP_SECONDS = 10
POLL_SECONDS = 0.1
OOM_EVENT_SECONDS = 2.0
"""How long the engine may take to tell that memory ran out, once the kernel has killed a process."""
NOT_STARTED = (126, 127)
"""Exit codes of the engine's init process where it cannot start the program, or finds none."""


class DockerStage:
    """One contestant in its container."""

    def __init__(
        self, client: docker.DockerClient, image: str, owner_lock: OwnerLock, spec: StageSpec
    ) -> None:
        self.client, self.spec, self.image = client, spec, image
        self.staging = Staging(spec)
        self.listener = self.staging.listener
        self.out = OUT
        self.labels = {LABEL: str(owner_lock.path), "pgolf.run": spec.run_id, "pgolf.stage": spec.stage}
        self.name = f"pgolf-{uuid.uuid4().hex[:16]}"
        self.folders = DockerFolders(client, image, spec, self.labels, self.name)
        self.containers: list[Container] = []
        self.group: ControlGroup | None = None
        self.counts: Counts | None = None
        """What the kernel counted when it was last read."""
        self.oom_killed = False
        """Whether the engine says that memory ran out in the container."""
        self.exit_state: dict[str, Any] | None = None
        self.engine_error: Exception | None = None
        try:
            # What the engine is still making when an interrupted request is given up, nobody would remove
            with interrupts_held():
                self._create()
        except BaseException:
            self._remove()
            raise

    def _create(self) -> None:
        limits, memory = self.spec.limits, memory_limit(self.spec)
        self.container = self.client.containers.create(
            image=self.image,
            command=self.spec.argv(PYTHON, self.inside),
            environment=container_environment(self.client, self.image, self.spec),
            labels=self.labels,
            detach=True,
            mounts=[
                *self.folders.create(),
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
            name=self.name,
            device_requests=gpu_requests(self.spec.gpus),
            **ISOLATION_OPTIONS,
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

    def _wait_for_exit(self) -> None:
        """Blocks until the container exits. If the call to the engine breaks off, the engine
        itself is gone.
        """
        try:
            self.container.wait(timeout=None)
            self.container.reload()
            state = self.container.attrs["State"]
            self.oom_killed = self.oom_killed or bool(state.get("OOMKilled"))
            self.exit_state = state
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
        if (full := self.folders.full()) is not None:
            return full
        if state.get("Error"):
            return MachineFault(
                f"the engine could not run stage {stage}: {state['Error']}", hint=hint_of(state["Error"])
            )
        if state.get("ExitCode") in NOT_STARTED and (program := self._missing_program()):
            return MachineFault(
                f"the image holds no program {quote(program)} for stage {stage}", hint=NO_PROGRAM
            )
        return Violation(
            "contestant", f"the contestant ended in stage {stage} with exit code {state.get('ExitCode')}"
        )

    def _missing_program(self) -> str | None:
        """The program of the stage, where the image should have it and does not."""
        program = self.spec.program or PYTHON
        return None if program in self.spec.inputs or self.folders.has_program(program) else program

    def _check_at_end(self) -> None:
        """Raises the error for a limit that was exceeded without ending the stage."""
        if not self._read_counts():  # the engine tells, once the container has ended
            with engine_faults("asking whether memory ran out"):
                self._end_container()
                self.oom_killed = self.oom_killed or has_oom_event(self.container)
        if (error := self._over_limit() or self.folders.full()) is not None:
            raise error

    def _read_last_counts(self) -> None:
        assert self.group is not None
        self.group.wait_for_end()
        self._read_counts()

    def _over_limit(self) -> HarnessError | None:
        with engine_faults("asking whether memory ran out"):
            if (counts := self.counts) and counts.memory_kills and counts.reached_limit is None:
                self._await_oom_event()
            engine_tells = self.oom_killed and self.cgroup_version == "1"
        return over_limit(self.spec, self.counts, self.oom_killed, engine_tells)

    def _await_oom_event(self) -> None:
        """Waits until the engine says that memory ran out; it does not where the machine's did."""
        deadline = time.monotonic() + OOM_EVENT_SECONDS
        while not self.oom_killed and time.monotonic() < deadline:
            self.oom_killed = has_oom_event(self.container)
            time.sleep(POLL_SECONDS)

    @functools.cached_property
    def cgroup_version(self) -> str:
        """The version of the engine's control groups: with 1 it tells apart why memory ran out."""
        return str(self.client.info().get("CgroupVersion", "1"))

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
            stream = self.folders.archive()
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
            for container in self.containers:
                ignore_missing(container.remove, force=True, v=True)
            self.folders.remove()
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.engine_error = self.engine_error or error
        finally:
            self.staging.remove()
