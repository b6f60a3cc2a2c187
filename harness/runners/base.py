"""The interface of all runners: a `Runner` starts stages, a `Stage` is one running contestant.

A stage is one process tree with a socket, its inputs, an /out folder of bounded size and a bounded log. None
of its processes outlives the stage's context. The rest of the judge sees only these two protocols. See
harness/protocol/conversation.py for what is said over the socket.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from harness.base.errors import Violation
from harness.edition import Limits
from harness.protocol.wire import Listener

COOPERATIVE = "cooperative: a channel outside the socket was not excluded"
"""Prefix of evidence from a runner without isolation: its contestant could have read the text from disk."""


@dataclass(frozen=True)
class StageSpec:
    """Everything that one stage is given."""

    run_id: str
    """Appears in container labels only."""
    stage: str
    inputs: Mapping[str, Path]
    """Name under /in -> file or folder of the host. Copied, so that a stage cannot change the original."""
    limits: Limits
    log: Path
    """Where stdout and stderr go."""
    out_bytes: int
    command: tuple[str, ...] = ("code.pyz",)
    """The program's arguments. The name of an input stands for that input's path."""
    program: str | None = None
    """The program: a name on the runner's PATH, a path, or an input's name. None: the runner's Python."""

    def argv(self, python: str, inside: Callable[[str], str]) -> list[str]:
        """The full command line. `inside` maps the name of an input to its path as the contestant sees it."""
        words = [self.program or python, *self.command]
        return [inside(word) if word in self.inputs else word for word in words]

    @property
    def gpus(self) -> int:
        """Number of GPUs that the stage may use: none in describe and pack, whatever the profile has.

        A probe gets them, so that an engine which cannot hand out GPUs is noticed before the training.
        """
        return self.limits.gpus if self.stage in ("train", "score", "probe") else 0


class Stage(Protocol):
    """A running contestant. Leaving its context kills whatever is left of it, and raises Violation where it
    took more than it may (RESOURCE_RULES), also in place of a violation of another kind.
    """

    listener: Listener
    started: float
    """time.monotonic() at the start of the process or container: the setup clock's zero."""
    out: str
    """Path of /out as the contestant sees it."""

    def inside(self, name: str) -> str:
        """The path of an input as the contestant sees it."""
        ...

    def watch(self) -> None:
        """Raises Violation if the contestant has died or exceeded a limit, MachineFault if the
        machine has failed.
        """
        ...

    def cpu_seconds(self) -> float | None:
        """CPU seconds that all processes of the contestant took so far, those that have ended included.

        None where that cannot be known: it has exited, or runs on another machine. Raises nothing.
        """
        ...

    def freeze(self) -> None:
        """Stops all processes of the contestant, so that /out no longer changes."""
        ...

    def collect(self, destination: Path) -> None:
        """Copies /out to `destination`, refusing links and special files. Call it after `freeze` or
        after the end.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Waits up to `seconds` for the contestant to exit by itself."""
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
        """Digest of the image; None where the runner uses none."""
        ...

    @property
    def image_lacks(self) -> tuple[str, ...]:
        """The wheels that the image's lock pins and the image was built without."""
        ...

    def start(self, spec: StageSpec) -> Stage: ...

    def clear_channels(self, limits: Limits) -> str:
        """Clears what both a scorer and its witness can touch. Called between the two; returns a sentence
        that says what was done.
        """
        ...

    def close(self) -> None: ...


SCRATCH_FILES = 100_000
"""Files and folders in a contestant's scratch (/tmp and HOME) at once."""
OUT_HINT = "only the checkpoint or the artifact belongs there"
SCRATCH_HINT = "delete what is no longer needed"
RESOURCE_RULES = ("memory", "processes", "output", "log")
"""Rules about what a stage took, in run.json."""


def too_many_processes(found: str, limit: int) -> Violation:
    """The violation of a stage that had, or wanted, more processes and threads than `limit`."""
    return Violation(
        "processes",
        f"{found}: at most {limit} processes and threads at once",
        limit=True,
        hint="fewer workers, or fewer threads in each",
    )


def ended_by_contestant(error: object) -> bool:
    """Whether a stage must still be checked for limits: it succeeded, or broke a rule of another kind."""
    return error is None or (isinstance(error, Violation) and error.rule not in RESOURCE_RULES)


def exit_text(code: int) -> str:
    """How a process ended. Python gives a signal as a negative code; some signals have no name."""
    if code >= 0:
        return f"exit code {code}"
    names = {each.value: each.name for each in signal.Signals}
    return f"signal {names.get(-code, -code)}"


GPU_LIBRARIES = "LD_LIBRARY_PATH"
"""What a stage with GPUs keeps of its image's variables (local: of the user's): on some machines the driver's
libraries are found by it alone, and without them a contestant would train on the CPU."""
SPIN_COUNT = 1000
"""GOMP_SPINCOUNT: how long an idle OpenMP thread spins before it gives its core back. GNU's default
of 300,000 is no faster on an idle machine, and up to 60 times slower where other processes share
the cores (docs/measured.md)."""


def scratch_environment(scratch: str) -> dict[str, str]:
    """The variables that say where a contestant may write, in a stage and where its image is checked.

    `scratch`: a folder that it may write, and load compiled code from.
    """
    return {
        "HOME": scratch,
        "TMPDIR": scratch,
        "USER": "contestant",  # torch.compile asks for the user's name, and a container's user has none
        "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor",
        "TRITON_CACHE_DIR": f"{scratch}/triton",
    }


def contestant_environment(spec: StageSpec, socket: str, scratch: str, cores: int) -> dict[str, str]:
    """The environment variables that a contestant gets, in every runner: these, PATH, and no other.

    A stage with GPUs has up to three more (docs/protocol.md, Transport).
    """
    return {
        "PGOLF_SOCKET": socket,
        "PGOLF_STAGE": spec.stage,
        **scratch_environment(scratch),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": str(cores),
        "GOMP_SPINCOUNT": str(SPIN_COUNT),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(spec.gpus))),
    }
