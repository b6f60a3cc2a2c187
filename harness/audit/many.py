"""Many folders at once: workers of their own process, each folder under a clock and a memory limit, reports
in order.

What one folder does to its worker costs that folder alone: a worker that dies or runs over its time is
replaced, and the folder's report says so (`not-audited`). Nothing but JSON passes between the processes. An
executor of the standard library cannot do this: one dead worker breaks it, and it kills none. Not covered:
what is asked of a folder (audit.py)."""

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
from harness.audit.folder import hold, opened

SECONDS = 60.0
"""Of one folder. Public ones take a fifth of a second; the slowest take 2 s."""
MEMORY_BYTES = 2 << 30
"""Address space of a worker: a folder that needs more is not audited."""
CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
Audit = Callable[[Path, Path | None], tuple[dict[str, Any], bool]]


class Audited(NamedTuple):
    """One folder's report, and whether it was kept from before."""

    report: dict[str, Any]
    known: bool


class Worker:
    """One process and the folder it is at."""

    def __init__(self, work: Audit, kept: Path | None) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(work, kept, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.at: int | None = None
        self.deadline = 0.0

    def give(self, at: int, folder: Path, seconds: float) -> None:
        """Hands over a folder, whose clock starts."""
        self.at, self.deadline = at, time.monotonic() + seconds
        self.connection.send_bytes(os.fsencode(folder))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def one(folder: Path, kept: Path | None) -> tuple[dict[str, Any], bool]:
    """The report of a folder, from the cache in `kept` where it holds it, and whether it did."""
    held = hold(folder)
    name = cache.key(folder, held)
    known = cache.load(kept, name) if kept else None
    if known is not None:
        here = {"folder": folder.as_posix()}
        return known | here | {"record": known["record"] and known["record"] | here}, True
    report = audit.report(folder, opened(held))
    if kept:
        cache.save(kept, name, report)
    return report, False


def many(
    folders: Sequence[Path], *, workers: int, kept: Path | None, seconds: float = SECONDS, work: Audit = one
) -> Iterator[Audited]:
    """Reports in the order of `folders`, each as soon as it and those before it are there.

    `seconds` is the clock of one folder. Raises cache.NotKept where the cache in `kept` cannot be written.
    Stopping early stops the workers."""
    waiting = deque(enumerate(folders))
    ready: dict[int, Audited] = {}
    pool: list[Worker] = []
    following = 0
    try:
        while following < len(folders):
            while len(pool) < min(workers, len(waiting) + sum(worker.at is not None for worker in pool)):
                pool.append(Worker(work, kept))
            for worker in pool:
                if worker.at is None and waiting:
                    at, folder = waiting.popleft()
                    worker.give(at, folder, seconds)
            busy = {worker.connection: worker for worker in pool if worker.at is not None}
            soonest = min((worker.deadline for worker in busy.values()), default=0.0)
            heard = wait(list(busy), timeout=max(0.0, soonest - time.monotonic()))
            for connection, worker in busy.items():
                assert worker.at is not None
                if connection in heard:
                    answer, lives = _answer(worker, folders[worker.at])
                elif time.monotonic() >= worker.deadline:
                    answer, lives = (
                        _not_audited(folders[worker.at], f"it took more than {seconds:g} s"),
                        False,
                    )
                else:
                    continue
                ready[worker.at], worker.at = answer, None
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
    """What a worker says of its folder, and whether it goes on."""
    try:
        said = json.loads(worker.connection.recv_bytes())
    except (EOFError, OSError):
        worker.process.join(5)
        return _not_audited(folder, f"its process died (exit code {worker.process.exitcode})"), False
    if "not_kept" in said:
        raise cache.NotKept(said["not_kept"])
    return (
        Audited(said["report"], said["known"]) if "report" in said else _not_audited(folder, said["reason"])
    ), True


def _not_audited(folder: Path, reason: str) -> Audited:
    return Audited(audit.failed(folder, reason), False)


def _serve(work: Audit, kept: Path | None, connection: Connection, parent: int) -> None:
    """A worker: folders in, reports out, until the parent is gone. It takes no signal meant for the
    command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _limit_memory()
    gc.freeze()
    # a fifth of the time would go into looking for cycles, which trees have none of; after each folder is
    # enough
    gc.disable()
    while True:
        while not connection.poll(1.0):
            if os.getppid() != parent:
                return
        folder = Path(os.fsdecode(connection.recv_bytes()))
        said: dict[str, Any]
        try:
            report, known = work(folder, kept)
            said = {"report": report, "known": known}
        except cache.NotKept as error:
            said = {"not_kept": str(error)}
        except MemoryError:
            said = {"reason": f"it needs more than {MEMORY_BYTES:,} bytes of memory"}
        except (
            Exception
        ) as error:  # a fault of ours in one folder must not cost the others; its name is in the report
            said = {"reason": f"the audit failed ({type(error).__name__}: {str(error)[:200]})"}
        connection.send_bytes(json.dumps(said).encode())
        gc.collect()


def _limit_memory() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ValueError, OSError):
        pass  # a lower limit holds already, or the system has none
