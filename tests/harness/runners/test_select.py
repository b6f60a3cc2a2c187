"""Which runner is taken, and what is told where nothing isolates the contestant."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from harness.base.errors import MachineFault
from harness.base.progress import ProgressDisplay
from harness.commands.run import run_submission
from harness.data.dataset import Dataset
from harness.runners import docker_engine, select
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.images import builder
from harness.runners.local import LocalRunner
from harness.runners.select import RunnerName, select_runner
from tests.harness.fakes.sandbox import Sandbox, finding
from tests.harness.fakes.stage_bench import SMALL


def selected(wanted: RunnerName | None) -> tuple[Runner, list[str]]:
    said: list[str] = []
    return select_runner(wanted, SMALL, said.append), said


@pytest.fixture
def refusing(no_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default socket is there, and nothing listens on it."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    monkeypatch.setattr(docker_engine, "DEFAULT_SOCKET", str(path))
    return path


def test_docker_host_that_does_not_answer_stops_every_run_but_one_that_asks_for_the_local_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/s")
    for wanted in (None, "docker"):
        with pytest.raises(MachineFault, match=r"no socket /nowhere/s \(DOCKER_HOST\)") as caught:
            selected(wanted)
        assert "correct DOCKER_HOST" in caught.value.hint
        assert ("or --runner local" in caught.value.hint) == (wanted is None), "docker was asked for"
    assert isinstance(selected("local")[0], LocalRunner)


def test_a_default_socket_that_refuses_is_told_and_the_local_runner_goes_on(refusing: Path) -> None:
    runner, said = selected(None)
    assert (
        f"the container engine at {refusing} does not answer: Connection refused (start the engine" in said[0]
    )
    assert f"the container engine at {refusing} does not answer: Connection refused" in runner.isolation
    with pytest.raises(MachineFault, match="does not answer: Connection refused"):
        selected("docker")


def test_each_way_to_the_local_runner_has_its_own_reason(no_engine: None) -> None:
    assert selected(None)[0].isolation.endswith("; there is no container engine here")
    assert selected("local")[0].isolation.endswith("; --runner local was asked for")


def test_a_runner_whose_stage_fails_is_closed_and_not_given_out(
    cpu_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = list[DockerRunner]()

    def failing(runner: Runner, limits: object) -> float:
        raise MachineFault("the stage fails")

    monkeypatch.setattr(select, "probe_stage", failing)
    close = DockerRunner.close
    monkeypatch.setattr(DockerRunner, "close", lambda runner: (closed.append(runner), close(runner)))
    with pytest.raises(MachineFault, match="the stage fails"):
        selected("docker")
    assert [runner.owner_lock.path.exists() for runner in closed] == [False]


@pytest.mark.slow
def test_an_image_that_lacks_a_wheel_is_told_when_it_is_taken(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    container = engine.containers.create(cpu_image, network_mode="none")
    labels = f"LABEL {builder.LABEL}=none\nLABEL {builder.WITHOUT}=flash-attn-3"
    image, said = str(container.commit(changes=labels).id), list[str]()
    container.remove()
    try:
        runner = select_runner("docker", SMALL, said.append, lambda client, name: image)
        runner.close()
    finally:
        engine.images.remove(image)
    assert runner.image_lacks == ("flash-attn-3",)
    assert any("the image is one without flash-attn-3, which its lock pins" in line for line in said)


@pytest.mark.slow
def test_the_verdict_and_its_report_say_why_nothing_isolated_the_run(
    refusing: Path, tiny: Dataset, tmp_path: Path
) -> None:
    options = replace(Sandbox(tmp_path / "box", tiny).options(), runner=None)
    with ProgressDisplay() as display:
        verdict = run_submission(options, display)
    reason = f"the container engine at {refusing} does not answer: Connection refused"
    assert reason in verdict["isolation"]
    assert reason in finding(verdict, "isolation")["evidence"]
    folder = Path(verdict["run_dir"])
    assert reason in json.loads((folder / "verdict.json").read_text())["isolation"]
    assert reason.replace("_", "\\_") in (folder / "report.md").read_text()
