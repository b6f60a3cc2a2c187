"""Temporary folders that other processes can tell from those of a command that was killed.

The name of each starts with `pgolf-`, and its owner holds a lock on the file `.owner` in it. The operating
system releases the lock when the owner dies, however it dies. A later command takes the lock of each such
folder; where it gets it, no process uses the folder, and it is removed.

Not covered: folders of other users, and those in another TMPDIR than that of the command that looks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.base.errors import MachineFault
from harness.base.owner import lock_of_dead_owner
from harness.base.text import quote

PREFIX, UNLOCKED_PREFIX = "pgolf-", ".pgolf-"
"""Names of locked folders, and of folders that are empty because their owner has not locked them yet."""
LOCK_NAME = ".owner"


def temporary_root() -> Path:
    """Where temporary folders are made: TMPDIR, else the system's folder.

    Raises MachineFault where TMPDIR cannot be used, and where nothing but the working folder is left: Python
    would take another folder without a word.
    """
    named, found = os.environ.get("TMPDIR"), Path(tempfile.gettempdir()).absolute()
    if named and not (os.path.isdir(named) and os.access(named, os.W_OK | os.X_OK)):
        raise MachineFault(
            f"TMPDIR names {quote(named)}, which is no folder that this user can write to",
            hint="make that folder, name another one, or unset TMPDIR for the system's /tmp",
        )
    if not named and found == Path.cwd():
        raise MachineFault(
            "this user can write to no folder for temporary files (/tmp, /var/tmp)",
            hint="name one with TMPDIR, on a local disk",
        )
    return found


class TemporaryFolder:
    """A new folder that only this user can enter; `remove` removes it with its content."""

    def __init__(self) -> None:
        unlocked = Path(tempfile.mkdtemp(prefix=UNLOCKED_PREFIX, dir=temporary_root()))
        try:
            self._descriptor = _locked_file(unlocked / LOCK_NAME)
            # Renamed with the lock held, so that nobody ever meets it under its final name without an owner
            self.path = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix(".")))
        except OSError:  # for example a full disk
            remove_tree(unlocked)
            raise

    def remove(self) -> None:
        remove_tree(self.path)
        os.close(self._descriptor)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """The path of a TemporaryFolder, for the length of a `with` block."""
    folder = TemporaryFolder()
    try:
        yield folder.path
    finally:
        folder.remove()


class Removed(NamedTuple):
    """What `remove_abandoned` removed."""

    folders: int
    n_bytes: int


def remove_abandoned() -> Removed:
    """Remove this user's temporary folders whose owner has died. Those in use are not touched, and none where
    something is mounted: what is mounted is not ours.
    """
    n_folders = n_bytes = 0
    mounts = [Path(each.mountpoint) for each in psutil.disk_partitions(all=True)]
    for folder in temporary_root().resolve().glob(f"{PREFIX}*"):
        if not _is_own_folder(folder) or any(mount.is_relative_to(folder) for mount in mounts):
            continue
        if (descriptor := lock_of_dead_owner(folder / LOCK_NAME)) is None:
            continue
        n_bytes += remove_tree(folder)
        n_folders += not folder.exists()
        os.close(descriptor)
    return Removed(n_folders, n_bytes)


def _locked_file(path: Path) -> int:
    """A new file, opened and locked. On a file system without locks the file is removed: nobody can take the
    folder for abandoned then.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        path.unlink()
    return descriptor


def _is_own_folder(folder: Path) -> bool:
    """Whether it is a real folder of this user: anybody may create names in the temporary folder."""
    try:
        status = folder.stat(follow_symlinks=False)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not folder.is_symlink() and folder.is_dir()


def remove_tree(root: Path) -> int:
    """Remove a folder that a stranger wrote to, whatever its depth and permissions; return its bytes.

    Moves each subfolder directly under `root` before emptying it, so that paths do not grow with
    the depth. What cannot be removed stays, without an error.
    """
    pending, n_bytes = [root], 0
    prefix = uuid.uuid4().hex  # of names that the stranger could not take beforehand
    for folder in pending:
        try:
            folder.chmod(0o700)
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    moved = root / f"{prefix}.{len(pending)}"
                    if folder == root:  # it is in place already
                        moved = Path(os.path.abspath(entry.path))
                    pending.append(moved)
                    os.rename(entry.path, moved)
                else:
                    size = entry.stat(follow_symlinks=False).st_size
                    os.unlink(entry.path)
                    n_bytes += size
        except OSError:
            continue
    for folder in reversed(pending):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return n_bytes
