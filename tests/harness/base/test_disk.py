"""How much room a disk has, and what an error of the operating system is in words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.base import disk, files
from harness.base.errors import MachineFault
from harness.base.exit_codes import ExitCode
from tests.harness.fakes.command_line import pgolf

Free = Callable[[int], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets how many bytes every disk has free."""

    def set_free(n_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=n_bytes, total=1 << 40))

    return set_free


def fault(number: int, path: Path | None = None) -> MachineFault:
    """What is said of an error with this number."""
    name = None if path is None else str(path)
    return disk.machine_fault(OSError(number, os.strerror(number), name))


def test_the_disk_of_a_path_that_does_not_exist_is_that_of_the_folder_above_it(tmp_path: Path) -> None:
    found = disk.disk_of(tmp_path / "no" / "such" / "folder")
    assert (found.device, found.mount) == disk.disk_of(tmp_path)[1:3]
    assert tmp_path.resolve().is_relative_to(found.mount)
    assert 0 < found.free_bytes <= found.total_bytes


@pytest.mark.parametrize("below", [".", "datasets/pocket"])
def test_a_path_whose_links_lead_in_a_circle_lies_on_no_disk(tmp_path: Path, below: str) -> None:
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("first")
    with pytest.raises(OSError, match="symbolic links") as refused:
        disk.disk_of(tmp_path / "first" / below)
    said = disk.machine_fault(refused.value)
    assert said.message.startswith(f"{tmp_path}/")
    assert "lead in a circle" in said.hint


def test_the_doctor_ends_as_on_a_broken_machine_where_the_home_folder_links_to_itself(
    no_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").symlink_to("home")
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home"))
    said = pgolf("doctor").exception
    assert isinstance(said, MachineFault)
    assert said.message == f"{tmp_path}/home: Too many levels of symbolic links"
    assert said.exit_code == ExitCode.MACHINE
    assert "PGOLF_HOME" in said.hint


def test_room_that_is_there_is_no_error(tmp_path: Path, free: Free) -> None:
    free(1000)
    disk.require_room({tmp_path: 1000})
    disk.require_room({})


def test_too_little_room_names_place_mount_and_both_numbers(tmp_path: Path, free: Free) -> None:
    free(1234)
    with pytest.raises(MachineFault) as refused:
        disk.require_room({tmp_path / "runs": 5_000_000})
    assert str(refused.value).startswith(f"the disk of {tmp_path}/runs (")
    assert f" at {disk.disk_of(tmp_path).mount}) has 1,234 bytes free" in refused.value.message
    assert f"5,000,000 are needed for {tmp_path}/runs" in refused.value.message
    assert "--runs" in refused.value.hint


def test_places_on_one_disk_need_their_room_together(tmp_path: Path, free: Free) -> None:
    free(1000)
    with pytest.raises(MachineFault, match=r"1,200 are needed for .*/runs and .*/temporary"):
        disk.require_room({tmp_path / "runs": 600, tmp_path / "temporary": 600})


def test_a_full_disk_is_named_with_its_mount_and_what_is_free(tmp_path: Path, free: Free) -> None:
    free(0)
    said = fault(errno.ENOSPC, tmp_path / "nats.f32")
    assert said.message.startswith(f"the disk of {tmp_path}/nats.f32 (")
    assert said.message.endswith(f" at {disk.disk_of(tmp_path).mount}) ran full: 0 bytes are free now")
    assert "quota" in fault(errno.EDQUOT, tmp_path).message


def test_an_error_without_a_path_names_the_place_that_the_caller_knows(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    said = disk.machine_fault(error, tmp_path / "seed-1", "seed 1 train")
    assert said.message.startswith(f"seed 1 train: the disk of {tmp_path}/seed-1 (")


@pytest.mark.parametrize(
    ("number", "named"), [(errno.ENOSPC, "copy"), (errno.EDQUOT, "copy"), (errno.EIO, "a")]
)
def test_where_a_copy_fails_a_full_disk_is_that_of_the_target(
    tmp_path: Path, number: int, named: str
) -> None:
    names = (str(tmp_path / "a"), None, str(tmp_path / "copy"))  # as shutil.copyfile gives them
    said = disk.machine_fault(OSError(number, os.strerror(number), *names))
    assert f"{tmp_path}/{named}" in said.message


def test_a_full_disk_that_nobody_named_is_one_of_those_that_are_written_to(home: Path, free: Free) -> None:
    free(0)
    assert "ran full: 0 bytes are free now" in fault(errno.ENOSPC).message


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOENT, "no such file or folder exists"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "may be failing"),
        (errno.ENOTDIR, "takes for a folder is a file"),
        (errno.EOPNOTSUPP, "does not support this"),
        (errno.ENOLCK, "PGOLF_HOME"),
        (errno.EAGAIN, "no process left"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EBUSY, "the operating system refused this"),
    ],
)
def test_every_kind_of_error_names_the_file_and_has_its_own_hint(number: int, hint: str) -> None:
    said = fault(number, Path("/data/a\x1b[31mfile"))
    assert said.message == f"/data/a\\x1b[31mfile: {os.strerror(number)}"
    assert hint in said.hint
    assert said.exit_code == 3


def test_an_error_under_the_home_folder_names_the_variable_that_says_where_it_is(home: Path) -> None:
    inside, outside = home / "owners", home.parent / "runs"
    hints = [fault(errno.EROFS, path).hint for path in (inside, outside)]
    assert ["PGOLF_HOME" in hint for hint in hints] == [True, False]


def test_of_a_long_path_the_middle_is_left_out() -> None:
    said = fault(errno.ENAMETOOLONG, Path("/home") / "/".join(20 * ["d" * 250]) / "end")
    assert len(said.message) < 300
    assert said.message.startswith("/home/ddd")
    assert said.message.endswith(f"ddd/end: {os.strerror(errno.ENAMETOOLONG)}")


def test_a_file_that_cannot_be_written_is_told_with_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match=r"file/a\.json: cannot be written: .*/file: File exists"):
        files.write_bytes(tmp_path / "file" / "a.json", b"")
