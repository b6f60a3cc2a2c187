"""Collect the wheels of an image, from a folder or from the package index, and check their hashes.

A wheel is used only if its hash is in the lock, so neither the folder nor the index is trusted. Each wheel is
downloaded into `partial/` and moved into the cache once its hash is right, so an interrupted download
continues with the first missing wheel, and with its missing bytes where the wheel is not from an index.
Source distributions are never used. Two builds, and `clean`, wait for each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from harness.base import download, paths, pip_settings
from harness.base.errors import MachineFault, UsageError
from harness.base.files import sha256_of, write_bytes
from harness.base.lock import locked
from harness.base.temporary import temporary_folder
from harness.runners.images.pins import Requirement, Wheel

OLDEST_GLIBC_MINOR = 12
"""glibc 2.12 (manylinux2010): no wheel in our locks is built for an older one."""
MAX_WHEEL_BYTES = 4 << 30


class Interpreter(NamedTuple):
    """The Python inside an image.

    version: (major, minor). machine: `x86_64` or `aarch64`. glibc: (2, minor).
    """

    version: tuple[int, int]
    machine: str
    glibc: tuple[int, int]

    @property
    def platforms(self) -> list[str]:
        """Wheel platform tags that this interpreter can use, newest first."""
        minors = range(self.glibc[1], OLDEST_GLIBC_MINOR - 1, -1)
        return [
            *(f"manylinux_2_{minor}_{self.machine}" for minor in minors),
            f"manylinux2014_{self.machine}",
            f"linux_{self.machine}",
        ]

    @property
    def tags(self) -> set[Tag]:
        return {
            *cpython_tags(self.version, platforms=self.platforms),
            *compatible_tags(self.version, f"cp{self.version[0]}{self.version[1]}", self.platforms),
        }

    @property
    def environment(self) -> dict[str, str]:
        """The values that a requirement's marker is evaluated with."""
        python = f"{self.version[0]}.{self.version[1]}"
        return {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.machine,
            "os_name": "posix",
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
        }


def candidates(folder: Path, requirement: Requirement, interpreter: Interpreter) -> list[Path]:
    """Wheels in `folder` whose names match this requirement and this Python; their hashes are not checked."""
    fitting = []
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if (
            canonicalize_name(name) == requirement.name
            and SpecifierSet(f"=={requirement.version}").contains(version)
            and tags & interpreter.tags
        ):
            fitting.append(path)
    return fitting


def _verified(folder: Path, requirement: Requirement, interpreter: Interpreter) -> Path | None:
    """The wheel whose hash is in the lock, or None if no wheel matches by name.

    Raises UsageError if wheels match by name but none by hash.
    """
    found = {path: sha256_of(path) for path in candidates(folder, requirement, interpreter)}
    for path, digest in found.items():
        if digest in requirement.sha256s:
            return path
    for path, digest in found.items():
        expected = ", ".join(sorted(requirement.sha256s)[:2]) + (
            " ..." if len(requirement.sha256s) > 2 else ""
        )
        raise UsageError(
            f"{path}: its sha256 is not in the lock\n  found    {digest}\n  expected {expected}",
            hint="delete the file and get it again from a source you trust; if the lock should contain it, "
            "make the lock again with images/relock.py",
        )
    return None


def _elsewhere(wheel: Wheel) -> str:
    """What to do about a wheel that is in no package index."""
    return (
        f"{wheel.name} is at {wheel.url}; `--without {wheel.name}` builds another image, without it, and "
        "every run, verdict and report that uses that image says so"
    )


