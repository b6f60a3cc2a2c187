"""Processes of their own that tests wait for and kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.base.paths import ROOT


def start(code: str, argument: Path, word: str) -> subprocess.Popen[str]:
    """A process of its own that has said `word`."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, argument], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for at most two minutes; a process that ends before fails the test with what it said."""
    deadline = time.monotonic() + 120
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"the process ended before: {process.communicate()}")
        assert time.monotonic() < deadline, "waited for two minutes"
        time.sleep(0.02)
