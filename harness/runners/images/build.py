"""Container images by the hash of their lock: find the built one, build it, verify that it is what the lock
says.

`build` collects wheels by hash, takes the base by digest (or imports `base`), and lets the engine's plain
builder run the Dockerfile without network on a context that holds the wheels and the lock, nothing of ours.
The result is checked first and named last, so a failed build leaves no image that `find` could return. Not
covered: whether a base is trustworthy (images/*/pins.yaml says where each pin comes from), and running stages
(runners/docker.py)."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import docker
import docker.errors
import requests
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.runners.images import pins, rootfs, wheels
from harness.runners.images.pins import lock_sha256
from harness.runners.images.wheels import Interpreter

__all__ = ["Verified", "build", "engine", "find", "lock_sha256", "verify"]

LABEL = "pgolf.lock"
ENGINE_SECONDS = 1800
"""The engine is silent while it unpacks a wheel: as long as it may be, not as long as it takes."""

_REPORT = """
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


class Verified(NamedTuple):
    """An image that agrees with its lock: its id, its Python, and the version of every locked package."""

    image: str
    python: str
    versions: dict[str, str]


def find(client: docker.DockerClient, name: str, root: Path = ROOT) -> str | None:
    """The id of the newest image with a name whose label is the hash of the lock in the checkout `root`, or
    None.

    A name is what a build gives last, when the image has been checked: one that lacks it was left by a killed
    build."""
    built = client.images.list(filters={"label": f"{LABEL}={lock_sha256(name, root)}"})
    newest = max(
        (image for image in built if image.tags), key=lambda image: str(image.attrs["Created"]), default=None
    )
    return str(newest.id) if newest else None


def build(
    name: str,
    base: Path | None = None,
    wheel_folder: Path | None = None,
    *,
    force: bool = False,
    log: Callable[[str], None] = print,
    client: docker.DockerClient | None = None,
) -> str:
    """Build image `name` and return its id; one that is built already is returned as it is, unless `force`.

    `base`: folder or tar of a root filesystem, instead of the pinned base from a registry. `wheel_folder`:
    wheels fetched beforehand, instead of the package index. `log` gets one line at a time. Raises UsageError
    for what a person can mend (pins without hash, wrong wheels, a base without Python) and MachineFault for
    the engine."""
    pins.requirements(name)  # a pin without hash is said before anything is fetched
    lock = lock_sha256(name)
    with engine(client) as daemon:
        existing = None if force else find(daemon, name)
        if existing:
            log(f"{name}: built already, {existing}")
            return existing
        base_image = (
            rootfs.import_base(daemon, base, log) if base else _pull(daemon, pins.load(name).base, log)
        )
        try:
            return _build_on(daemon, name, lock, base_image, wheel_folder, log)
        except BaseException:
            if base:
                with contextlib.suppress(docker.errors.APIError):
                    daemon.images.remove(base_image)  # nobody else knows of it
            raise


def _build_on(
    daemon: docker.DockerClient,
    name: str,
    lock: str,
    base_image: str,
    wheel_folder: Path | None,
    log: Callable[[str], None],
) -> str:
    """Wheels, builder, check, name: in this order, so that only a checked image has a name and keeps its
    label."""
    pinned = pins.load(name)
    interpreter = _fitting(daemon, name, pinned, base_image)
    needed = [
        requirement for requirement in pins.requirements(name) if requirement.holds(interpreter.environment)
    ]
    if wheel_folder:
        files = wheels.from_folder(wheel_folder, needed, interpreter)
    else:
        files = wheels.downloaded(name, lock, needed, interpreter, pinned.wheels, log)
    image = _run_builder(daemon, name, lock, base_image, files, needed, log)
    try:
        checked = verify(daemon, name, image)
    except BaseException:
        daemon.images.remove(image, force=True)
        raise
    daemon.images.get(image).tag(f"pgolf-{name}", lock[:12])
    log(f"{name}: {image}, Python {checked.python}, {len(checked.versions)} packages as locked")
    return image


