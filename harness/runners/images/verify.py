"""Check inside a built image that its packages import, are the locked ones, and that code compiles there.

An image that was built without a wheel must not have it from its base either.

Each check is a container without network. Not covered: whatever only a GPU shows (compile_check.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

import docker
from packaging.specifiers import SpecifierSet

from harness.base.errors import UsageError
from harness.runners.images import pins, rootfs
from harness.runners.images.compile_check import Compiled, compile_inside

VERSIONS_SCRIPT = """
import importlib, importlib.metadata, json, sys
names, modules = json.loads(sys.argv[1])
for module in modules:
    importlib.import_module(module)
found = {}
for item in importlib.metadata.distributions():
    name = item.metadata["Name"].lower().replace("_", "-").replace(".", "-")
    if name in names:
        found.setdefault(name, []).append(item.version)
print(json.dumps({"python": sys.version.split()[0], "found": found}))
"""

THERE_SCRIPT = """
import importlib.util, json, sys
print(json.dumps([name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)]))
"""


class Verified(NamedTuple):
    """An image that matches its lock: its id, its Python, and the version of every locked package."""

    image: str
    python: str
    versions: dict[str, str]
    without: tuple[str, ...] = ()
    """The wheels of the pins that it was built without."""
    compiled: Compiled | None = None
    """None where nothing is compiled in this image."""


def verify_image(
    client: docker.DockerClient, name: str, image: str, without: Collection[str] = ()
) -> Verified:
    """Check an image of a name, built without some wheels. Raises UsageError for what is not as locked."""
    pinned, needed = pins.load(name).without(without), pins.requirements(name, without=without)
    if unpinned := modules_there(client, image, set(pins.load(name).modules) - set(pinned.modules)):
        raise UsageError(
            f"{name}: {image} was to be built without {', '.join(sorted(without))}, and "
            f"{', '.join(unpinned)} is there: its base has it, in a version that nothing pins",
            hint="build it on another base, or with the wheel",
        )
    again = f"build it again: pgolf image build {name} --force"
    query = json.dumps([[requirement.name for requirement in needed], pinned.modules])
    status, stdout, stderr = rootfs.run_command(
        client, image, ["python3", "-I", "-c", VERSIONS_SCRIPT, query], read_only=True, cap_drop=["ALL"]
    )
    if status:
        modules = ", ".join(pinned.modules)
        raise UsageError(f"{name}: {image} does not import {modules}: {stderr.strip()[-600:]}", hint=again)
    answer = json.loads(stdout)
    interpreter = rootfs.interpreter_of(client, image)
    wrong = [
        f"{requirement.name} {requirement.version} expected, {answer['found'].get(requirement.name, 'none')} "
        "found"
        for requirement in needed
        if interpreter
        and requirement.applies_to(interpreter.environment)
        and not _is_only_version(answer["found"].get(requirement.name, []), requirement.version)
    ]
    if wrong:
        raise UsageError(f"{name}: {image} is not what the lock says: {'; '.join(wrong)}", hint=again)
    versions = {key: found[0] for key, found in sorted(answer["found"].items())}
    compiled = compile_inside(client, name, image) if pinned.compiles else None
    return Verified(image, answer["python"], versions, tuple(sorted(without)), compiled)


def modules_there(client: docker.DockerClient, image: str, modules: Collection[str]) -> list[str]:
    """Those of the top-level `modules` that a contestant in `image` could import; nothing is imported."""
    if not modules:
        return []
    query = json.dumps(sorted(modules))
    status, stdout, stderr = rootfs.run_command(
        client, image, ["python3", "-I", "-c", THERE_SCRIPT, query], read_only=True, cap_drop=["ALL"]
    )
    if status:
        raise UsageError(
            f"{image}: its python3 does not run: {stderr.strip()[-300:]}",
            hint="build the image again with --force",
        )
    return [str(module) for module in json.loads(stdout)]


def _is_only_version(found: list[str], version: str) -> bool:
    return len(found) == 1 and SpecifierSet(f"=={version}").contains(found[0])
