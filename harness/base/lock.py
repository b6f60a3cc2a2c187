"""One process at a time makes a folder that several may want: the others wait, and then look again.

The lock is an empty hidden file beside the folder. The operating system releases it when its process ends,
however it ends; after a kill the file stays until the next process is done. The holder removes it before it
releases it: whoever gets a lock on the removed file notices and begins anew (filelock does that).

Not covered: two machines that share a disk without locks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from harness.base import disk
from harness.base.text import plain


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other processes from making or removing `target`, which need not exist, while the block runs.

    Waits for a process that has the lock, and says so on stderr: what was looked at before may be different
    afterwards. Raises MachineFault where the lock cannot be written.
    """
    path = target.with_name(f".{target.name}.lock")
    lock = filelock.FileLock(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            place = plain(str(target))
            print(f"{place}: another process is at work there: waiting for it", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise disk.machine_fault(error, path, f"{target}: cannot be locked") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
