"""Who owns a container: a lock file that the operating system releases when its process dies, however it
dies.

Containers and volumes carry the path of their owner's lock as a label. A later run may remove what a dead
owner left, and only that: it tries the lock, and a lock that can be taken has no living owner (no pid is
compared, so none can be mistaken after a reboot). A label that points to no file here is another machine's
and is left alone."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from harness.base.paths import home


class OwnerLock:
    """Held for the life of a runner."""

    def __init__(self) -> None:
        folder = home() / "owners"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{uuid.uuid4().hex}.lock"
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self, keep_file: bool = False) -> None:
        """`keep_file` where something is left that carries the label: without the file nobody would dare to
        remove it."""
        if not keep_file:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_dead(path: Path) -> bool:
    """Whether the owner behind a lock file has died. False for a living one and for one that is not of this
    machine."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
