"""`pgolf doctor` and `pgolf clean`: what is here, what is missing, what to do, and what is never removed."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import docker
import pytest

from harness.base.errors import UsageError
from harness.base.exit_codes import ExitCode
from harness.commands import options
from harness.data.dataset import Dataset
from harness.runners import local
from harness.runners.images import build
from tests.harness.fakes.command_line import pgolf


def facts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pgolf("doctor", "--json").stdout)
    return found


def test_without_an_engine_the_doctor_names_the_local_runner_and_what_to_start(
    no_engine: None, home: Path
) -> None:
    found = facts()
    assert (found["engine"], found["no_engine"]["required"]) == (None, False)
    printed = pgolf("doctor").stdout
    assert "engine      no container engine answers: there is no socket" in printed
    assert "runs use the local runner (isolation none)\n            start the engine (dockerd" in printed
    assert "datasets    none yet: the first pocket run prepares one" in printed
    assert str(home) in printed


def test_the_doctor_probes_a_stage_of_the_local_runner(no_engine: None, home: Path) -> None:
    (stage,) = facts()["stages"]
    assert (stage["runner"], stage["image"], stage["works"]) == ("local", None, True)
    printed = pgolf("doctor").stdout
    assert re.search(r"stage +local: inputs, socket, scratch and output work \([0-9.]+ s\)", printed)


def test_a_stage_that_fails_is_shown_with_what_to_do(
    no_engine: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.sys, "executable", "/nowhere/python")
    (stage,) = facts()["stages"]
    assert (stage["works"], stage["seconds"]) == (False, None)
    done = pgolf("doctor")
    assert f"stage       local: {stage['error']}\n            {stage['hint']}" in done.stdout
    assert done.exit_code == ExitCode.MACHINE


def test_an_engine_named_by_docker_host_that_does_not_answer_stops_runs_and_the_doctor_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/s")
    assert facts()["no_engine"]["required"]
    done = pgolf("doctor")
    assert "(DOCKER_HOST); runs stop here, except with --runner local" in done.stdout
    assert done.exit_code == ExitCode.MACHINE


def test_the_doctor_lists_the_datasets_that_runs_will_find(
    no_engine: None, home: Path, tiny: Dataset
) -> None:
    for name in ("pocket", "fineweb-sp1024"):
        shutil.copytree(tiny.folder, home / "datasets" / name)
    (home / "datasets" / "half-made").mkdir()
    all_but_renamed = home / "datasets" / ".pocket.part"  # when its maker was killed
    shutil.copytree(tiny.folder, all_but_renamed)
    assert facts()["datasets"] == ["fineweb-sp1024", "pocket"]


def test_the_doctor_measures_this_machine(no_engine: None, home: Path) -> None:
    found = facts()
    assert found["host"]["cores"] >= 1
    assert found["host"]["memory_bytes"] > 1 << 28
    assert 0 < found["free_disk_bytes"] <= found["disks"]["datasets"]["total_bytes"]
    assert list(found["disks"]) == ["runs", "temporary", "datasets"]
    for disk in found["disks"].values():
        assert 0 < disk["free_bytes"] <= disk["total_bytes"]


def test_the_doctor_names_the_disk_of_the_runs_and_that_of_the_temporary_files(
    no_engine: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lines = pgolf("doctor").stdout.splitlines()
    for name, path in (("runs", options.RUNS), ("temporary", tmp_path), ("datasets", home)):
        pattern = rf"free disk +[0-9.]+ GiB for {name} in {path} \(.* at /.*\)"
        assert any(re.fullmatch(pattern, line) for line in lines), name


def test_the_doctor_shows_the_engine_and_the_image_of_todays_lock(cpu_image: str, home: Path) -> None:
    engine = facts()["engine"]
    assert engine["images"]["cpu"] == cpu_image
    printed = pgolf("doctor").stdout
    assert f"image       cpu: {cpu_image}" in printed
    assert "stage       docker, cpu: inputs, socket, scratch and output work" in printed
    assert f"engine      {engine['version']} (API {engine['api']})" in printed


def test_an_image_that_is_not_built_comes_with_the_command_that_builds_it(
    engine: docker.DockerClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "lock_sha256", lambda name, root=None: "0" * 64)
    assert "image       cpu: not built: pgolf image build cpu" in pgolf("doctor").stdout


def test_pins_that_cannot_be_read_are_an_error_of_that_image_alone(
    engine: docker.DockerClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> str:
        raise UsageError("pins.yaml: not YAML")

    monkeypatch.setattr(build, "lock_sha256", unreadable)
    assert facts()["engine"]["images"] == dict.fromkeys(("cpu", "cuda"), "error: pins.yaml: not YAML")


def test_the_doctor_says_what_an_image_was_built_without(
    cpu_image: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "lacks", lambda labels: ("flash-attn-3",))
    assert f"image       cpu: {cpu_image}, without flash-attn-3" in pgolf("doctor").stdout
