"""One interface for every place where a contestant can run, and what all of them share.

A stage is one process (tree) with one socket, the inputs of its stage, an /out of bounded size, a bounded
log, and no way to outlive its context. The referee sees only `Stage`. Not covered: what is said over the
socket (referee.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from harness.base.errors import MachineFault, Violation
from harness.edition import Limits
from harness.protocol.wire import Listener

COOPERATIVE = "cooperative: a channel outside the socket was not excluded"
"""What a runner that isolates nothing leaves open: a contestant in reach of the machine's files can read the
text by itself."""


@dataclass(frozen=True)
class StageSpec:
    """What one stage is given, and nothing else."""

    run_id: str
    """Names the run on labels and temporary folders; never decides anything."""
    stage: str
    inputs: Mapping[str, Path]
    """Name under /in -> file or folder of the host; copied before the start, so nothing of the run can be
    touched."""
    limits: Limits
    log: Path
    """Where stdout and stderr go."""
    out_bytes: int
    command: tuple[str, ...] = ("code.pyz",)
    """The program's arguments; a word that names an input stands for its path under /in."""
    program: str | None = None
    """What is started: a name on the runner's PATH, a path, or an input. None: the runner's own Python."""

    def argv(self, python: str, inside: Callable[[str], str]) -> list[str]:
        """The words to start. `inside` gives an input's path as the contestant sees it."""
        words = [self.program or python, *self.command]
        return [inside(word) if word in self.inputs else word for word in words]

    @property
    def gpus(self) -> int:
        """GPUs that the stage may use: none in describe and pack, whatever the profile has."""
        return self.limits.gpus if self.stage in ("train", "score") else 0


class Stage(Protocol):
    """A running contestant. Leaving its context kills whatever is left of it."""

    listener: Listener
    started: float
    """time.monotonic() at the start of the process or container: the setup clock's zero."""
    out: str
    """/out as the contestant sees it."""

    def inside(self, name: str) -> str:
        """The path of an input as the contestant sees it."""
        ...

    def watch(self) -> None:
        """Raises Violation when the contestant died or took more than its share, MachineFault when the
        machine failed."""
        ...

    def freeze(self) -> None:
        """Stops every instruction of the contestant, so that /out stays as it stands."""
        ...

    def collect(self, destination: Path) -> None:
        """Copies /out to `destination`, refusing links and special files; to be called after `freeze` or the
        end."""
        ...

    def wait(self, seconds: float) -> None:
        """Gives the contestant up to `seconds` to end by itself."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Runner(Protocol):
    """Starts stages."""

    name: str
    isolation: str
    """One sentence for the verdict: what separates the contestant from the machine."""
    isolated: bool

    @property
    def image(self) -> str | None:
        """Digest of the image, or null where none is used."""
        ...

    def start(self, spec: StageSpec) -> Stage: ...

    def clear_channels(self, limits: Limits) -> str:
        """Between a scorer and its witness: makes useless what both could touch; says in a sentence what was
        done."""
        ...

    def close(self) -> None: ...


SPIN_COUNT = 1000
"""How long an OpenMP thread spins for its next piece of work before it gives its core back. GNU's own 300,000
is no faster on a free machine, and up to 60 times slower where other processes share the cores
(docs/measured.md)."""


def environment(spec: StageSpec, socket: str, scratch: str, cores: int) -> dict[str, str]:
    """All variables that a contestant is given, besides PATH."""
    return {
        "PGOLF_SOCKET": socket,
        "PGOLF_STAGE": spec.stage,
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": str(cores),
        "GOMP_SPINCOUNT": str(SPIN_COUNT),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(spec.gpus))),
    }


class Staging:
    """A private folder of one stage: `in/` with copies of its inputs, `run/` with its socket."""

    def __init__(self, spec: StageSpec) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pgolf-"))
        self.inputs, self.run = self.root / "in", self.root / "run"
        try:
            self.inputs.mkdir(mode=0o755)
            self.run.mkdir(mode=0o711)
            for name, source in spec.inputs.items():
                _copy_readable(source, self.inputs / name)
            self.listener = Listener(self.run / "s")
        except BaseException:  # a disk that is full must not stay so
            remove_tree(self.root)
            raise

    def remove(self) -> None:
        self.listener.close()
        remove_tree(self.root)


def remove_tree(root: Path) -> None:
    """Removes a folder in which a contestant wrote: of any depth, whatever its permissions.

    Each folder found is moved up beside the others before it is emptied, so that no path grows with the
    depth."""
    waiting = [root]
    for number, folder in enumerate(waiting):
        try:
            folder.chmod(0o700)
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    waiting.append(
                        Path(os.path.abspath(entry.path))
                        if folder == root
                        else root / f".{number}.{len(waiting)}"
                    )
                    os.rename(entry.path, waiting[-1])
                else:
                    os.unlink(entry.path)
        except OSError:
            continue  # what cannot be removed stays; a stage is not judged by it
    for folder in reversed(waiting):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _copy_readable(source: Path, target: Path) -> None:
    """A copy that any user may read and that shares nothing with the original."""
    if source.is_dir():
        target.mkdir(mode=0o755)
        for entry in source.iterdir():
            _copy_readable(entry, target / entry.name)
    else:
        shutil.copyfile(source, target)
        target.chmod(0o555 if os.access(source, os.X_OK) else 0o444)


class LogPump(threading.Thread):
    """Moves a contestant's output into its log, up to a cap; beyond it the bytes are dropped and `flooded` is
    set."""

    def __init__(self, stream: IO[bytes], log: Path, max_bytes: int) -> None:
        super().__init__(daemon=True, name="log pump")
        self.stream, self.log, self.max_bytes = stream, log, max_bytes
        self.flooded = False
        self.broken: OSError | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)

    def run(self) -> None:
        try:
            with self.log.open("wb", buffering=0) as log:
                self._pump(log)
        except OSError as error:  # a contestant whose output nobody takes would seem to stall
            self.broken = error

    def _pump(self, log: IO[bytes]) -> None:
        room = self.max_bytes
        while piece := self.stream.read(65_536):
            if room > 0:
                log.write(piece[:room])
            room -= len(piece)
            self.flooded = self.flooded or room < 0

    def check(self) -> None:
        if self.broken is not None:
            raise MachineFault(
                f"{self.log}: the log cannot be written: {self.broken}",
                hint="is the disk full, or the engine gone?",
            )
        if self.flooded:
            raise Violation(
                "log",
                f"the contestant wrote more than {self.max_bytes} bytes to its log",
                limit=True,
                hint="progress belongs in progress frames",
            )
