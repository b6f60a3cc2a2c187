"""Measuring a folder that a contestant fills: long paths, holes, links, and folders that are closed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from harness.base.errors import Violation
from harness.runners.collect import collect, walk_folder
from harness.runners.folder_usage import FolderLimits, check_folder, stored_bytes, stored_pages

LIMITS = FolderLimits("HOME of stage train", 1 << 20, 50, 32, stored_pages, "delete something")


def nest(folder: Path, levels: int) -> int:
    """Makes folders with names of 250 characters one in the other; returns a descriptor of the innermost."""
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 250, dir_fd=inner)
        outer, inner = inner, os.open("d" * 250, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    return inner


def test_paths_longer_than_the_system_allows_are_measured(tmp_path: Path) -> None:
    inner = nest(tmp_path / os.curdir, 20)
    check_folder(tmp_path, LIMITS)
    with open("large", "wb", opener=lambda name, flags: os.open(name, flags, dir_fd=inner)) as file:
        file.write(bytes(2 << 20))
    os.close(inner)
    with pytest.raises(
        Violation, match=r"2,097,152 bytes in HOME of stage train, at most 1,048,576"
    ) as caught:
        check_folder(tmp_path, LIMITS)
    assert (caught.value.rule, caught.value.limit, caught.value.hint) == ("output", True, "delete something")


@pytest.mark.parametrize("mode", [0, 0o400])
def test_a_folder_that_the_judge_may_not_read_counts_as_over_the_limit(unprivileged: Path, mode: int) -> None:
    (unprivileged / "closed").mkdir()
    (unprivileged / "closed" / "large").write_bytes(bytes(2 << 20))
    (unprivileged / "closed").chmod(mode)
    try:
        with pytest.raises(Violation, match="cannot be measured") as caught:
            check_folder(unprivileged, LIMITS)
        assert (caught.value.rule, caught.value.limit) == ("output", True)
        with pytest.raises(Violation, match="folder that cannot be read: closed"):
            collect(walk_folder(unprivileged), Path(tempfile.gettempdir()) / "pgolf-never", 1 << 30, 50)
    finally:
        (unprivileged / "closed").chmod(0o700)


def test_holes_in_files_take_no_room_and_small_files_a_page_each(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    check_folder(tmp_path, LIMITS)
    few = LIMITS._replace(n_bytes=8 * 4096)
    for i in range(8):
        (tmp_path / f"small{i}").write_bytes(b"x")
    check_folder(tmp_path, few)
    (tmp_path / "one more").write_bytes(b"x")
    with pytest.raises(Violation, match="36,864 bytes"):
        check_folder(tmp_path, few)
    check_folder(tmp_path, few._replace(size=stored_bytes, n_bytes=9))


def test_a_file_with_several_names_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    check_folder(tmp_path, LIMITS)


def test_links_are_not_followed_and_what_was_removed_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "large").write_bytes(bytes(2 << 20))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "link").symlink_to(tmp_path / "folder")
    for name in ("home", "home/link", "removed"):
        check_folder(tmp_path / name, LIMITS)


@pytest.mark.parametrize(("files", "levels"), [(51, 0), (0, 33)])
def test_too_many_files_or_levels_are_over_the_limit(tmp_path: Path, files: int, levels: int) -> None:
    for i in range(files):
        (tmp_path / str(i)).touch()
    (tmp_path / "/".join("d" * levels)).mkdir(parents=True, exist_ok=True)
    with pytest.raises(Violation, match="more than 50 files or 32 levels of folders"):
        check_folder(tmp_path, LIMITS)
