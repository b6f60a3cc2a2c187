"""`pgolf codecs` checks its folder, and hands the rest to golf in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from tests.harness.fakes.command_line import pgolf


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint."""
    (tmp_path / "weights.arrays").write_bytes(b"no arrays")
    return tmp_path


def test_a_folder_without_weights_is_an_error_that_says_which_to_name(tmp_path: Path) -> None:
    error = pgolf("codecs", tmp_path).exception
    assert isinstance(error, UsageError)
    assert error.message == f"{tmp_path}: is no checkpoint: it has no weights.arrays"
    assert "one seed of a run" in error.hint


def test_golf_of_this_checkout_gets_the_options_and_its_exit_status_is_passed_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []

    def run(command: list[str], **settings: Any) -> SimpleNamespace:
        started.append((command, settings))
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(subprocess, "run", run)
    done = pgolf(
        "codecs", str(checkpoint), "--config", "a.yaml", "--profile", "solo", "--only", "zstd", "--json"
    )
    assert done.exit_code == 2
    ((command, settings),) = started
    assert command[:4] == [sys.executable, "-P", "-m", "golf.bench.codecs"]
    given = ["--profile", "solo", "--config", "a.yaml", "--only", "zstd", "--json", "--", str(checkpoint)]
    assert command[4:] == given
    assert settings["env"]["PYTHONPATH"] == str(ROOT)


@pytest.mark.slow
def test_golf_names_what_is_wrong_with_the_folder(
    checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pgolf("codecs", str(checkpoint)).exit_code == 2
    assert "config.resolved.yaml: no such recipe" in capfd.readouterr().err
