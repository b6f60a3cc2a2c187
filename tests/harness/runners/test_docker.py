"""The docker runner and its engine: what kill -9 leaves is removed, a living run is left alone, and the death
of the engine is handled.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import docker
import pytest

from harness.base.errors import MachineFault, Violation
from harness.base.paths import ROOT
from harness.base.progress import no_progress
from harness.run import stages
from harness.run.contestant import Contestant
from harness.runners import docker as docker_runner
from harness.runners.docker import DockerRunner
from harness.runners.docker_engine import LABEL, reap, remove_owned
from harness.runners.docker_stage import DockerStage
from harness.runners.owner_lock import OwnerLock, is_dead
from tests.harness.fakes.processes import wait_until
from tests.harness.fakes.stage_bench import SMALL, Bench

HANGING_RUN = """
import sys, time
from pathlib import Path
import docker
from harness.runners.base import StageSpec
from harness.runners.docker import DockerRunner
from tests.harness.fakes.contestant import pyz
from tests.harness.fakes.stage_bench import SMALL
code = Path(sys.argv[2]); code.write_bytes(pyz("import time\\ntime.sleep(600)\\n"))
runner = DockerRunner(docker.from_env(), sys.argv[1])
runner.start(StageSpec("hang", "train", {"code.pyz": code}, SMALL, code.with_name("log"), 1 << 20))
print(runner.owner_lock.path, flush=True)
time.sleep(600)
"""

DYING_OWNER = """
import os
from harness.runners.owner_lock import OwnerLock
print(OwnerLock().path, flush=True)
os.kill(os.getpid(), 9)
"""


def owned(engine: docker.DockerClient, owner: str) -> tuple[int, int]:
    """Containers and volumes that carry an owner's label."""
    mine = {"label": f"{LABEL}={owner}"}
    return len(engine.containers.list(all=True, filters=mine)), len(engine.volumes.list(filters=mine))


def reap_owner(engine: docker.DockerClient, owner: str) -> None:
    """Reap until nothing of a dead owner is left. Another run on this machine may be reaping too: what one of
    the two is removing, the other one leaves alone, and the lock file may then stay.
    """

    def gone() -> bool:
        reap(engine)
        return owned(engine, owner) == (0, 0)

    wait_until(gone)


