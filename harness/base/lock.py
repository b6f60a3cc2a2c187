"""One process at a time makes a folder that several may want: the others wait, and then look again.

The lock is an empty hidden file beside the folder. The operating system releases it when its process ends,
however it ends; after a kill the file stays until the next process is done. The holder removes it before it
releases it: whoever gets a lock on the removed file notices and begins anew (filelock 4 does that).

A file system without locks is refused. Not covered: machines that share a disk whose locks hold on one
machine only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from harness.base import disk
from harness.base.errors import MachineFault
from harness.base.text import plain


def file_lock(path: Path) -> filelock.BaseFileLock:
    """A lock that ends with its process. Taking it raises OSError on a file system without locks; filelock's
    substitute there, a file that exists while the lock is held, would outlast a kill.
    """
    return filelock.FileLock(path, fallback_to_soft=False)


def lock_fault(error: OSError, path: Path, during: str) -> MachineFault:
    """What it means that the lock at `path` cannot be taken. `during`: what was being done."""
    fault = disk.machine_fault(error, path, during)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        fault.hint = f"remove {plain(str(path))}: expected no file there, or the regular file of a lock"
    return fault


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other processes from making or removing `target`, which need not exist, while the block runs.

    Waits for a process that has the lock, and says so on stderr: what was looked at before may be different
    afterwards. Raises MachineFault where the lock cannot be written.
    """
    path = target.with_name(f".{target.name}.lock")
    lock = file_lock(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            place = plain(str(target))
            print(f"{place}: another process is at work there: waiting for it", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise lock_fault(error, path, f"{target}: cannot be locked") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
