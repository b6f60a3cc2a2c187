"""What a stopped command leaves: nothing where it could clean up, nothing alive where it was killed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from harness.base.paths import ROOT
from harness.base.signals import ENDING
from harness.base.temporary import remove_abandoned
from harness.data.dataset import Dataset
from harness.runners.docker_engine import LABEL
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.contestant import contestant_source
from tests.harness.fakes.processes import wait_until

pytestmark = pytest.mark.slow

DAEMON = """
import subprocess, time
def score(wire, setup):
    with open(LOG, "w") as log:
        program = "import os, time; os.setsid(); print(1, flush=True); time.sleep(600)"
        subprocess.Popen(["python3", "-c", program], stdout=log)
    wire.send(op="ready", chunk_tokens=512, adapts=False, context=1)
    time.sleep(600)
"""


def _handle_signals(ignoring: signal.Signals | None) -> None:
    """Ignores only this signal: a shell lets what it starts in the background ignore more."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    if ignoring is not None:
        signal.signal(ignoring, signal.SIG_IGN)


class Scoring:
    """`pgolf score` in a process of its own, with a contestant that leaves a daemon and never answers."""

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        runner: str,
        ignoring: signal.Signals | None = None,
        **streams: Any,
    ) -> None:
        self.temporary, self.home, self.runs = folder / "t", folder / "home", folder / "runs"
        self.temporary.mkdir()
        contestant = folder / "c.py"
        contestant.write_text(contestant_source(DAEMON.replace("LOG", 'os.environ["HOME"] + "/started"')))
        command = [
            *(sys.executable, "-m", "harness.cli", "score", "--json", "--runner", runner),
            *("--contestant", f"python {contestant}", "--tokens", str(dataset.validation[0].path)),
            *("--tokenizer", str(dataset.tokenizer), "--runs", str(self.runs)),
        ]
        environment = {**os.environ, "PGOLF_HOME": str(self.home), "TMPDIR": str(self.temporary)}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=streams.pop("stderr", subprocess.PIPE),
            preexec_fn=lambda: _handle_signals(ignoring),
            text=True,
            **streams,
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def await_daemon(self) -> None:
        wait_until(
            lambda: any(file.stat().st_size for file in self.temporary.glob("*/home/started")), self.process
        )


@pytest.fixture
def local(tmp_path: Path, tiny: Dataset) -> Iterator[Scoring]:
    scoring = Scoring(tmp_path, tiny, "local")
    scoring.await_daemon()
    yield scoring
    scoring.process.kill()
    scoring.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_command_that_is_told_to_end_cleans_up_as_after_ctrl_c(
    local: Scoring, number: signal.Signals
) -> None:
    children = local.descendants()
    local.process.send_signal(number)
    _, err = local.process.communicate(timeout=120)
    assert (local.process.returncode, "the same command does what is left" in err) == (130, True), err
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert not list(local.temporary.iterdir())


def test_a_command_whose_terminal_is_closed_cleans_up(tmp_path: Path, tiny: Dataset) -> None:
    terminal, side = pty.openpty()
    scoring = Scoring(tmp_path, tiny, "local", stdin=side, stderr=side, start_new_session=True)
    os.close(side)
    scoring.await_daemon()
    children = scoring.descendants()
    scoring.process.send_signal(signal.SIGHUP)  # what the kernel sends to the terminal's processes
    os.close(terminal)
    scoring.process.communicate(timeout=120)
    assert scoring.process.returncode == 130
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert not list(scoring.temporary.iterdir())


def test_no_process_and_no_folder_of_the_local_runner_outlive_a_judge_that_is_killed(local: Scoring) -> None:
    children = local.descendants()
    assert len(children) == 3, "guardian, contestant, daemon"
    local.process.kill()
    assert not psutil.wait_procs(children, timeout=60)[1]
    assert not list(local.temporary.iterdir())


def test_a_command_that_ignores_hang_ups_goes_on(tmp_path: Path, tiny: Dataset) -> None:
    """`nohup pgolf ...`."""
    scoring = Scoring(tmp_path, tiny, "local", signal.SIGHUP)
    scoring.await_daemon()
    status = Path(f"/proc/{scoring.process.pid}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    assert ignored >> (signal.SIGHUP - 1) & 1
    scoring.process.send_signal(signal.SIGTERM)
    scoring.process.communicate(timeout=120)
    assert scoring.process.returncode == 130


def test_a_command_whose_parent_ignored_the_ends_of_children_still_learns_of_them(
    tmp_path: Path, tiny: Dataset
) -> None:
    """`trap '' CHLD` and some supervisors."""
    scoring = Scoring(tmp_path, tiny, "local", signal.SIGCHLD)
    scoring.await_daemon()
    _, contestant, _ = scoring.descendants()
    contestant.kill()
    out, err = scoring.process.communicate(timeout=120)
    assert (scoring.process.returncode, "with signal SIGKILL" in json.loads(out)["reason"]) == (1, True), err


def left_in(engine: docker.DockerClient, home: Path) -> int:
    """Containers and volumes of the runs under a PGOLF_HOME."""
    api = engine.api
    volumes = api.volumes(filters={"label": LABEL})["Volumes"] or []
    found = [*api.containers(all=True, filters={"label": LABEL}), *volumes]
    return sum(each["Labels"][LABEL].startswith(str(home)) for each in found)


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name)
def test_no_container_outlives_a_command_that_is_told_to_end(
    engine: docker.DockerClient, cpu_image: str, tmp_path: Path, tiny: Dataset, number: signal.Signals
) -> None:
    scoring = Scoring(tmp_path, tiny, "docker")
    wait_until(lambda: left_in(engine, scoring.home) == 3, scoring.process)
    scoring.process.send_signal(number)
    scoring.process.communicate(timeout=120)
    assert (scoring.process.returncode, left_in(engine, scoring.home)) == (130, 0)
    assert not list(scoring.temporary.iterdir())


@pytest.mark.engine
def test_clean_removes_the_containers_and_the_folder_of_a_killed_command(
    engine: docker.DockerClient,
    cpu_image: str,
    tmp_path: Path,
    tiny: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scoring = Scoring(tmp_path, tiny, "docker")
    wait_until(lambda: left_in(engine, scoring.home) == 3, scoring.process)
    monkeypatch.setattr(tempfile, "tempdir", str(scoring.temporary))
    assert remove_abandoned() == (0, 0)
    scoring.process.kill()
    scoring.process.communicate()
    assert left_in(engine, scoring.home) == 3
    said = pgolf("clean").stdout
    assert re.search(r"in [12] temporary folders? of killed commands", said), "a stage's, and the probe's"
    assert left_in(engine, scoring.home) == 0
    assert not list(scoring.temporary.iterdir())