def from_folder(
    folder: Path, needed: list[Requirement], interpreter: Interpreter, extra: Collection[Wheel] = ()
) -> list[Path]:
    """The wheels of all requirements from a folder. Raises UsageError that names all missing ones.

    `extra`: the wheels among them that are in no package index.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder of wheels", hint="leave out --wheels to have them downloaded"
        )
    chosen, missing = [], []
    for requirement in needed:
        path = _verified(folder, requirement, interpreter)
        if path is None:
            missing.append(f"{requirement.name}=={requirement.version}")
        else:
            chosen.append(path)
    if missing:
        python = ".".join(map(str, interpreter.version))
        links = {f"{wheel.name}=={wheel.version}": _elsewhere(wheel) for wheel in extra}
        hints = [links[each] for each in missing if each in links]
        if in_index := [each for each in missing if each not in links]:
            hints.append(
                f"pip download --no-deps --only-binary=:all: --python-version {python} "
                f"--platform {interpreter.platforms[0]} --dest {folder} {' '.join(in_index)}"
            )
        raise UsageError(
            f"{folder}: no wheel for Python {python} on {interpreter.machine} of {', '.join(missing)}",
            hint="; ".join(hints),
        )
    return chosen


def cache() -> Path:
    """The folder of downloaded wheels under PGOLF_HOME."""
    return paths.home() / "wheels"


def cache_locked() -> AbstractContextManager[None]:
    """For one process at a time: filling the cache, building an image of it, and removing it."""
    return locked(cache())


def downloaded(
    name: str,
    lock: str,
    needed: list[Requirement],
    interpreter: Interpreter,
    extra: list[Wheel],
    log: Callable[[str], None],
) -> list[Path]:
    """The wheels of all requirements from the cache under PGOLF_HOME; downloads those that are missing.

    The caller holds `cache_locked`.
    """
    python = ".".join(map(str, interpreter.version))
    folder = cache() / f"{name}-{lock[:12]}-cp{python}-{interpreter.machine}"
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    links = {wheel.name: wheel for wheel in extra}
    chosen = []
    for number, requirement in enumerate(needed, start=1):
        path = _verified(folder, requirement, interpreter)
        if path is None:
            log(f"wheel {number}/{len(needed)}: {requirement.name} {requirement.version}")
            if requirement.name in links:
                _fetch_pinned(links[requirement.name], folder / "partial")
            else:
                _pip_download(requirement, interpreter, folder / "partial")
            path = _verified(folder / "partial", requirement, interpreter)
            if path is None:
                raise MachineFault(
                    f"the download of {requirement.name}=={requirement.version} left no wheel that fits",
                    hint=f"look into {folder / 'partial'}",
                )
            path = path.replace(folder / path.name)
        chosen.append(path)
    return chosen


def _pip_download(requirement: Requirement, interpreter: Interpreter, folder: Path) -> None:
    """Download one wheel with pip, which checks the hash too. Raises MachineFault if pip fails."""
    done = pip_settings.download(
        requirement.text(),
        folder,
        *("--implementation", "cp", "--python-version", ".".join(map(str, interpreter.version))),
        *(option for platform in interpreter.platforms for option in ("--platform", platform)),
    )
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-600:]
        hint = "is the package index reachable? what is already here is kept; or give a folder with --wheels"
        if requirement.name == "torch":
            hint += (
                "; the CPU builds of torch are in the PyTorch project's own CPU index: name it in "
                "PIP_EXTRA_INDEX_URL"
            )
        raise MachineFault(
            f"pip could not get {requirement.name}=={requirement.version}: {output}", hint=hint
        )


def _fetch_pinned(wheel: Wheel, folder: Path) -> None:
    """Download a wheel that is in no package index. The error says what can be done without it."""
    try:
        fetch(wheel.url, folder / wheel.file)
    except MachineFault as error:
        raise MachineFault(error.message, hint=f"{error.hint}; {_elsewhere(wheel)}") from error


def fetch(url: str, path: Path) -> None:
    """Download one file, after the part that an earlier call left; the caller checks its hash."""
    partial = path.with_name(f"{path.name}.part")
    download.fetch(url, partial, max_bytes=MAX_WHEEL_BYTES)
    partial.replace(path)


def fill_in(pins_file: Path, wheel: Wheel) -> str:
    """Download a wheel whose pin has no hash yet, write its sha256 into pins.yaml and return it.

    Later builds are then repeatable, but the wheel is no more trustworthy than before, so its status
    stays. Raises MachineFault if the download fails, UsageError if pins.yaml has no `sha256: null`
    for this wheel.
    """
    with temporary_folder() as scratch:
        path = scratch / wheel.file
        fetch(wheel.url, path)
        digest = sha256_of(path)
    text = pins_file.read_text(encoding="utf-8")
    entry = re.compile(rf"(- name: {re.escape(wheel.name)}\n(?:(?!- name:).*\n)*?\s+sha256: )null\b")
    filled, count = entry.subn(rf"\g<1>{digest}", text)
    if count != 1:
        raise UsageError(
            f"{pins_file}: no `sha256: null` under {wheel.name}", hint=f"write sha256: {digest} there"
        )
    write_bytes(pins_file, filled.encode("utf-8"))
    return digest
