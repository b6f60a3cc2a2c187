"""Processes of their own that tests wait for and kill."""

from __future__ import annotations

import signal
import subprocess
import sys
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
