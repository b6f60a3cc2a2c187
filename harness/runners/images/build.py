"""Find, build and verify the container images, each identified by the hash of its lock.

`build` collects wheels by hash, takes the base by digest (or imports the one given), and has the engine run
the Dockerfile (builder.py). The image gets its name only after it has been verified, so `find` never returns
the result of a failed build. See images/*/pins.yaml for the source of each pin and how far it is trusted.

A run records the id of its image, and `require_image` finds that very image, with or without a tag. Not
covered: engines that identify one image differently (docker's classic store and containerd's).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.base.text import quote
from harness.runners.docker_engine import connect, engine_faults
from harness.runners.images import pins, rootfs, wheels
from harness.runners.images.builder import LABEL, WITHOUT, BuildInputs, run_builder
from harness.runners.images.pins import lock_sha256
from harness.runners.images.verify import Verified, verify_image
from harness.runners.images.wheels import Interpreter

__all__ = ["LABEL", "Verified", "build", "engine", "find", "lacks", "lock_sha256", "require_image", "verify"]

IMAGE_ID = re.compile("sha256:[0-9a-f]{64}")
ENGINE_SECONDS = 1800
"""Time-out of one read from the engine, which sends nothing while it unpacks a large wheel."""


def lacks(labels: Mapping[str, str] | None) -> tuple[str, ...]:
    """The wheels that an image with these labels was built without; none where it is whole."""
    return tuple((labels or {}).get(WITHOUT, "").split())


def find(client: docker.DockerClient, name: str, root: Path = ROOT) -> str | None:
    """The id of the newest built image for the lock in the checkout `root`, or None.

    Where no image is whole, the one that lacks fewest wheels: `lacks` of its labels tells which.
    An image without a tag does not count: a build adds the tag last, so an untagged one is left from
    a killed build. Uses the engine's list alone and looks up no single image, which somebody may just remove.
    """
    return _best(_tagged(client, name, root))


def _tagged(client: docker.DockerClient, name: str, root: Path = ROOT) -> list[dict[str, Any]]:
    return [image for image in _of_lock(client, name, root) if _has_tag(image)]


def _best(images: list[dict[str, Any]]) -> str | None:
    """The id of the image that lacks fewest wheels, of these the newest; None where there are none."""
    best = max(images, key=lambda each: (-len(lacks(each["Labels"])), int(each["Created"])), default=None)
    return str(best["Id"]) if best else None


def find_untagged(client: docker.DockerClient, name: str, root: Path = ROOT) -> str | None:
    """The id of an image of the lock without a tag: loaded by its id, or left by a killed build."""
    return next((str(each["Id"]) for each in _of_lock(client, name, root) if not _has_tag(each)), None)


def _of_lock(client: docker.DockerClient, name: str, root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.api.images(filters={"label": f"{LABEL}={lock_sha256(name, root)}"})
    return found


def _has_tag(image: dict[str, Any]) -> bool:
    return bool(set(image["RepoTags"] or ()) - {"<none>:<none>"})


def require_image(client: docker.DockerClient, image: str, lock: str | None, recorded_in: Path) -> str:
    """Return `image`, the id that a run recorded in the file `recorded_in`, if the engine has that image.

    A tag is not needed: `docker save ID | docker load` brings none. `lock`: the recorded lock, `sha256:...`.
    Raises UsageError where the engine does not have the image, where it is not labelled with that lock, and
    for anything but an id, because a name may mean another image tomorrow.
    """
    if not IMAGE_ID.fullmatch(image):
        raise UsageError(
            f"{recorded_in}: '{quote(image)}' is no image id, expected sha256: and 64 hexadecimal digits",
            hint="the file was changed by hand: restore it",
        )
    try:
        found = client.images.get(image)
    except docker.errors.ImageNotFound:
        raise UsageError(
            f"{recorded_in}: was begun with image {image}, which this engine does not have",
            hint=f"another image gives other scores, even one built from the same lock. On the engine that "
            f"has it: `docker save {image} > image.tar`; here: `docker load < image.tar`",
        ) from None
    labelled = (found.labels or {}).get(LABEL)
    if f"sha256:{labelled}" != lock:
        source = "no lock" if labelled is None else f"lock sha256:{quote(labelled)}"
        recorded = "no lock" if lock is None else f"lock {quote(lock)}"
        raise UsageError(
            f"{recorded_in}: names image {image} and {recorded}, but that image was built from {source}",
            hint="the file was changed by hand: restore it",
        )
    return image


def build(
    name: str,
    base: Path | None = None,
    wheel_folder: Path | None = None,
    *,
    without: Collection[str] = (),
    force: bool = False,
    log: Callable[[str], None] = print,
    client: docker.DockerClient | None = None,
) -> str:
    """Build image `name` and return its id. An image that is built already is returned, unless `force`.

    `without`: wheels of the pins to leave out, for machines that cannot get them. That makes another image,
    with another name and the label WITHOUT; runs take it only where there is no whole one, and say so.

    `base`: folder or tar of a root filesystem, instead of the pinned base from a registry. `wheel_folder`:
    wheels fetched beforehand, instead of the package index. `log` gets one line at a time. Raises UsageError
    for what the user can correct (pins without hash, wrong wheels, a base without Python) and MachineFault
    for the engine.
    """
    pins.requirements(name, without=without)  # refuse a pin without hash before anything is downloaded
    pinned, left_out = pins.load(name).without(without), tuple(sorted(set(without)))
    with engine(client) as daemon, wheels.cache_locked():
        same = [image for image in _tagged(daemon, name) if lacks(image["Labels"]) == left_out]
        if (existing := None if force else _best(same)) is not None:
            log(f"{name}: built already, {existing}")
            return existing
        more = rootfs.COMPILER if pinned.compiles else ()
        base_image = rootfs.import_base(daemon, base, log, more) if base else _pull(daemon, pinned, log)
        try:
            return _build_on(daemon, name, left_out, base_image, wheel_folder, log)
        except BaseException:
            if base:
                with contextlib.suppress(docker.errors.APIError):
                    daemon.images.remove(base_image)  # we imported it, and nothing uses it
            raise


def _build_on(
    daemon: docker.DockerClient,
    name: str,
    without: tuple[str, ...],
    base_image: str,
    wheel_folder: Path | None,
    log: Callable[[str], None],
) -> str:
    """Collect wheels, build, verify, tag: in this order, so that only a verified image gets a tag."""
    pinned, lock = pins.load(name).without(without), lock_sha256(name)
    interpreter = _base_interpreter(daemon, name, pinned, base_image)
    needed = [
        requirement
        for requirement in pins.requirements(name, without=without)
        if requirement.applies_to(interpreter.environment)
    ]
    if wheel_folder:
        files = wheels.from_folder(wheel_folder, needed, interpreter, pinned.wheels)
    else:
        files = wheels.downloaded(name, lock, needed, interpreter, pinned.wheels, log)
    image = run_builder(daemon, BuildInputs(name, lock, base_image, files, needed, without), log)
    try:
        checked = verify(daemon, name, image)
    except BaseException:
        daemon.images.remove(image, force=True)
        raise
    repository = "-without-".join([f"pgolf-{name}", *without])
    daemon.images.get(image).tag(repository, lock[:12])
    log(f"{repository}: {image}, Python {checked.python}, {len(checked.versions)} packages as locked")
    return image


def verify(client: docker.DockerClient, name: str, image: str | None = None) -> Verified:
    """Check an image, by default the one that runs use, against today's lock (verify.py)."""
    image = image or find(client, name)
    if image is None:
        raise UsageError(
            f"no image {name!r} is built for the lock {lock_sha256(name)[:12]}",
            hint=f"build it: pgolf image build {name}",
        )
    return verify_image(client, name, image, lacks(client.images.get(image).labels))


