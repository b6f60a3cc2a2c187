"""Whose lock can be taken is dead; what cannot be told counts as alive."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from harness.base.owner import lock_of_dead_owner
from harness.runners.owner_lock import is_dead
from tests.harness.fakes.processes import kill, start

OWNER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


def test_the_lock_is_free_only_when_its_owner_has_died(tmp_path: Path) -> None:
    owner = start(OWNER, tmp_path / "lock", "locked")
    assert (lock_of_dead_owner(tmp_path / "lock"), is_dead(tmp_path / "lock")) == (None, False)
    kill(owner)
    descriptor = lock_of_dead_owner(tmp_path / "lock")
    assert descriptor is not None and not is_dead(tmp_path / "lock"), "this process holds it now"
    os.close(descriptor)
    assert is_dead(tmp_path / "lock")


def test_without_a_file_without_locks_and_behind_a_link_nobody_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "link").symlink_to(tmp_path / "lock")
    assert is_dead(tmp_path / "lock")
    assert not is_dead(tmp_path / "absent") and not is_dead(tmp_path / "link")

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert not is_dead(tmp_path / "lock")
