"""Probe a stage once before a run, so that no contestant is blamed for a fault of the machine.

A short script runs in a stage like any other: the same runner, image, user, mounts and limits. It reads a
file under /in, exchanges bytes with the judge over the socket, and creates, reads and deletes a file in its
scratch and in /out. The script is given with `-c`, so that it can report an unreadable /in, and it reports on
stdout, so that it can report a dead socket. What fails is a fault of the machine.

Not covered: what only a larger stage shows, such as a disk of the engine that fills up later.
"""

from __future__ import annotations

import errno
import json
import os
import time
from typing import Any, NamedTuple

from harness.base import disk
from harness.base.errors import MachineFault, Violation
from harness.base.files import last_lines
from harness.base.temporary import temporary_folder
from harness.base.text import quote
from harness.edition import Limits
from harness.protocol.wire import DeadlineExpired
from harness.runners.base import Runner, Stage, StageSpec
from harness.runners.engine_errors import OTHER_FILES

PROBE_SECONDS = 30.0
"""For the whole script. It takes a second, and more on a machine that does other work too."""
CONTENT_BYTES = 64
NO_ANSWER = f"no answer within {PROBE_SECONDS:g} s"
STEPS = {
    "input": "read an input",
    "scratch": "create, read and delete a file in the scratch",
    "socket": "exchange bytes with the judge over the socket",
    "out": "create, read and delete a file in the output folder",
}
"""The steps in their order, and what each of them does."""
SCRIPT = r"""
import json, os, socket, sys

def step(name, path, work):
    try:
        found = work(path)
    except OSError as error:
        text = error.strerror or str(error)
        print(json.dumps({"step": name, "path": path, "errno": error.errno, "error": text}), flush=True)
        sys.exit(1)
    print(json.dumps({"step": name, "path": path, "errno": None, "error": None}), flush=True)
    return found

def read(path):
    with open(path, "rb") as file:
        return file.read()

def use(folder):
    path = os.path.join(folder, "pgolf-probe")
    with open(path, "xb") as file:
        file.write(content)
    if read(path) != content:
        raise OSError("the file does not hold what was written")
    os.unlink(path)

def exchange(path):
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(SECONDS)
    link.connect(path)
    with link, link.makefile("rb") as incoming:
        link.sendall(content)
        return json.loads(incoming.readline())["out"]

content = step("input", os.path.join(sys.argv[1], "inner", "content"), read)
step("scratch", os.environ["TMPDIR"], use)
step("out", step("socket", os.environ["PGOLF_SOCKET"], exchange), use)
""".replace("SECONDS", str(PROBE_SECONDS / 2))

NO_SOCKETS = (
    "the engine shares this machine's files with a container, but not its sockets, as Docker Desktop and "
    "engines on other machines do: use an engine on this machine (on Linux: dockerd), or --runner local, "
    "which isolates nothing"
)
NO_PERMISSION = (
    "the stage's user may not do this: SELinux or AppArmor, or the engine's way of sharing files, may forbid "
    "it; set TMPDIR to a folder on a local disk, or look at the system's log"
)
OTHER_OWNER = "the engine ignores the owner of the volume at /out: use Docker Engine 20.10 or newer on Linux"
CONTAINER_HINTS = {
    ("input", errno.ENOENT): OTHER_FILES,
    ("input", errno.EACCES): NO_PERMISSION,
    ("input", errno.EPERM): NO_PERMISSION,
    ("socket", errno.EACCES): NO_PERMISSION,
    ("socket", errno.EPERM): NO_PERMISSION,
    ("out", errno.EACCES): OTHER_OWNER,
}
"""What to do where a step of a container fails, by the system's error; otherwise harness/base/disk.py."""


class Report(NamedTuple):
    """What the script says of one step."""

    step: str
    path: str
    errno: int | None
    error: str | None
    """None where the step succeeded."""