@contextlib.contextmanager
def engine(client: docker.DockerClient | None = None) -> Iterator[docker.DockerClient]:
    """A client with a time-out long enough for a build. Failures of the engine become MachineFault."""
    with engine_faults("building or verifying an image"):
        if client is not None:
            yield client
            return
        with contextlib.closing(connect(ENGINE_SECONDS)) as own:
            yield own


def _pull(daemon: docker.DockerClient, pinned: pins.Pins, log: Callable[[str], None]) -> str:
    """The pinned base from the engine's own store or a registry, by digest."""
    base = pinned.base
    with contextlib.suppress(docker.errors.ImageNotFound):
        return str(daemon.images.get(base.pinned).id)
    log(f"pulling {base.pinned} ({base.status}: {base.provenance})")
    try:
        daemon.images.pull(base.pinned)
        return str(daemon.images.get(base.pinned).id)
    except (docker.errors.APIError, requests.RequestException) as error:
        raise MachineFault(
            f"the engine cannot pull {base.pinned}: {error}",
            hint=f"without a registry give a root filesystem: --base DIR, made by {_recipe(pinned)}",
        ) from error


def _recipe(pinned: pins.Pins) -> str:
    """The command that makes a root filesystem for this image."""
    return rootfs.WITH_COMPILER if pinned.compiles else rootfs.WITH_PYTHON


def _base_interpreter(
    daemon: docker.DockerClient, name: str, pinned: pins.Pins, base_image: str
) -> Interpreter:
    """The base's Python. Raises UsageError if the lock was not made for its version, and where code is to be
    compiled in the image and the base lacks what that takes.
    """
    recipe = _recipe(pinned)
    interpreter = rootfs.interpreter_of(daemon, base_image)
    found = "none" if interpreter is None else ".".join(map(str, interpreter.version))
    if interpreter is None or not SpecifierSet(pinned.python).contains(Version(f"{found}.0")):
        raise UsageError(
            f"the {name} image needs a base with python3 {pinned.python}, found {found}",
            hint=f"make one: {recipe}",
        )
    if pinned.compiles and (missing := rootfs.missing_of_compiler(daemon, base_image)):
        raise UsageError(
            f"the {name} image needs a base on which torch.compile works, and this one lacks {missing}",
            hint=f"make one: {recipe}",
        )
    return interpreter
