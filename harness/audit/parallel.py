"""Audit many folders in worker processes, each folder with a time and a memory limit, and report in order.

A folder that crashes its worker affects no other folder: a worker that dies or exceeds its time is replaced,
and the folder's report says so (`not-audited`). Only JSON passes between the processes. An executor of the
standard library cannot do this: one dead worker breaks it, and it cannot kill a worker.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from harness.audit import audit, cache
from harness.audit.folder import read_raw, unpack
from harness.base.signals import restore_defaults

SECONDS = 60.0
"""Time limit of one folder. Public ones take a fifth of a second; the slowest take 2 s."""
MEMORY_BYTES = 2 << 30
"""Address space of a worker: a folder that needs more is not audited."""
CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
Audit = Callable[[Path, Path | None], tuple[dict[str, Any], bool]]


class Audited(NamedTuple):
    """One folder's report, and whether it came from the cache."""

    report: dict[str, Any]
    cached: bool


class Worker:
    """One process and the index of the folder that it audits."""

    def __init__(self, work: Audit, cache_dir: Path | None) -> None:
        self.connection, remote = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_serve, args=(work, cache_dir, remote, os.getpid()), daemon=True
        )
        self.process.start()
        remote.close()
        self.index: int | None = None
        self.deadline = 0.0

    def start(self, index: int, folder: Path, seconds: float) -> None:
        """Send a folder to the process and start its clock."""
        self.index, self.deadline = index, time.monotonic() + seconds
        self.connection.send_bytes(os.fsencode(folder))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def audit_one(folder: Path, cache_dir: Path | None) -> tuple[dict[str, Any], bool]:
    """The report of a folder, and whether it came from the cache in `cache_dir`."""
    raw = read_raw(folder)
    name = cache.key(folder, raw)
    cached = cache.load(cache_dir, name) if cache_dir else None
    if cached is not None:
        path = {"folder": folder.as_posix()}
        return cached | path | {"record": cached["record"] and cached["record"] | path}, True
    report = audit.report(folder, unpack(raw))
    if cache_dir:
        cache.save(cache_dir, name, report)
    return report, False


def audit_all(
    folders: Sequence[Path],
    *,
    workers: int,
    cache_dir: Path | None,
    seconds: float = SECONDS,
    work: Audit = audit_one,
) -> Iterator[Audited]:
    """Reports in the order of `folders`, each as soon as it and those before it are ready.

    `seconds` is the time limit of one folder. Raises cache.CacheWriteError where the cache in `cache_dir`
    cannot be written. Closing the iterator stops the workers.
    """
    waiting = deque(enumerate(folders))
    ready: dict[int, Audited] = {}
    pool: list[Worker] = []
    following = 0
    try:
        while following < len(folders):
            while len(pool) < min(workers, len(waiting) + sum(worker.index is not None for worker in pool)):
                pool.append(Worker(work, cache_dir))
            for worker in pool:
                if worker.index is None and waiting:
                    index, folder = waiting.popleft()
                    worker.start(index, folder, seconds)
            busy = {worker.connection: worker for worker in pool if worker.index is not None}
            soonest = min((worker.deadline for worker in busy.values()), default=0.0)
            answering = wait(list(busy), timeout=max(0.0, soonest - time.monotonic()))
            for connection, worker in busy.items():
                assert worker.index is not None
                if connection in answering:
                    answer, lives = _answer(worker, folders[worker.index])
                elif time.monotonic() >= worker.deadline:
                    reason = f"it took more than {seconds:g} s"
                    answer, lives = _not_audited(folders[worker.index], reason), False
                else:
                    continue
                ready[worker.index], worker.index = answer, None
                if not lives:
                    worker.end()
                    pool.remove(worker)
            while following in ready:
                yield ready.pop(following)
                following += 1
    finally:
        for worker in pool:
            worker.end()


def _answer(worker: Worker, folder: Path) -> tuple[Audited, bool]:
    """What a worker reports of its folder, and whether the worker still runs."""
    try:
        answer = json.loads(worker.connection.recv_bytes())
    except (EOFError, OSError):
        worker.process.join(5)
        return _not_audited(folder, f"its process died (exit code {worker.process.exitcode})"), False
    if "cache_error" in answer:
        raise cache.CacheWriteError(answer["cache_error"])
    if "report" in answer:
        return Audited(answer["report"], answer["cached"]), True
    return _not_audited(folder, answer["reason"]), True


def _not_audited(folder: Path, reason: str) -> Audited:
    return Audited(audit.failed(folder, reason), False)


def _serve(work: Audit, cache_dir: Path | None, connection: Connection, parent: int) -> None:
    """A worker's loop: receive folders and send reports until the parent process is gone.

    Ctrl-C is for the parent, so the worker ignores it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    restore_defaults()
    _limit_memory()
    gc.freeze()
    gc.disable()  # searching for cycles would take a fifth of the time; once after each folder is enough
    while True:
        while not connection.poll(1.0):
            if os.getppid() != parent:
                return
        folder = Path(os.fsdecode(connection.recv_bytes()))
        answer: dict[str, Any]
        try:
            report, cached = work(folder, cache_dir)
            answer = {"report": report, "cached": cached}
        except cache.CacheWriteError as error:
            answer = {"cache_error": str(error)}
        except MemoryError:
            answer = {"reason": f"it needs more than {MEMORY_BYTES:,} bytes of memory"}
        except (
            Exception
        ) as error:  # our own fault in one folder must not stop the others; the report names it
            answer = {"reason": f"the audit failed ({type(error).__name__}: {str(error)[:200]})"}
        connection.send_bytes(json.dumps(answer).encode())
        gc.collect()


def _limit_memory() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ValueError, OSError):
        pass  # a lower limit is already set, or the system has none
