"""The process between the judge and a contestant of the local runner: no contestant outlives its judge.

A judge that is killed with SIGKILL can end nothing. The guardian starts the contestant and waits until one of
them ends: the contestant or the judge. If the contestant ends, the guardian ends in the same way: with its
exit code, or by its signal. If the judge ends, which closes a pipe, the guardian kills every process of the
contestant, removes the stage's temporary folder, and exits. It adopts the contestant's orphans, so it finds
all of them.

It runs as a program of its own and not as a fork of the judge, whose threads a fork would not copy.
Not covered: a contestant that kills or stops the guardian, or holds the judge's pipe open through /proc, as
the judge's user can. Its first process dies with the guardian; while the judge lives, it ends the others too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.base.paths import ROOT
from harness.base.temporary import remove_tree
from harness.runners.process_tree import ProcessTree, children

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILL_SECONDS = 60.0
"""How long a guardian whose judge has died tries to end a contestant that keeps forking."""
CANNOT_START = 127
"""Exit code of a guardian whose contestant cannot be started, as a shell has it."""
BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from harness.runners import guardian; guardian.main()"
)


def command(argv: Sequence[str], judge: int, folder: Path) -> list[str]:
    """The command line of a guardian that starts `argv`.

    `judge`: a descriptor to read from, inherited by the guardian alone, at whose end the judge is dead;
    `folder`: what is removed then.
    """
    return [sys.executable, "-I", "-c", BOOTSTRAP, str(ROOT), str(judge), str(folder), *argv]


def adopt_orphans() -> None:
    """Make this process the parent of all its descendants whose own parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Start the contestant and wait; never returns."""
    judge, folder, argv = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(judge, False)
    adopt_orphans()
    child_ended, wake_up = os.pipe()
    os.set_blocking(wake_up, False)
    signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    tree = ProcessTree()
    try:
        contestant = subprocess.Popen(argv, start_new_session=True, preexec_fn=_die_with_parent)
    except OSError as error:
        print(f"{argv[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_START)
    _release_streams()
    selector = selectors.DefaultSelector()
    for descriptor in (judge, child_ended):
        selector.register(descriptor, selectors.EVENT_READ)
    while True:
        if judge in {key.fd for key, _ in selector.select()}:
            tree.kill(0, KILL_SECONDS)
            remove_tree(folder)
            os._exit(1)
        os.read(child_ended, 4096)
        _reap_orphans(contestant.pid)
        ended = os.waitid(os.P_PID, contestant.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            _end_like(ended)


def _die_with_parent() -> None:
    """Called in the contestant's process before its program: it dies with the guardian, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _release_streams() -> None:
    """The contestant's log ends when the contestant closes it, whatever the guardian does."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _reap_orphans(contestant: int) -> None:
    """Wait for all ended children but the contestant. The judge waits for that one and so learns its peak of
    memory; the guardian's own usage counts from before its start, when it was a copy of the judge.
    """
    for pid in children(os.getpid()):
        if pid != contestant:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _end_like(ended: os.waitid_result) -> None:
    """End this process with the exit code or by the signal of a child."""
    if ended.si_code == os.CLD_EXITED:
        os._exit(ended.si_status)
    if ended.si_status != signal.SIGKILL:  # whose action cannot be set
        signal.signal(ended.si_status, signal.SIG_DFL)
    os.kill(os.getpid(), ended.si_status)