def verify(client: docker.DockerClient, name: str, image: str | None = None) -> Verified:
    """Ask the image itself, without network, whether its packages import and have the locked versions."""
    image = image or find(client, name)
    if image is None:
        raise UsageError(
            f"no image {name!r} is built for the lock {lock_sha256(name)[:12]}",
            hint=f"build it: pgolf image build {name}",
        )
    needed, modules = pins.requirements(name), pins.load(name).imports
    question = json.dumps([[requirement.name for requirement in needed], modules])
    status, said, complaint = rootfs.ask(
        client, image, ["python3", "-I", "-c", _REPORT, question], read_only=True, cap_drop=["ALL"]
    )
    if status:
        raise UsageError(
            f"{name}: {image} does not import {', '.join(modules)}: {complaint.strip()[-600:]}",
            hint=f"build it again: pgolf image build {name} --force",
        )
    answer = json.loads(said)
    interpreter = rootfs.interpreter_of(client, image)
    wrong = [
        f"{requirement.name} {requirement.version} expected, {answer['found'].get(requirement.name, 'none')} "
        "found"
        for requirement in needed
        if interpreter
        and requirement.holds(interpreter.environment)
        and not _only(answer["found"].get(requirement.name, []), requirement.version)
    ]
    if wrong:
        raise UsageError(
            f"{name}: {image} is not what the lock says: {'; '.join(wrong)}",
            hint=f"build it again: pgolf image build {name} --force",
        )
    return Verified(
        image, answer["python"], {key: found[0] for key, found in sorted(answer["found"].items())}
    )


def _only(found: list[str], version: str) -> bool:
    return len(found) == 1 and SpecifierSet(f"=={version}").contains(found[0])


@contextlib.contextmanager
def engine(client: docker.DockerClient | None = None) -> Iterator[docker.DockerClient]:
    """A client that waits long enough for a build; what goes wrong with the engine becomes a MachineFault."""
    try:
        if client is not None:
            yield client
            return
        with contextlib.closing(docker.from_env(timeout=ENGINE_SECONDS)) as own:
            own.ping()
            yield own
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise MachineFault(
            f"the container engine failed: {error}",
            hint="is it running, and may you use it? `pgolf doctor` looks",
        ) from error


def _pull(daemon: docker.DockerClient, base: pins.Base, log: Callable[[str], None]) -> str:
    """The pinned base from the engine's own store or a registry, by digest."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        return str(daemon.images.get(base.pinned).id)
    log(f"pulling {base.pinned} ({base.status}: {base.provenance})")
    try:
        daemon.images.pull(base.pinned)
        return str(daemon.images.get(base.pinned).id)
    except (docker.errors.APIError, requests.RequestException) as error:
        raise MachineFault(
            f"the engine cannot pull {base.pinned}: {error}",
            hint=f"without a registry give a root filesystem: --base DIR, made by {rootfs.WITH_PYTHON}",
        ) from error


def _fitting(daemon: docker.DockerClient, name: str, pinned: pins.Pins, base_image: str) -> Interpreter:
    """The base's Python, refused where the lock was not made for it."""
    interpreter = rootfs.interpreter_of(daemon, base_image)
    found = "none" if interpreter is None else ".".join(map(str, interpreter.version))
    if interpreter is None or not SpecifierSet(pinned.python).contains(Version(f"{found}.0")):
        raise UsageError(
            f"the {name} image needs a base with python3 {pinned.python}, found {found}",
            hint=f"make one: {rootfs.WITH_PYTHON}",
        )
    return interpreter


def _run_builder(
    daemon: docker.DockerClient,
    name: str,
    lock: str,
    base_image: str,
    files: list[Path],
    needed: list[pins.Requirement],
    log: Callable[[str], None],
) -> str:
    """Run the Dockerfile on wheels and lock; returns the id of an image without a name."""
    with tempfile.TemporaryFile() as context:
        _write_context(context, files, needed)
        context.seek(0)
        try:
            said = daemon.api.build(
                fileobj=context,
                custom_context=True,
                target=name,
                network_mode="none",
                rm=True,
                forcerm=True,
                decode=True,
                buildargs={"BASE": base_image},
                labels={LABEL: lock},
            )
            return _follow(said, name, log)
        finally:
            # the stage that held the wheels; what the result uses of it stays
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


def _follow(said: Iterator[dict[str, Any]], name: str, log: Callable[[str], None]) -> str:
    """Hand the builder's words on, line by line; returns the image's id or raises with the last of them."""
    image, recent = "", [""]
    for event in said:
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
