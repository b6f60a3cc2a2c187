"""Regenerate all lock files from pyproject.toml and images/*/requirements.in.

    .venv/bin/python images/relock.py [--upgrade]

Needs `uv` (pip install uv) and the package index; takes seconds and downloads only metadata. It writes:

    requirements.lock               all that the project needs, with tools and build backend, but not torch
    torch.lock                      only torch: the index's builds, and those of images/torch-cpu-builds.yaml
    torch-cuda.lock                 what only torch's CUDA build needs; installed only with that build
    images/cpu/requirements.lock    the CPU image: the same versions, but only CPU builds of torch
    images/cuda/requirements.lock   the CUDA image, for linux x86_64; resolved for Python 3.12

One hashed lock cannot hold both builds of torch, because their requirements differ; hence the split. Locked
versions stay unless `--upgrade` is given. No index, host or path is written, so any mirror works: the hashes
decide. Files that the index does not hold are pinned in images/torch-cpu-builds.yaml and
images/cuda/pins.yaml.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml
from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[1]
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)(-|$)")
INDEX_VARIABLE = re.compile(
    "UV_(INDEX|DEFAULT_INDEX|EXTRA_INDEX|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|KEYRING|HTTP|CACHE_DIR)"
)
HEADER = "# Made by images/relock.py: edit {source} and run that instead. {what}\n"


class Pin(NamedTuple):
    """A locked release: `name==version`, its marker ("" = always), and its files' hashes."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def text(self) -> str:
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n".join([head, *(f"    --hash=sha256:{digest}" for digest in sorted(self.hashes))]) + "\n"


def environments() -> list[dict[str, str]]:
    """Every kind of machine that the project supports; constriction has no wheel for ARM Linux."""
    kinds = [("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64")]
    return [
        {
            "sys_platform": platform,
            "platform_system": system,
            "platform_machine": machine,
            "os_name": "posix",
            "python_version": python,
            "python_full_version": f"{python}.0",
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
        }
        for (platform, system, machine), python in itertools.product(kinds, ("3.11", "3.12", "3.13", "3.14"))
    ]


def parse(text: str) -> list[Pin]:
    """Parse uv's output; drop markers that hold everywhere and pins that hold nowhere."""
    pins = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        head, *rest = block.replace("\\\n", "\n").split("\n")
        requirement, _, marker = (part.strip() for part in head.partition(";"))
        name, version = requirement.split("==")
        holds = [Marker(marker).evaluate(env) for env in environments()] if marker else [True]
        if any(holds):
            hashes = tuple(line.strip().removeprefix("--hash=sha256:") for line in rest if line.strip())
            pins.append(Pin(name, version, "" if all(holds) else marker, hashes))
    return pins


def environment() -> dict[str, str]:
    """The environment without those of uv's variables that change which versions or files are chosen.

    What names an index (UV_INDEX, UV_DEFAULT_INDEX, ...) and says how it is reached stays. uv takes no
    setting of pip's.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("UV_") or INDEX_VARIABLE.match(name)
    }


def compile_pins(*arguments: str) -> list[Pin]:
    """Run `uv pip compile` with hashes."""
    command = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-annotate",
        "--no-header",
        *arguments,
    ]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment())
    return parse(found.stdout)


def cpu_hashes() -> tuple[str, ...]:
    data = yaml.safe_load((ROOT / "images/torch-cpu-builds.yaml").read_text(encoding="utf-8"))
    return tuple(build["sha256"] for build in data["builds"])


def write(path: str, pins: list[Pin], what: str, source: str = "pyproject.toml") -> None:
    text = HEADER.format(source=source, what=what) + "".join(pin.text() for pin in pins)
    (ROOT / path).write_text(text, encoding="utf-8")
    print(f"{path}: {len(pins)} packages, {sum(len(pin.hashes) for pin in pins)} hashes")


def locked(*paths: str) -> list[Pin]:
    return [
        pin
        for path in paths
        if (ROOT / path).exists()
        for pin in parse((ROOT / path).read_text(encoding="utf-8").split("\n", 1)[1])
    ]


def constraints(folder: str, pins: list[Pin]) -> list[str]:
    """Arguments that make uv keep the versions of `pins`."""
    path = Path(folder) / "constraints.txt"
    path.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), encoding="utf-8")
    return ["--constraints", str(path)]


def lock_project(folder: str) -> None:
    known = [] if "--upgrade" in sys.argv else locked("requirements.lock", "torch-cuda.lock")
    pins = compile_pins(
        "pyproject.toml",
        "--group",
        "dev",
        "--universal",
        "--fork-strategy",
        "fewest",
        "--python-version",
        "3.11",
        *constraints(folder, known),
    )
    torch = [pin._replace(hashes=(*pin.hashes, *cpu_hashes())) for pin in pins if pin.name == "torch"]
    write("torch.lock", torch, "Every build of torch; install with --no-deps.")
    write(
        "torch-cuda.lock", [pin for pin in pins if CUDA_ONLY.match(pin.name)], "Only for torch's CUDA build."
    )
    write(
        "requirements.lock",
        [pin for pin in pins if pin.name != "torch" and not CUDA_ONLY.match(pin.name)],
        "Everything but torch.",
    )


def lock_images(folder: str) -> None:
    main = constraints(folder, locked("requirements.lock"))
    for name, options in {
        "cpu": ["--universal", "--fork-strategy", "fewest", "--python-version", "3.11"],
        "cuda": ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.12"],
    }.items():
        pins = compile_pins(f"images/{name}/requirements.in", *main, *options)
        if name == "cpu":
            pins = [
                pin._replace(hashes=cpu_hashes()) if pin.name == "torch" else pin
                for pin in pins
                if not CUDA_ONLY.match(pin.name)
            ]
        write(
            f"images/{name}/requirements.lock",
            pins,
            f"The packages of the {name} image.",
            f"images/{name}/requirements.in",
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        lock_project(scratch)
        lock_images(scratch)
