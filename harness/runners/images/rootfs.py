"""Make a base image from a root filesystem (a folder or a tar), for machines without a registry.

    debootstrap --variant=minbase bookworm DIR                      has no Python: apt adds it, needs network
    debootstrap --variant=minbase --include=python3 bookworm DIR    complete: needs no network

An image in which torch.compile must work needs COMPILER as well; WITH_PYTHON and WITH_COMPILER are commands.

The image carries the sha256 of the imported tar as the label `pgolf.rootfs`. The content of the filesystem is
not checked: whoever passes `--base` vouches for it. The verdict names the image by its digest.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import docker
from docker.errors import APIError

from harness.base.errors import MachineFault, UsageError
from harness.base.files import sha256_of
from harness.base.temporary import temporary_folder
from harness.runners.images.wheels import Interpreter

EMPTIED_FOLDERS = ("proc", "sys", "dev", "run", "tmp", "var/cache/apt", "var/lib/apt/lists")
"""Folders whose content is left out: the engine mounts proc, sys and dev itself, the others
hold temporary files."""

COMPILER = ("python3-dev", "g++", "openssl")
"""Debian's packages with what torch.compile and Triton start: Python's headers, the C and C++ compilers, and
openssl, by which Inductor hashes headers."""
WITH_PYTHON = "debootstrap --variant=minbase --include=python3 bookworm DIR"
WITH_COMPILER = f"debootstrap --variant=minbase --include=python3,{','.join(COMPILER)} bookworm DIR"

LABELS = {"pgolf.purpose": "image"}
"""Labels of every container that helps to build an image, so that a person can find what a
killed build left."""

IMPORT_HINT = "pass a tar of a root filesystem (`docker export`), not one of an image (`docker save`)"

COMPILER_SCRIPT = """
import os, shutil, sysconfig
headers = os.path.join(sysconfig.get_paths()["include"], "Python.h")
wanted = {name: shutil.which(name) for name in ("cc", "g++", "openssl")} | {headers: os.path.exists(headers)}
print(", ".join(name for name, there in wanted.items() if not there))
"""

INTERPRETER_SCRIPT = """
import json, platform, sys
print(json.dumps([list(sys.version_info[:2]), platform.machine(), platform.libc_ver()]))
"""


def run_command(
    client: docker.DockerClient, image: str, command: list[str], **options: Any
) -> tuple[int, str, str]:
    """Run a command in a new container of `image` without network, and remove the container.

    Returns exit status, stdout and stderr.
    """
    fixed = {"entrypoint": [], "network_mode": "none", "use_config_proxy": False, "labels": LABELS}
    container = client.containers.create(image, command, **{**options, **fixed})
    try:
        container.start()
        status = int(container.wait()["StatusCode"])
        stdout = container.logs(stdout=True, stderr=False).decode("utf-8", "replace")
        stderr = container.logs(stdout=False, stderr=True).decode("utf-8", "replace")
        return status, stdout, stderr
    finally:
        container.remove(force=True)


def interpreter_of(client: docker.DockerClient, image: str) -> Interpreter | None:
    """The image's `python3`, or None if it has none. Raises UsageError if it is broken or not on glibc."""
    script = f"command -v python3 >/dev/null || exit 0; python3 -I - <<'PY'\n{INTERPRETER_SCRIPT}\nPY\n"
    try:
        status, stdout, stderr = run_command(client, image, ["sh", "-c", script])
    except APIError as error:
        if "no such file" in str(error.explanation) or "not found" in str(error.explanation):
            return None  # not even a shell
        raise
    if status:
        raise UsageError(
            f"the base's python3 does not run: {stderr.strip()[-300:]}", hint=f"use {WITH_PYTHON}"
        )
    if not stdout.strip():
        return None
    version, machine, (library, glibc) = json.loads(stdout)
    if library != "glibc":
        raise UsageError(
            "the base does not use glibc: the wheels would not run there", hint=f"use {WITH_PYTHON}"
        )
    major, minor = glibc.split(".")[:2]
    return Interpreter((version[0], version[1]), machine, (int(major), int(minor)))


def missing_of_compiler(client: docker.DockerClient, image: str) -> str:
    """What an image with python3 lacks to compile code, in words; "" where it lacks nothing."""
    status, stdout, stderr = run_command(client, image, ["python3", "-I", "-c", COMPILER_SCRIPT])
    return stdout.strip() if status == 0 else f"a python3 that runs ({stderr.strip()[-300:]})"


def import_base(
    client: docker.DockerClient, source: Path, log: Callable[[str], None], more: tuple[str, ...] = ()
) -> str:
    """Import a folder or tar as an image that has python3; returns its id.

    `more`: Debian's packages to install beside python3, where that is missing.
    """
    recipe = WITH_COMPILER if more else WITH_PYTHON
    log(f"importing {source}")
    with temporary_folder() as scratch:
        tar = source
        if source.is_dir():
            tar = scratch / "base.tar"
            with tar.open("wb") as file:
                pack(source, file)
        elif not source.is_file():
            raise UsageError(f"{source}: neither a folder nor a tar", hint=f"make one: {recipe}")
        label = f"LABEL pgolf.rootfs={sha256_of(tar)}"
        try:
            answer = client.api.import_image(src=str(tar), changes=[label])
        except APIError as error:
            raise UsageError(
                f"{source}: the engine cannot import it ({error.explanation})", hint=IMPORT_HINT
            ) from error
    image = _imported_id(answer, source)
    try:
        return image if interpreter_of(client, image) else _install_python(client, image, source, log, more)
    except BaseException:
        client.images.remove(image, force=True)
        raise


def pack(folder: Path, file: IO[bytes]) -> None:
    """Write a root filesystem as a tar: file owners kept, the content of EMPTIED_FOLDERS left out."""

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = member.name.removeprefix("./")
        return None if any(inside.startswith(f"{name}/") for name in EMPTIED_FOLDERS) else member

    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(folder, arcname=".", filter=keep)
    except PermissionError as error:
        raise UsageError(
            f"{error.filename}: not readable",
            hint="a root filesystem belongs to root: use sudo, or pack "
            f"it with `sudo tar -C {folder} -cf base.tar .` and give the tar",
        ) from error


def _imported_id(answer: str, source: Path) -> str:
    """The image id from the engine's answer to an import, which is one JSON object a line."""
    for line in answer.splitlines():
        event = json.loads(line)
        if "error" in event:
            raise UsageError(f"{source}: the engine cannot import it ({event['error']})", hint=IMPORT_HINT)
        if str(event.get("status", "")).startswith("sha256:"):
            return str(event["status"])
    raise MachineFault(f"the engine imported {source} but named no image: {answer[:200]!r}")


def _install_python(
    client: docker.DockerClient, image: str, source: Path, log: Callable[[str], None], more: tuple[str, ...]
) -> str:
    """Install Debian's python3 and more packages in a container with network; returns the new image's id.

    The container gets no variables and no proxies of the user: the image would keep them, with passwords.
    """
    packages = " ".join(["python3", *more])
    log(f"the base has no python3: apt-get install {packages} in a container")
    script = (
        "export DEBIAN_FRONTEND=noninteractive; apt-get update "
        f"&& apt-get install -y --no-install-recommends {packages} && apt-get clean "
        "&& rm -rf /var/lib/apt/lists/*"
    )
    container = client.containers.create(image, ["sh", "-c", script], labels=LABELS, use_config_proxy=False)
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
