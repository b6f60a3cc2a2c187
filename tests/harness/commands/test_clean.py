"""`pgolf clean`: what it says that it removed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import docker
import pytest

from harness.base.errors import MachineFault
from harness.data.dataset import Dataset
from tests.harness.fakes.command_line import pgolf


def test_what_was_removed_is_said_before_a_later_step_fails(
    no_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = tmp_path / "temporary" / "pgolf-abandoned"
    abandoned.mkdir(parents=True)
    (abandoned / ".owner").touch()
    (abandoned / "data").write_bytes(bytes(3_000_000))
    monkeypatch.setattr("tempfile.tempdir", str(abandoned.parent))
    monkeypatch.setenv("TMPDIR", str(abandoned.parent))
    (tmp_path / "file").touch()
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "file"))
    done = pgolf("clean")
    assert isinstance(done.exception, MachineFault)
    assert done.stdout.splitlines() == [
        f"no container engine answers: there is no socket {tmp_path}/nothing.sock: its leftovers stay",
        "freed 3 MB in 1 temporary folder of killed commands",
    ]
    assert not abandoned.exists()


def test_clean_removes_wheels_and_keeps_datasets(no_engine: None, home: Path, tiny: Dataset) -> None:
    shutil.copytree(tiny.folder, home / "datasets" / "pocket")
    (home / "wheels" / "some-lock").mkdir(parents=True)
    (home / "wheels" / "some-lock" / "a.whl").write_bytes(bytes(3_000_000))
    printed = pgolf("clean").stdout
    assert re.match("no container engine answers: there is no socket .*: its leftovers stay\n", printed)
    assert "freed 3 MB of cached wheels" in printed
    assert not (home / "wheels").exists()
    Dataset.open(home / "datasets" / "pocket").verify()
    assert "freed 0 MB of cached wheels" in pgolf("clean").stdout


def test_clean_counts_what_dead_runs_left_in_the_engine(engine: docker.DockerClient, home: Path) -> None:
    assert re.match(r"removed \d+ containers and volumes of dead runs\nfreed ", pgolf("clean").stdout)