class Seen(NamedTuple):
    """What the judge has of the script once its stage is over."""

    received: bytes
    """Over the socket."""
    ended: str
    """Why the judge stopped waiting; empty where nothing went wrong."""
    log: list[str]


def probe_stage(runner: Runner, limits: Limits) -> float:
    """Run the script in a stage; returns the seconds that it took. Raises MachineFault with the step that
    failed, and why.
    """
    began = time.monotonic()
    content = os.urandom(CONTENT_BYTES)
    with temporary_folder() as folder:
        source, log = folder / "probe", folder / "log"
        (source / "inner").mkdir(parents=True)
        (source / "inner" / "content").write_bytes(content)
        inputs, command = {source.name: source}, ("-c", SCRIPT, source.name)
        spec = StageSpec("probe", "probe", inputs, limits, log, limits.checkpoint_bytes, command)
        try:
            seen = _run(runner, spec, began + PROBE_SECONDS)
        except OSError as error:
            during = f"starting a stage of the {runner.name} runner"
            raise disk.machine_fault(error, during=during) from error
    require_all_steps(seen, content, runner)
    return time.monotonic() - began


def _run(runner: Runner, spec: StageSpec, deadline: float) -> Seen:
    received, ended = b"", ""
    try:
        with runner.start(spec) as stage:
            received, ended = _exchange(stage, deadline)
    except Violation as violation:
        ended = violation.message
    return Seen(received, ended, last_lines(spec.log))


def _exchange(stage: Stage, deadline: float) -> tuple[bytes, str]:
    """The bytes that the script sent, and why it could not be waited for any longer; the script reports what
    failed.
    """
    try:
        connection = stage.listener.accept(deadline, stage.watch)
        received = connection.payload(CONTENT_BYTES, CONTENT_BYTES, "probe", deadline)
        connection.send({"op": "probe", "out": stage.out}, deadline)
        stage.wait(deadline - time.monotonic())
        return received, "" if time.monotonic() < deadline else NO_ANSWER
    except DeadlineExpired:
        return b"", NO_ANSWER
    except Violation as violation:
        return b"", violation.message


def require_all_steps(seen: Seen, content: bytes, runner: Runner) -> None:
    """Raises MachineFault for a step that failed, that was not reported, or whose bytes were others."""
    reports = {report.step: report for line in seen.log if (report := _report(line))}
    for step, what in STEPS.items():
        report = reports.get(step)
        if report is None:
            said = quote(" ".join(filter(None, seen.log))[-300:]) or "nothing"
            raise MachineFault(
                f"the {runner.name} runner's stage did not {what}: "
                f"{seen.ended or 'it ended early'}; it wrote: {said}",
                hint="does the image hold a python3 that runs? `pgolf image verify cpu` (or cuda) looks"
                if runner.isolated
                else "the stage starts this Python with a short script: does it start by itself?",
            )
        if report.error is not None:
            raise MachineFault(
                f"the {runner.name} runner's stage cannot {what}, {quote(report.path)}: "
                f"{quote(report.error)}",
                hint=hint(report, runner.isolated),
            )
    if seen.received != content:
        raise MachineFault(
            f"the {runner.name} runner's stage did not {STEPS['socket']}: other bytes arrived than were sent",
            hint=NO_SOCKETS if runner.isolated else disk.OTHER_HINT,
        )


def _report(line: str) -> Report | None:
    """A line that the script printed; None for any other line in its log."""
    try:
        found: Any = json.loads(line)
        return Report(found["step"], found["path"], found["errno"], found["error"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def hint(failed: Report, contained: bool) -> str:
    """What to do about a step that failed; `contained` in a container."""
    if failed.errno in disk.FULL:
        return "free some room on that disk, and repeat the command"
    if contained and (failed.step, failed.errno) in CONTAINER_HINTS:
        return CONTAINER_HINTS[failed.step, failed.errno or 0]
    if contained and failed.step == "socket":
        return NO_SOCKETS
    return disk.HINTS.get(failed.errno or 0, disk.OTHER_HINT)
