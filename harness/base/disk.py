"""Disks: how much room there is, and what an error of the operating system means for the user.

`require_room` compares estimates with the room at one moment; another process can fill the disk afterwards,
and then the write fails and `machine_fault` names the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.base.errors import MachineFault
from harness.base.paths import home
from harness.base.text import plain

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = "this user may not use the path: change its permissions or its owner, or name another path"
NO_MEMORY = "the system has no memory or no process left for this user: end other programs, and try again"
NO_SUPPORT = (
    "the file system there does not support this, as some network folders support no locks and sockets: use "
    "a folder on a local disk (TMPDIR for temporary files, PGOLF_HOME for caches, --runs for run folders)"
)
HINTS = {
    errno.ENOENT: "check how the path is written: no such file or folder exists, or it was removed meanwhile",
    errno.ENOTDIR: "check how the path is written: what it takes for a folder is a file",
    errno.ELOOP: "symbolic links on this path lead in a circle: name another path, or replace the links",
    errno.EACCES: NO_PERMISSION,
    errno.EPERM: NO_PERMISSION,
    errno.EROFS: "its disk is mounted read-only: name a path on another disk, or mount this one for writing",
    errno.EMFILE: "raise the number of files that a process may open, e.g. `ulimit -n 4096`, and try again",
    errno.ENFILE: "the system has no room for another open file: end other programs, and try again",
    errno.EIO: "the disk or the connection to it may be failing: look at the system's log",
    errno.ESTALE: "the network folder was mounted anew or is gone: mount it again, and try again",
    errno.EAGAIN: NO_MEMORY,
    errno.ENOMEM: NO_MEMORY,
    errno.EOPNOTSUPP: NO_SUPPORT,
    errno.ENOLCK: NO_SUPPORT,
    errno.ENOSYS: NO_SUPPORT,
    errno.EFBIG: "the file system or `ulimit -f` allows no file of this size: use another disk or limit",
}
MAX_PATH = 240
"""The most characters of a path in a message."""
OTHER_HINT = "the operating system refused this: see what it says, and repeat the command"


class Disk(NamedTuple):
    """The disk on which a path lies, or will lie when it is made."""

    path: Path
    device: str
    mount: str
    free_bytes: int
    """What this user may still write."""
    total_bytes: int

    def __str__(self) -> str:
        return f"the disk of {_shown(self.path)} ({plain(self.device)} at {plain(self.mount)})"


def disk_of(path: Path) -> Disk:
    """The disk of `path`, which need not exist: then the disk of the nearest folder above it that does.

    Raises OSError where symbolic links on the path lead in a circle.
    """
    real = Path(os.path.realpath(path))  # Path.resolve may raise RuntimeError for links in a circle
    # os.path.lexists is False, and raises nothing, for a path that this user may not see
    existing = next(folder for folder in (real, *real.parents) if os.path.lexists(folder))
    usage = shutil.disk_usage(existing)  # a link that is left in `real` leads in a circle
    mounts = [each for each in psutil.disk_partitions(all=True) if existing.is_relative_to(each.mountpoint)]
    mounted = max(mounts, key=lambda each: len(each.mountpoint), default=None)
    device, mount = (mounted.device, mounted.mountpoint) if mounted else ("an unknown device", "/")
    return Disk(path, device, mount, usage.free, usage.total)


def require_room(places: Mapping[Path, int]) -> None:
    """Raises MachineFault if a disk has fewer free bytes than its places need together.

    `places`: the bytes that will be written under each path, which need not exist yet.
    """
    by_mount: dict[str, list[Path]] = defaultdict(list)
    disks = {path: disk_of(path) for path in places}
    for path, disk in disks.items():
        by_mount[disk.mount].append(path)
    for paths in by_mount.values():
        disk, needed = disks[paths[0]], sum(places[path] for path in paths)
        if disk.free_bytes < needed:
            others = "".join(f" and {_shown(path)}" for path in paths[1:])
            raise MachineFault(
                f"{disk} has {disk.free_bytes:,} bytes free, {needed:,} are needed for "
                f"{_shown(paths[0])}{others}",
                hint="free some room, or use another disk: --runs for the run folders, TMPDIR for temporary "
                "files, PGOLF_HOME for datasets",
            )


def machine_fault(error: OSError, place: Path | None = None, during: str = "") -> MachineFault:
    """What an error of the operating system means, in words, with what to do about it.

    `place`: what was read or written, for an error that names no path; `during`: what was being done.
    """
    name = error.filename
    if error.errno in FULL and error.filename2 is not None:
        name = error.filename2  # a copy names its source first, but it is the disk of the target that is full
    named = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else place
    if error.errno in FULL:
        message, hint = _full(named, error.errno)
    else:
        message = error.strerror or str(error) or type(error).__name__
        message = f"{_shown(named)}: {plain(message)}" if named else plain(message)
        hint = HINTS.get(error.errno or 0, OTHER_HINT)
    if named is not None and named.is_relative_to(home()):
        hint += "; PGOLF_HOME says where this folder is"
    return MachineFault(f"{during}: {message}" if during else message, hint=hint)


def _shown(path: Path) -> str:
    """A path for a message. Of a long one the middle is left out."""
    text = plain(str(path))
    return text if len(text) <= MAX_PATH else f"{text[: MAX_PATH // 2]}...{text[-MAX_PATH // 2 :]}"


def _full(named: Path | None, number: int | None) -> tuple[str, str]:
    """Message and hint for a full disk. Without a path: the fullest disk of those that are written to."""
    written = (Path.cwd(), Path(tempfile.gettempdir()), home()) if named is None else (named,)
    disk = min(map(disk_of, written), key=lambda each: each.free_bytes)
    if number == errno.EDQUOT:
        return f"this user's quota is used up on {disk}", "delete files there, or ask for a larger quota"
    # What could not be written has been removed by now, so there may be room again
    message = f"{disk} ran full: {disk.free_bytes:,} bytes are free now"
    return message, "free some room, and repeat the command"
