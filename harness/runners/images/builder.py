"""Have the engine's classic builder run the Dockerfile, without network, on wheels and their lock.

The build context holds the wheels and the lock, and none of this project's code. The image gets the hash of
its lock as a label, and no name: build.py verifies it first.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.runners.images import pins

LABEL = "pgolf.lock"
WITHOUT = "pgolf.without"
"""The label that names, with spaces between, the wheels of the pins that an image was built without."""


@dataclass(frozen=True)
class BuildInputs:
    """What an image is made of."""

    name: str
    lock: str
    """The lock's sha256, for the image's label."""
    base_image: str
    wheel_files: list[Path]
    requirements: list[pins.Requirement]
    """The packages of `wheel_files`."""
    without: tuple[str, ...] = ()
    """The wheels of the pins that are left out."""

    @property
    def labels(self) -> dict[str, str]:
        return {LABEL: self.lock} | ({WITHOUT: " ".join(self.without)} if self.without else {})


def run_builder(daemon: docker.DockerClient, inputs: BuildInputs, log: Callable[[str], None]) -> str:
    """Run the Dockerfile on wheels and lock; returns the id of an image without a tag.

    The caller holds `wheels.cache_locked`: the end of a build removes the first stage of every other.
    """
    with tempfile.TemporaryFile() as context:
        _write_context(context, inputs.wheel_files, inputs.requirements)
        context.seek(0)
        try:
            events = daemon.api.build(
                fileobj=context,
                custom_context=True,
                target=inputs.name,
                network_mode="none",
                use_config_proxy=False,
                rm=True,
                forcerm=True,
                decode=True,
                buildargs={"BASE": inputs.base_image},
                labels=inputs.labels,
            )
            return _follow(events, inputs.name, log)
        finally:
            # removes the intermediate stage that held the wheels
            daemon.images.prune(filters={"dangling": True, "label": "pgolf.stage=packages"})


def _write_context(file: IO[bytes], files: list[Path], needed: list[pins.Requirement]) -> None:
    """The build context: Dockerfile, wheels/, and a requirements.lock for exactly these wheels."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in files:
            tar.add(path, arcname=f"wheels/{path.name}")
        texts = {
            "Dockerfile": (ROOT / "Dockerfile").read_text(encoding="utf-8"),
            "requirements.lock": "".join(requirement.text() for requirement in needed),
        }
        for arcname, text in texts.items():
            member = tarfile.TarInfo(arcname)
            member.size, member.mode = len(text.encode()), 0o644
            tar.addfile(member, io.BytesIO(text.encode()))


def _follow(events: Iterator[dict[str, Any]], name: str, log: Callable[[str], None]) -> str:
    """Pass the builder's output to `log`, line by line, and return the image's id.

    Raises UsageError with the last ten lines if the build fails.
    """
    image, recent = "", [""]
    for event in events:
        for line in str(event.get("stream") or event.get("error") or "").splitlines():
            if line.strip():
                recent = [*recent[-9:], line.strip()]
                log(line.strip())
        if "error" in event:
            raise UsageError(
                f"the {name} image could not be built: {' | '.join(recent)[-800:]}",
                hint="the lines above say which step failed",
            )
        image = (event.get("aux") or {}).get("ID", image)
    if not image:
        raise MachineFault(
            f"the engine ended the build of {name} without an image", hint="see the engine's own log"
        )
    return str(image)
