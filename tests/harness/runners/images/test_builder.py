"""The Dockerfile in a real engine."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from harness.base.errors import UsageError
from harness.runners.images import builder
from harness.runners.images.pins import Requirement


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
