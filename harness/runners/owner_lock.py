"""A lock file that tells whether the run that owns a container is still alive.

Containers and volumes carry the path of their run's lock file as a label. A later run removes only what
a dead run left: it tries the lock (base/owner.py). A label whose file does not exist here belongs to another
machine and is left alone.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from harness.base.owner import lock_of_dead_owner
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
        """Releases the lock. `keep_file` if something that carries the label is left: without the file a
        later run could not tell that its owner is dead.
        """
        if not keep_file:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_dead(path: Path) -> bool:
    """Whether the owner of a lock file has died. False if it lives, or if this machine has no such file."""
    if (descriptor := lock_of_dead_owner(path)) is None:
        return False
    os.close(descriptor)
    return True
