"""The folders of a container's stage, /out and /tmp, on tmpfs volumes of bounded size.

A tmpfs disappears with the last container that mounts it, so an idle second container keeps both mounted. It
also answers what only the engine's side knows: whether a folder is full, what /out holds, and whether the
image has a program. A tmpfs has one page and one file more than the contestant may use, so a full one was
filled above its limit, and not just to it.
"""

from __future__ import annotations

from typing import Any

import docker
from docker.models.containers import Container
from docker.models.volumes import Volume
from docker.types import Mount

from harness.base.errors import MachineFault, Violation
from harness.base.text import quote
from harness.runners.base import OUT_HINT, SCRATCH_FILES, SCRATCH_HINT, StageSpec
from harness.runners.docker_engine import engine_faults, ignore_missing
from harness.runners.docker_isolation import ISOLATION_OPTIONS
from harness.runners.engine_errors import LOG_HINT
from harness.runners.folder_usage import PAGE_BYTES, whole_pages

OUT, SCRATCH = "/out", "/tmp"
HELD_SCRATCH = "/scratch"
"""Where the idle container has the contestant's /tmp."""


class DockerFolders:
    """The two volumes of one stage, and the idle container that keeps them mounted."""

    def __init__(
        self, client: docker.DockerClient, image: str, spec: StageSpec, labels: dict[str, str], name: str
    ) -> None:
        self.client, self.image, self.spec, self.labels, self.name = client, image, spec, labels, name
        self.volumes: list[Volume] = []
        self.holders: list[Container] = []

    def create(self) -> list[Mount]:
        """Makes the volumes and starts the idle container; returns the mounts of the contestant."""
        out, scratch = (self._volume(kind, options) for kind, options in tmpfs_options(self.spec).items())
        self.holders.append(
            self.client.containers.create(
                image=self.image,
                command=["sleep", "infinity"],
                labels=self.labels,
                detach=True,
                mounts=[Mount(OUT, out, type="volume"), Mount(HELD_SCRATCH, scratch, type="volume")],
                pids_limit=16,
                mem_limit="64m",
                name=f"{self.name}-out",
                **ISOLATION_OPTIONS,
            )
        )
        self.holder.start()
        return [Mount(OUT, out, type="volume"), Mount(SCRATCH, scratch, type="volume")]

    @property
    def holder(self) -> Container:
        """The idle container."""
        return self.holders[0]

    def _volume(self, kind: str, options: str) -> str:
        """Makes a tmpfs volume; returns its name."""
        name = f"{self.name}-{kind}"
        options_of_tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": options}
        self.volumes.append(
            self.client.volumes.create(name, driver="local", labels=self.labels, driver_opts=options_of_tmpfs)
        )
        return name

    def full(self) -> Violation | None:
        """The violation for a full /out or /tmp. Raises MachineFault if it cannot be measured."""
        with engine_faults("measuring /out and /tmp"):
            code, output = self.holder.exec_run(["stat", "-f", "-c", "%f %d", OUT, HELD_SCRATCH])
        words = output.decode("ascii", "replace").split()
        if code != 0 or len(words) != 4 or not all(word.isdecimal() for word in words):
            raise MachineFault(
                f"measuring /out and /tmp of stage {self.spec.stage}: `stat` ended with exit code {code}: "
                f"{quote(output)}",
                hint=LOG_HINT,
            )
        limits, out = self.spec.limits, f"{OUT} of stage {self.spec.stage} is full"
        scratch = f"{SCRATCH} of stage {self.spec.stage} is full"
        messages = (
            (f"{out}: at most {self.spec.out_bytes:,} bytes", OUT_HINT),
            (
                f"{out}: it holds {4 * limits.out_files:,} files, at most {limits.out_files:,} may stay",
                OUT_HINT,
            ),
            (f"{scratch}: at most {limits.scratch_bytes:,} bytes, each file in whole pages", SCRATCH_HINT),
            (f"{scratch}: at most {SCRATCH_FILES:,} files", SCRATCH_HINT),
        )
        for free, (message, hint) in zip(map(int, words), messages, strict=True):
            if free == 0:
                return Violation("output", message, limit=True, hint=hint)
        return None

    def archive(self) -> Any:
        """The engine's stream of /out as a tar archive."""
        stream, _ = self.holder.get_archive(OUT, chunk_size=1 << 20)
        return stream

    def has_program(self, program: str) -> bool:
        """Whether the image has a program that can be started, by name or path."""
        script = 'path=$(command -v -- "$1") && [ -f "$path" ] && [ -x "$path" ]'
        with engine_faults(f"looking for {quote(program)} in the image"):
            code, _ = self.holder.exec_run(["sh", "-c", script, "sh", program])
        return bool(code == 0)

    def remove(self) -> None:
        """Removes the container, and then the volumes."""
        for container in self.holders:
            ignore_missing(container.remove, force=True, v=True)
        for volume in self.volumes:
            ignore_missing(volume.remove, force=True)


def tmpfs_options(spec: StageSpec) -> dict[str, str]:
    """The options of the volumes `out` and `tmp`. /out has room to round up each of its files to a page.

    A tmpfs counts its own folder as a file.
    """
    out_files, scratch_files = (n_files + 2 for n_files in (4 * spec.limits.out_files, SCRATCH_FILES))
    out_bytes = whole_pages(spec.out_bytes) + out_files * PAGE_BYTES
    scratch_bytes = whole_pages(spec.limits.scratch_bytes) + PAGE_BYTES
    return {
        "out": f"size={out_bytes},nr_inodes={out_files},uid=10001,gid=10001,mode=0700",
        # executable, because GPU kernels compiled at run time are loaded from there
        "tmp": f"size={scratch_bytes},nr_inodes={scratch_files},mode=1777,nosuid,nodev",
    }
