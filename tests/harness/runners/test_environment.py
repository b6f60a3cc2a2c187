"""The environment of a contestant: an exact set, the same names in every runner, nothing of the user's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from harness.edition import Limits
from harness.runners.base import Runner, StageSpec
from harness.runners.docker import DockerRunner
from harness.runners.docker_environment import container_environment
from harness.runners.images import rootfs
from harness.runners.local import LocalRunner
from tests.harness.fakes.contestants.outcomes import VARIABLES
from tests.harness.fakes.stage_bench import SMALL, Bench

TELL = """
def before_trained(wire, setup):
    variables = open("/proc/self/environ", "rb").read().decode().split("\\0")
    with open(setup["out"] + "/checkpoint/environment.json", "w") as file:
        json.dump(dict(variable.split("=", 1) for variable in variables if variable), file)
"""
SECRET = "http://user:password@proxy.example:3128"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with tokens, proxies, and a ~/.docker/config.json that names the proxies."""
    for name in ("HF_TOKEN", "http_proxy", "HTTPS_PROXY", "PYTHONPATH", "LD_PRELOAD_OF_MINE", "LC_ALL"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("NO_PROXY", "*")  # for a client of an engine at a TCP address
    folder = tmp_path / "docker"
    folder.mkdir()
    proxies = {"httpProxy": SECRET, "httpsProxy": SECRET, "ftpProxy": SECRET, "noProxy": "localhost"}
    (folder / "config.json").write_text(json.dumps({"proxies": {"default": proxies}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.fixture
def proxied(secrets: None, engine: docker.DockerClient) -> Iterator[docker.DockerClient]:
    """A client that has read that user's configuration."""
    client = docker.from_env(timeout=120)
    yield client
    client.close()


@pytest.fixture
def image_with_variables(engine: docker.DockerClient, cpu_image: str) -> Iterator[str]:
    """The CPU image with variables of its own, as large public images have."""
    container = engine.containers.create(cpu_image, network_mode="none")
    more = (
        "PATH=/opt/bin:/usr/bin:/bin",
        "NVIDIA_VISIBLE_DEVICES=all",
        "LD_LIBRARY_PATH=/x",
        "JUPYTER=1",
        "E=",
    )
    label = "LABEL pgolf.lock=none"  # not found as the real one
    changes = [label, *(f"ENV {variable}" for variable in more)]
    image = container.commit(changes="\n".join(changes))
    container.remove()
    yield str(image.id)
    engine.images.remove(image.id)


def environment(bench: Bench, runner: Runner, limits: Limits = SMALL) -> dict[str, str]:
    """The environment that a contestant gets in train."""
    try:
        bench.train(bench.job(runner, TELL, limits))
    finally:
        runner.close()
    found: dict[str, str] = json.loads((bench.folder.checkpoint / "environment.json").read_text())
    return found


def test_a_local_contestant_has_exactly_the_variables_of_the_protocol(bench: Bench, secrets: None) -> None:
    found = environment(bench, LocalRunner())
    assert set(found) == VARIABLES
    assert SECRET not in found.values()


@pytest.mark.parametrize(("gpus", "kept"), [(1, {"LD_LIBRARY_PATH"}), (0, set())])
def test_a_local_stage_with_gpus_keeps_the_library_path_of_the_user(
    gpus: int, kept: set[str], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64")
    found = environment(bench, LocalRunner(), dataclasses.replace(SMALL, gpus=gpus))
    assert set(found) == VARIABLES | kept
    assert {found[name] for name in kept} <= {"/usr/local/nvidia/lib64"}


def test_the_caches_of_compiled_code_lie_in_the_contestants_scratch(bench: Bench) -> None:
    found = environment(bench, LocalRunner())
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(found[name]).parent == Path(found["TMPDIR"]), name


def test_a_contestant_in_a_container_has_exactly_the_same_and_no_proxy_of_the_user(
    bench: Bench, proxied: docker.DockerClient, cpu_image: str
) -> None:
    found = environment(bench, DockerRunner(proxied, cpu_image))
    assert set(found) == VARIABLES
    assert SECRET not in found.values()


def test_of_the_images_own_variables_only_its_path_reaches_a_contestant(
    bench: Bench, engine: docker.DockerClient, image_with_variables: str
) -> None:
    found = environment(bench, DockerRunner(engine, image_with_variables))
    assert set(found) == VARIABLES
    assert found["PATH"] == "/opt/bin:/usr/bin:/bin"


@pytest.mark.parametrize(("stage", "kept"), [("train", {"LD_LIBRARY_PATH"}), ("pack", set())])
def test_a_stage_with_gpus_keeps_the_library_path_of_the_image(
    stage: str, kept: set[str], engine: docker.DockerClient, image_with_variables: str, tmp_path: Path
) -> None:
    spec = StageSpec("a", stage, {}, dataclasses.replace(SMALL, gpus=1), tmp_path / "log", 1)
    variables = container_environment(engine, image_with_variables, spec)
    removed = {name for name, value in variables.items() if value is None}
    assert removed == {"HOSTNAME", "NVIDIA_VISIBLE_DEVICES", "JUPYTER", "E", "LD_LIBRARY_PATH"} - kept


def test_containers_that_help_to_build_an_image_get_no_proxy_of_the_user(
    proxied: docker.DockerClient, cpu_image: str
) -> None:
    _, variables, _ = rootfs.run_command(proxied, cpu_image, ["env"])
    assert {line.split("=", 1)[0] for line in variables.splitlines()} == {"PATH", "HOSTNAME", "HOME"}
