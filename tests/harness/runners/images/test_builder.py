"""The Dockerfile in a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from harness.base.errors import UsageError
from harness.runners.images import builder, rootfs, wheels
from harness.runners.images.pins import Requirement


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No two builds at once, of tests or of users: the end of one removes what another is made of."""
    with wheels.cache_locked():
        yield


def test_a_build_that_fails_leaves_no_image_behind(
    engine: docker.DockerClient, cpu_image: str, tmp_path: Path
) -> None:
    broken = tmp_path / "nothing-1.0-py3-none-any.whl"
    broken.write_bytes(b"not a wheel")
    lock, logged = "0" * 64, list[str]()
    requirement = Requirement("nothing", "1.0", "", frozenset([lock]))
    inputs = builder.BuildInputs("cpu", lock, cpu_image, [broken], [requirement])
    with pytest.raises(UsageError, match="could not be built"):
        builder.run_builder(engine, inputs, logged.append)
    assert any(line.startswith("Step ") for line in logged), "the builder's output is passed to the log"
    assert not engine.images.list(filters={"label": f"{builder.LABEL}={lock}"})
    assert not engine.images.list(filters={"dangling": True, "label": "pgolf.stage=packages"})


PIP = """
import json, os, sys
os.makedirs("/stage")
seen = {"isolated": sys.flags.isolated, "variables": sorted(os.environ), "arguments": sys.argv[1:]}
json.dump(seen, open("/stage/seen.json", "w"))
"""


@pytest.mark.slow
def test_pip_gets_no_setting_of_the_base(engine: docker.DockerClient, cpu_image: str, tmp_path: Path) -> None:
    container = engine.containers.create(cpu_image, network_mode="none")
    hostile = ("PIP_TARGET=/elsewhere", "PIP_CONFIG_FILE=/pip.conf", "PYTHONPATH=/elsewhere", "PIP_NO_DEPS=0")
    lines = [f"LABEL {builder.LABEL}=none", *(f"ENV {each}" for each in hostile)]
    base, lock = str(container.commit(changes="\n".join(lines)).id), os.urandom(32).hex()
    container.remove()
    wheel = tmp_path / "pip-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", PIP)
    requirement = Requirement("nothing", "1.0", "", frozenset(["0" * 64]))
    image = None
    try:
        inputs = builder.BuildInputs("cpu", lock, base, [wheel], [requirement], ("one", "two"))
        image = builder.run_builder(engine, inputs, lambda line: None)
        labels = engine.images.get(image).labels
        assert (labels[builder.LABEL], labels[builder.WITHOUT]) == (lock, "one two")
        _, text, _ = rootfs.run_command(engine, image, ["cat", "/seen.json"])
    finally:
        for each in filter(None, (image, base)):
            with contextlib.suppress(docker.errors.ImageNotFound):  # it goes with the image made from it
                engine.images.remove(each, force=True)
    seen = json.loads(text)
    assert seen["isolated"] == 1
    assert not {"PIP_TARGET", "PYTHONPATH", "PIP_NO_DEPS"} & set(seen["variables"])
    assert seen["arguments"][0] == "install"
