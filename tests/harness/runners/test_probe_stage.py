"""The probe of a stage: every step works on a sound machine, under any umask, and what fails is the machine's
fault, with the step, the place and what to do.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import numpy as np
import pytest

from harness.base import host
from harness.base.errors import MachineFault
from harness.base.paths import ROOT
from harness.data.shards import write_tokens
from harness.protocol.wire import Listener
from harness.runners import docker_isolation, local, probe_stage as probes, staging
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.local import LocalRunner
from harness.runners.probe_stage import PROBE_SECONDS, Report, hint, probe_stage
from tests.harness.fakes.contestant import contestant_source
from tests.harness.fakes.datasets import tiny_tokenizer
from tests.harness.fakes.stage_bench import SMALL


def fault(runner: Runner) -> MachineFault:
    with pytest.raises(MachineFault) as caught:
        probe_stage(runner, SMALL)
    return caught.value


def test_a_stage_of_this_machine_does_every_step_and_leaves_nothing(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    assert 0 < probe_stage(runner, SMALL) < PROBE_SECONDS
    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o027, 0o077])
@pytest.mark.parametrize("name", ["local", pytest.param("docker", marks=pytest.mark.engine)])
def test_the_umask_of_the_judge_takes_nothing_from_the_contestant(
    name: str, umask: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "docker":
        request.getfixturevalue("cpu_image")
    (tmp_path / "honest.py").write_text(contestant_source())
    write_tokens(tmp_path / "val.bin", np.tile(np.append(1, np.arange(4, 300)), 4).astype(np.uint16))
    contestant = ("--contestant", f"python {tmp_path}/honest.py", "--runs", tmp_path / "runs")
    text = ("--tokens", tmp_path / "val.bin", "--tokenizer", tiny_tokenizer(tmp_path))
    command = ("score", "--json", "--runner", name, *contestant, *text)
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *map(str, command)],
        cwd=ROOT,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    assert json.loads(done.stdout)["outcome"] == "scored", done.stdout


def test_a_socket_that_is_shared_as_a_file_only_is_the_machines_fault(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unserved(path: Path) -> Listener:
        """A listener whose file is one that nobody serves, as a container sees it in Docker Desktop."""
        listener = Listener(path.with_name("served"))
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        path.chmod(0o666)
        listener.path = path
        return listener

    monkeypatch.setattr(staging, "Listener", unserved)
    found = fault(runner)
    assert f"the {runner.name} runner's stage cannot exchange bytes with the judge over the socket" in str(
        found
    )
    assert "Connection refused" in found.message
    assert ("not its sockets, as Docker Desktop" in found.hint) == runner.isolated


@pytest.fixture
def contained(cpu_image: str, engine: docker.DockerClient) -> Iterator[DockerRunner]:
    runner = DockerRunner(engine, cpu_image)
    yield runner
    runner.close()


def test_an_input_that_the_containers_user_cannot_read_is_named(
    contained: DockerRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "make_folder", lambda path, mode: path.mkdir(mode=0o700))
    found = fault(contained)
    assert found.message == (
        "the docker runner's stage cannot read an input, /in/probe/inner/content: Permission denied"
    )
    assert "SELinux" in found.hint


def test_an_output_folder_of_another_owner_is_named(
    contained: DockerRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(docker_isolation.ISOLATION_OPTIONS, "user", "10002:10002")
    found = fault(contained)
    assert found.message == (
        "the docker runner's stage cannot create, read and delete a file in the output folder, /out: "
        "Permission denied"
    )
    assert "the engine ignores the owner" in found.hint


@pytest.mark.skipif(bool(host.gpus()), reason="this machine has a GPU to give")
def test_gpus_that_the_engine_cannot_give_are_named_before_anything_is_trained(
    contained: DockerRunner,
) -> None:
    with pytest.raises(MachineFault, match="could not select device driver") as caught:
        probe_stage(contained, dataclasses.replace(SMALL, gpus=1))
    assert "NVIDIA container toolkit" in caught.value.hint


def test_a_python_that_does_nothing_is_told_by_the_first_step_that_it_did_not_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "SCRIPT", "print('no memory for this'); raise SystemExit(7)")
    found = fault(LocalRunner())
    assert "the local runner's stage did not read an input" in found.message
    assert "exit code 7; it wrote: no memory for this" in found.message


def test_a_python_that_cannot_be_started_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.sys, "executable", "/nowhere/python")
    found = fault(LocalRunner())
    assert "starting a stage of the local runner: /nowhere/python: No such file" in found.message


def test_a_folder_without_sockets_is_named_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(path: Path) -> Listener:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(staging, "Listener", unsupported)
    found = fault(LocalRunner())
    assert found.message.endswith("/run/s: Operation not supported")
    assert "TMPDIR" in found.hint


@pytest.mark.slow
def test_a_stage_that_never_answers_takes_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SCRIPT", "import time; time.sleep(600)")
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.5)
    assert "no answer within" in fault(LocalRunner()).message


@pytest.mark.parametrize(
    ("report", "contained", "words"),
    [
        (Report("input", "/in/x", 2, "No such file or directory"), True, "does not see this machine's files"),
        (Report("socket", "/run/pgolf/s", 111, "Connection refused"), True, "not its sockets"),
        (Report("socket", "/run/pgolf/s", 95, "Operation not supported"), True, "not its sockets"),
        (Report("socket", "/run/pgolf/s", None, "timed out"), True, "not its sockets"),
        (Report("socket", "/run/pgolf/s", 13, "Permission denied"), True, "SELinux"),
        (Report("scratch", "/tmp", 28, "No space left on device"), True, "free some room"),
        (Report("scratch", "/tmp", 30, "Read-only file system"), False, "mounted read-only"),
        (Report("out", "/out", 5, "Input/output error"), True, "the disk or the connection to it"),
    ],
)
def test_each_failure_has_the_hint_that_fits_it(report: Report, contained: bool, words: str) -> None:
    assert words in hint(report, contained)


def test_what_a_hostile_log_says_is_no_report() -> None:
    lines = ["[]", "{}", "7", '{"step": "input"}', "[" * 5000, '"step"', "\x00"]
    assert [probes._report(line) for line in lines] == [None] * len(lines)
