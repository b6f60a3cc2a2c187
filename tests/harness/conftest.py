"""Fixtures for the judge's tests: a dataset of a few thousand tokens, both runners, and single stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.data.dataset import Dataset
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.local import LocalRunner
from tests.harness.fakes.datasets import write_word_dataset
from tests.harness.fakes.stage_bench import Bench
from tests.once import Once


@pytest.fixture(scope="session")
def tiny(once: Once) -> Dataset:
    """A dataset of two shards, eight documents each, with a tokenizer of 300 pieces."""
    dataset = Dataset.open(once("tiny", write_word_dataset))
    dataset.verify()
    return dataset


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Both runners; docker is skipped, with the reason, if there is no engine or image."""
    if request.param == "local":
        runner: Runner = LocalRunner()
    else:
        runner = DockerRunner(request.getfixturevalue("engine"), request.getfixturevalue("cpu_image"))
    yield runner
    runner.close()


@pytest.fixture
def bench(tmp_path: Path, tiny: Dataset) -> Bench:
    return Bench(tmp_path / "seed-1", tiny)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PGOLF_HOME."""
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no container engine, and nothing names one."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
    monkeypatch.setattr(docker_engine, "DEFAULT_SOCKET", f"{tmp_path}/nothing.sock")
