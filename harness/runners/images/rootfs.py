"""A root filesystem, as a folder or a tar, made into a base image: for machines whose engine has no registry.

    debootstrap --variant=minbase bookworm DIR                      has no Python: apt adds it, needs network
    debootstrap --variant=minbase --include=python3 bookworm DIR    has all that is needed; nothing is fetched

The image carries the label `pgolf.rootfs`, the sha256 of the tar that was imported. Not covered: what the
filesystem contains; whoever gives `--base` vouches for it, and the verdict names the image by its digest
anyway."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from docker.errors import APIError

from harness.base.errors import MachineFault, UsageError
from harness.base.files import sha256_of
from harness.runners.images.wheels import Interpreter

EMPTIED = ("proc", "sys", "dev", "run", "tmp", "var/cache/apt", "var/lib/apt/lists")
"""Folders kept, their content left out: the engine mounts the first ones itself, the last are apt's
leftovers."""

WITH_PYTHON = "debootstrap --variant=minbase --include=python3 bookworm DIR"

LABELS = {"pgolf.purpose": "image"}
"""On every container of an image's making, so that a person can tell what a killed build left."""

NOT_A_ROOT = "a tar of a root filesystem is needed, not one of an image (`docker export`, not `docker save`)"

_ASK = """
import json, platform, sys
print(json.dumps([list(sys.version_info[:2]), platform.machine(), platform.libc_ver()]))
"""


def ask(client: Any, image: str, command: list[str], **options: Any) -> tuple[int, str, str]:
    """Run a command in a container of `image` without network; exit status, stdout, stderr. Always removed
    after."""
    container = client.containers.create(
        image, command, entrypoint=[], network_mode="none", labels=LABELS, **options
    )
    try:
        container.start()
        status = int(container.wait()["StatusCode"])
        said = [
            container.logs(stdout=one, stderr=not one).decode("utf-8", "replace") for one in (True, False)
        ]
        return status, said[0], said[1]
    finally:
        container.remove(force=True)


def interpreter_of(client: Any, image: str) -> Interpreter | None:
    """What `python3` is in an image; None where there is none."""
    script = f"command -v python3 >/dev/null || exit 0; python3 -I - <<'PY'\n{_ASK}\nPY\n"
    try:
        status, said, complaint = ask(client, image, ["sh", "-c", script])
    except APIError as error:
        if "no such file" in str(error.explanation) or "not found" in str(error.explanation):
            return None  # not even a shell
        raise
    if status:
        raise UsageError(
            f"the base's python3 does not run: {complaint.strip()[-300:]}", hint=f"use {WITH_PYTHON}"
        )
    if not said.strip():
        return None
    version, machine, (library, glibc) = json.loads(said)
    if library != "glibc":
        raise UsageError("the base is no glibc system, wheels would not run there", hint=f"use {WITH_PYTHON}")
    major, minor = glibc.split(".")[:2]
    return Interpreter((version[0], version[1]), machine, (int(major), int(minor)))


def import_base(client: Any, source: Path, log: Callable[[str], None]) -> str:
    """Import a folder or tar as an image that has python3; returns its id."""
    log(f"importing {source}")
    with tempfile.TemporaryDirectory() as scratch:
        tar = source
        if source.is_dir():
            tar = Path(scratch) / "base.tar"
            with tar.open("wb") as file:
                pack(source, file)
        elif not source.is_file():
            raise UsageError(f"{source}: neither a folder nor a tar", hint=f"make one: {WITH_PYTHON}")
        label = f"LABEL pgolf.rootfs={sha256_of(tar)}"
        try:
            answer = client.api.import_image(src=str(tar), changes=[label])
        except APIError as error:
            raise UsageError(
                f"{source}: the engine cannot import it ({error.explanation})", hint=NOT_A_ROOT
            ) from error
    image = _status(answer, source)
    try:
        return image if interpreter_of(client, image) else _with_python(client, image, source, log)
    except BaseException:
        client.images.remove(image, force=True)
        raise


def pack(folder: Path, file: IO[bytes]) -> None:
    """Write a root filesystem as a tar: owners kept, the content of EMPTIED left out."""

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = member.name.removeprefix("./")
        return None if any(inside.startswith(f"{name}/") for name in EMPTIED) else member

    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(folder, arcname=".", filter=keep)
    except PermissionError as error:
        raise UsageError(
            f"{error.filename}: not readable",
            hint="a root filesystem belongs to root: use sudo, or pack "
            f"it with `sudo tar -C {folder} -cf base.tar .` and give the tar",
        ) from error


def _status(answer: str, source: Path) -> str:
    """The image id in the engine's answer to an import, a JSON object on each line."""
    for line in answer.splitlines():
        said = json.loads(line)
        if "error" in said:
            raise UsageError(f"{source}: the engine cannot import it ({said['error']})", hint=NOT_A_ROOT)
        if str(said.get("status", "")).startswith("sha256:"):
            return str(said["status"])
    raise MachineFault(f"the engine did not say what it made of {source}: {answer[:200]!r}")


def _with_python(client: Any, image: str, source: Path, log: Callable[[str], None]) -> str:
    """Add Debian's python3 in a container with network, for a base that lacks it."""
    log("the base has no python3: apt-get install python3 in a container")
    script = (
        "apt-get update && apt-get install -y --no-install-recommends python3 && apt-get clean "
        "&& rm -rf /var/lib/apt/lists/*"
    )
    container = client.containers.create(
        image, ["sh", "-c", script], labels=LABELS, environment={"DEBIAN_FRONTEND": "noninteractive"}
    )
    try:
        container.start()
        last = ""
        for raw in container.logs(stream=True, follow=True):
            last = raw.decode("utf-8", "replace").strip() or last
            log(last)
        if container.wait()["StatusCode"]:
            raise UsageError(
                f"{source}: it has no python3 and apt could not install it ({last[-300:]})",
                hint=f"make the base with it: {WITH_PYTHON}",
            )
        return str(container.commit(changes='CMD ["sh"]').id)
    except APIError as error:
        raise UsageError(
            f"{source}: it has no python3 and nothing to install it with ({error.explanation})",
            hint=f"make the base with it: {WITH_PYTHON}",
        ) from error
    finally:
        container.remove(force=True)
