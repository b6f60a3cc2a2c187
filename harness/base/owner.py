"""Whether the process that holds the lock of a file is alive.

The operating system releases a lock when its process dies, however it dies. So whoever gets the lock of
a file that its owner would hold knows that the owner is dead. No pid is compared, because pids are reused,
for instance after a reboot.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_of_dead_owner(path: Path) -> int | None:
    """The file, opened and locked: the caller closes the descriptor. None where the owner lives, and where
    there is no such file or no lock can be taken.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
