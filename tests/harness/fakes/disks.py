"""Commands on folders that cannot be written: a read-only disk, a full disk, another user's folder.

Real mounts in a mount namespace of the command's own, so that nothing else sees them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.paths import ROOT

PGOLF = (sys.executable, "-m", "harness.cli")
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
FULL = (
    'mount -t tmpfs -o size=4m none "$2" && cp -a "$1/." "$2" && '
    '{ cat /dev/zero > "$2/filler" 2> /dev/null; shift 2; exec "$@"; }'
)
MOUNTED = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def require(*command: str) -> None:
    """Skip the test where `command` does not work, with its reason."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"needs {command[0]}")
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        pytest.skip(f"{command[0]} does not work here: {reason}")


def on_a_read_only_disk(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`pgolf WORDS...` where `folder` is mounted read-only."""
    require("unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(folder), "true")
    return _run("unshare", "-m", "sh", "-c", READ_ONLY, "sh", folder, *PGOLF, *words)


def on_a_full_disk(folder: Path, copy: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`pgolf WORDS...` where a copy of `folder` is in the empty folder `copy`, on a disk without room."""
    require("unshare", "-m", "sh", "-c", FULL, "sh", str(folder), str(copy), "true")
    return _run("unshare", "-m", "sh", "-c", FULL, "sh", folder, copy, *PGOLF, *words)


def where_a_folder_is_mounted(folder: Path, place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`pgolf WORDS...` where `folder` is mounted at the folder `place` too."""
    require("unshare", "-m", "sh", "-c", MOUNTED, "sh", str(folder), str(place), "true")
    return _run("unshare", "-m", "sh", "-c", MOUNTED, "sh", folder, place, *PGOLF, *words)


def as_nobody(*words: object) -> subprocess.CompletedProcess[str]:
    """`pgolf WORDS...` as a user who owns nothing."""
    require(*NOBODY, *PGOLF, "--help")
    return _run(*NOBODY, *PGOLF, *words)


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
