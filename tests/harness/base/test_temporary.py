"""Temporary folders of killed processes are told from those in use, and removed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from harness.base import temporary
from harness.base.errors import MachineFault
from harness.base.temporary import TemporaryFolder, remove_abandoned, remove_tree, temporary_folder
from tests.harness.fakes.disks import where_a_folder_is_mounted
from tests.harness.fakes.processes import kill, start

HOLDS_A_FOLDER = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from harness.base.temporary import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "in").mkdir()
(folder.path / "in" / "copy").write_bytes(bytes(1000))
print("made", flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_this_users_alone_and_leaves_nothing(place: Path) -> None:
    with temporary_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("x")
        assert list(place.iterdir()) == [folder]
    assert not list(place.iterdir())


def test_a_killed_processs_folder_is_removed_with_its_bytes_counted_and_a_living_ones_is_not(
    place: Path,
) -> None:
    killed, living = (start(HOLDS_A_FOLDER, place, "made") for _ in range(2))
    try:
        assert remove_abandoned() == (0, 0)
        kill(killed)
        assert remove_abandoned() == (1, 1000)
        assert len(list(place.iterdir())) == 1
    finally:
        kill(living)
    assert remove_abandoned() == (1, 1000)
    assert not list(place.iterdir())


def test_what_is_no_locked_folder_of_this_user_is_left_alone(place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".owner").write_text("")
    (place / "pgolf-link").symlink_to(elsewhere)
    (place / "pgolf-without-a-lock").mkdir()
    (place / "pgolf-file").write_text("")
    (place / "somebody").mkdir()
    (place / "somebody" / ".owner").write_text("")
    before = sorted(place.rglob("*"))
    assert remove_abandoned() == (0, 0)
    assert sorted(place.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("mounted_at", ["pgolf-dead", "pgolf-dead/inner"])
def test_what_is_mounted_into_an_abandoned_folder_is_not_removed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted_at: str
) -> None:
    theirs = tmp_path / "theirs"
    for folder in (theirs, place / "pgolf-dead"):
        (folder / "inner").mkdir(parents=True)
        (folder / ".owner").write_text("")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home"))
    assert where_a_folder_is_mounted(theirs, place / mounted_at, "clean").returncode == 0
    assert (theirs / ".owner").exists()
    assert remove_abandoned().folders == 1, "once nothing is mounted there"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_a_folder_of_another_user_is_left_alone(place: Path) -> None:
    folder = place / "pgolf-theirs"
    folder.mkdir()
    (folder / ".owner").write_text("")
    os.chown(folder, 12345, 12345)
    assert remove_abandoned() == (0, 0)
    assert folder.exists()


def test_a_folder_that_cannot_be_locked_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "LOCK_NAME", "no/such/place")
    with pytest.raises(OSError, match="No such file"):
        TemporaryFolder()
    assert not list(place.iterdir())


def test_a_relative_tmpdir_is_a_folder_below_the_working_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", ".")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(place)
    assert temporary.temporary_root() == place


@pytest.mark.parametrize("named", ["missing", "file"])
def test_a_tmpdir_that_cannot_be_used_is_an_error_and_not_replaced(
    place: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(place / named))
    with pytest.raises(MachineFault, match=f"TMPDIR names {place}/{named}"):
        TemporaryFolder()


def test_the_working_folder_is_no_place_for_temporary_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes it where nothing else can be written."""
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.chdir(place)
    with pytest.raises(MachineFault, match="no folder for temporary files"):
        TemporaryFolder()


def test_removing_a_tree_unlocks_its_folders_follows_no_link_and_counts_its_bytes(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (tmp_path / "tree" / "shut" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "shut" / "inner" / "five").write_text("abcde")
    kept.mkdir(mode=0o755)
    (kept / "file").write_text("x")
    (tmp_path / "tree" / "link").symlink_to(kept)
    (tmp_path / "tree" / "shut").chmod(0)
    assert remove_tree(tmp_path / "tree") == 5 + len(str(kept))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").read_text() == "x"


def test_a_folder_cannot_take_the_name_under_which_a_removal_would_move_another(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in (".1.21", *map(str, range(19))):
        (tree / name / "inner").mkdir(parents=True)
    remove_tree(tree)
    assert not tree.exists()
