"""The lock beside a folder: one process at a time, released by a kill too, and nothing left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.errors import MachineFault
from harness.base.lock import locked
from harness.base.paths import ROOT
from harness.run.folder import RunFolder
from tests.harness.fakes.processes import kill, start

HOLDER = """
import sys, time
from pathlib import Path
from harness.base.lock import locked
with locked(Path(sys.argv[1])):
    print("holding", flush=True)
    time.sleep(600)
"""
COUNTER = """
import sys
from pathlib import Path
from harness.base.lock import locked
target = Path(sys.argv[1])
for _ in range(60):
    with locked(target):
        number = int(target.read_text())
        target.write_text(str(number + 1))
"""


def test_the_lock_of_a_killed_process_is_free_and_its_file_goes_with_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill(start(HOLDER, tmp_path / "set", "holding"))
    assert (tmp_path / ".set.lock").exists()
    with locked(tmp_path / "set"):
        pass
    assert (list(tmp_path.iterdir()), capsys.readouterr().err) == ([], "")


@pytest.mark.slow
def test_processes_that_wait_and_come_anew_never_work_at_once(tmp_path: Path) -> None:
    """Each removes the lock's file when it is done, while others wait for it."""
    (tmp_path / "number").write_text("0")
    words = [sys.executable, "-c", COUNTER, tmp_path / "number"]
    several = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(timeout=120) for process in several] == [0] * 4
    assert (tmp_path / "number").read_text() == "240"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_an_error_inside_releases_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"), locked(tmp_path / "folder" / "set"):
            raise ValueError("mine")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_machine_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match="cannot be locked"), locked(tmp_path / "file" / "set"):
        pass


@pytest.mark.parametrize("kind", ["folder", "link", "socket"])
def test_what_is_no_lock_is_to_be_removed(kind: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    in_folder, beside = tmp_path / "run" / ".lock", tmp_path / ".run.lock"
    for path in (in_folder, beside):
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(tmp_path / "run")
        else:
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
    with pytest.raises(MachineFault, match="cannot be locked") as caught, locked(tmp_path / "run"):
        pass
    assert caught.value.hint.startswith(f"remove {beside}: ")
    with (
        pytest.raises(MachineFault, match="cannot be written") as caught,
        RunFolder(tmp_path / "run").locked(),
    ):
        pass
    assert caught.value.hint.startswith(f"remove {in_folder}: ")


def test_a_file_system_without_locks_is_refused_and_no_file_stands_in_for_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(MachineFault, match="cannot be locked") as caught, locked(tmp_path / "set"):
        pass
    assert "local disk" in caught.value.hint
    with pytest.raises(MachineFault, match="cannot be written"), RunFolder(tmp_path / "run").locked():
        pass