def test_what_kill_9_leaves_is_reaped_and_a_living_runs_containers_are_not(
    engine: docker.DockerClient, cpu_image: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PGOLF_HOME": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HANGING_RUN, cpu_image, str(tmp_path / f"code{i}.pyz")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    owners = [process.stdout.readline().strip() for process in processes if process.stdout]
    assert all(owners), "a run did not start"
    try:
        assert [owned(engine, owner) for owner in owners] == [(2, 2), (2, 2)]
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        reap_owner(engine, owners[0])
        assert owned(engine, owners[1]) == (2, 2)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        reap_owner(engine, owners[1])


class EngineApi:
    """The engine's lists and removals: two containers and a volume of each owner; one is in use."""

    def __init__(self, owners: list[str], in_use: str) -> None:
        self.owners, self.in_use, self.removed = owners, in_use, list[str]()

    def containers(self, **_: object) -> list[dict[str, Any]]:
        return [{"Id": f"{o}-{n}", "Labels": {LABEL: o}} for o in self.owners for n in (1, 2)]

    def volumes(self, **_: object) -> dict[str, Any]:
        return {"Volumes": [{"Name": f"{o}-volume", "Labels": {LABEL: o}} for o in self.owners]}

    def remove_container(self, name: str, **_: object) -> None:
        if name == self.in_use:
            raise docker.errors.APIError("in use", response=types.SimpleNamespace(status_code=409))
        self.removed.append(name)

    remove_volume = remove_container


def test_reaping_counts_what_it_removed_and_keeps_the_owner_of_what_somebody_else_is_removing() -> None:
    api = EngineApi(["/a", "/b", "/alive"], in_use="/b-2")
    client: Any = types.SimpleNamespace(api=api)
    count, cleared = remove_owned(client, lambda owner: owner != Path("/alive"))
    assert (count, cleared) == (5, {Path("/a")})
    assert api.removed == ["/a-1", "/a-2", "/b-1", "/a-volume", "/b-volume"]


def test_an_owner_is_dead_only_when_its_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path))
    owner = OwnerLock()
    assert not is_dead(owner.path)
    assert not is_dead(tmp_path / "another machine's.lock")
    owner.release()
    died = subprocess.run(
        [sys.executable, "-c", DYING_OWNER], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert is_dead(Path(died.stdout.strip()))


class Proxy:
    """Forwards a socket to the engine's. After `cut` the harness sees a dead engine."""

    def __init__(self, path: Path, target: str) -> None:
        self.target, self.peers = target, list[socket.socket]()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                self.peers += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()
        except OSError:
            return

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        if self.listener.fileno() < 0:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            peer.close()


def test_an_engine_that_dies_in_the_middle_is_the_machines_fault_and_its_leftovers_are_removed_later(
    engine: docker.DockerClient, cpu_image: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home"))
    proxy = Proxy(tmp_path / "engine.sock", "/var/run/docker.sock")
    runner = DockerRunner(
        docker.DockerClient(base_url=f"unix://{tmp_path}/engine.sock", timeout=60), cpu_image
    )
    hangs = (
        "import time\ndef before_trained(wire, setup):\n"
        "    wire.send(op='progress', fraction=0.5)\n    time.sleep(600)\n"
    )
    with pytest.raises(MachineFault, match="engine"):
        bench.train(bench.job(runner, hangs), lambda fraction, text: proxy.cut())
    owner = str(runner.owner_lock.path)
    assert owned(engine, owner) != (0, 0)
    runner.close()
    assert is_dead(Path(owner)), "the lock file must stay: it shows that the owner is dead"
    reap_owner(engine, owner)


def test_a_refused_archive_is_closed_and_leaves_nothing(
    engine: docker.DockerClient, cpu_image: str, bench: Bench
) -> None:
    runner = DockerRunner(engine, cpu_image)
    owner = str(runner.owner_lock.path)
    large = "\ndef before_trained(wire, setup):\n    open(setup['out'] + '/a', 'wb').truncate(1 << 45)\n"
    start = time.monotonic()
    try:
        with pytest.raises(Violation, match="more than 8388608 bytes"):
            bench.train(bench.job(runner, large))
        assert owned(engine, owner) == (0, 0)
    finally:
        runner.close()
    assert time.monotonic() - start < 300, "it did not wait for the whole archive"
    assert not Path(owner).exists()


@pytest.mark.parametrize("kind", ["volume", "container"])
def test_an_interrupt_while_the_engine_makes_something_leaves_nothing(
    engine: docker.DockerClient, cpu_image: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    collection = type(engine.volumes if kind == "volume" else engine.containers)
    create = collection.create

    def create_and_interrupt(*arguments: Any, **options: Any) -> Any:
        made = create(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(collection, "create", create_and_interrupt)
    runner = DockerRunner(engine, cpu_image)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.train(bench.job(runner))
        assert owned(engine, str(runner.owner_lock.path)) == (0, 0)
    finally:
        runner.close()


def test_what_a_stage_could_not_remove_is_removed_when_the_runner_closes(
    engine: docker.DockerClient, cpu_image: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = DockerRunner(engine, cpu_image)
    monkeypatch.setattr(DockerStage, "_remove", lambda stage: stage.staging.remove())
    monkeypatch.setattr("harness.runners.docker_stage.STOP_SECONDS", 0.1)
    bench.train(bench.job(runner))
    owner = str(runner.owner_lock.path)
    assert owned(engine, owner) == (2, 2)
    runner.close()
    assert owned(engine, owner) == (0, 0)


def test_describe_needs_no_data_and_no_clock(
    engine: docker.DockerClient, cpu_image: str, bench: Bench
) -> None:
    runner = DockerRunner(engine, cpu_image)
    try:
        described: Any = stages.describe(bench.job(runner), no_progress)
    finally:
        runner.close()
    assert (described.parameters, described.estimated_bytes) == (0, 2048)


def test_code_compiled_into_the_scratch_can_be_loaded(
    engine: docker.DockerClient, cpu_image: str, bench: Bench
) -> None:
    loader = (
        "\ndef before_trained(wire, setup):\n    import ctypes, glob, shutil\n"
        "    library = glob.glob('/lib/*/libm.so.6')[0]\n"
        "    ctypes.CDLL(shutil.copy(library, os.environ['TMPDIR'] + '/compiled.so'))\n"
    )
    runner = DockerRunner(engine, cpu_image)
    try:
        bench.train(bench.job(runner, loader))
    finally:
        runner.close()


def test_a_contestant_that_ends_while_it_is_frozen_is_no_fault_of_the_machine(
    engine: docker.DockerClient, cpu_image: str, bench: Bench
) -> None:
    leaving = (
        "_send = Wire.send\ndef send(self, payload=b'', **frame):\n    _send(self, payload, **frame)\n"
        "    if frame['op'] == 'packed':\n        time.sleep(PAUSE)\n        os._exit(0)\nWire.send = send\n"
    )
    runner = DockerRunner(engine, cpu_image)
    try:
        for pause in (
            0.0,
            0.002,
            0.005,
            0.01,
            0.02,
        ):  # some of these pauses end just as the container is frozen
            bench.pack(bench.job(runner, f"import time\nPAUSE = {pause}\n{leaving}"))
            assert bench.folder.artifact.read_bytes() == b"w" * 2048
    finally:
        runner.close()


def test_between_scorer_and_witness_every_file_of_the_image_is_dropped_from_the_page_cache(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    runner = DockerRunner(engine, cpu_image)
    try:
        done = runner.clear_channels(SMALL)
        assert re.fullmatch(r"[\d,]{5,} files of the image dropped from the page cache", done), done
        assert (
            engine.containers.list(all=True, filters={"label": f"pgolf.owner={runner.owner_lock.path}"}) == []
        )
    finally:
        runner.close()


def test_a_failure_to_clear_the_caches_is_the_machines_fault(
    engine: docker.DockerClient, cpu_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_runner, "SCRIPT", "raise SystemExit(3)")
    runner = DockerRunner(engine, cpu_image)
    try:
        with pytest.raises(MachineFault, match="exit code 3"):
            runner.clear_channels(SMALL)
    finally:
        runner.close()


@pytest.mark.parametrize("program", ["nosuchprogram", "/etc/passwd"])
def test_a_program_that_the_image_does_not_have_is_the_machines_fault(
    engine: docker.DockerClient, cpu_image: str, bench: Bench, program: str
) -> None:
    runner = DockerRunner(engine, cpu_image)
    job = bench.job(runner)
    job = dataclasses.replace(job, contestant=Contestant(program, ("x",), {}))
    try:
        with pytest.raises(MachineFault, match=f"holds no program {program}") as caught:
            bench.train(job)
    finally:
        runner.close()
    assert "name a program that the image has" in caught.value.hint


def test_a_contestant_that_ends_as_if_its_program_were_missing_is_not_the_machines_fault(
    engine: docker.DockerClient, cpu_image: str, bench: Bench
) -> None:
    runner = DockerRunner(engine, cpu_image)
    fakes = "def before_trained(wire, setup):\n    print('exec python3 failed'); os._exit(127)\n"
    try:
        with pytest.raises(Violation, match="exit code 127"):
            bench.train(bench.job(runner, fakes))
    finally:
        runner.close()
