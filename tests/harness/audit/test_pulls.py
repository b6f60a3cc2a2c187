"""Each folder that a pull request adds is written once, and hostile trees write nothing elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.audit.corpus import pulls
from harness.base.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git makes the mirrors of these tests")


def git(repository: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(repository), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    repository = tmp_path / "mirror"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    for number, name in enumerate(("merged", "first", "second")):
        folder = repository / "records" / "track" / name
        folder.mkdir(parents=True)
        (folder / "train.log").write_text(name)
        (folder / "model.bin").write_text("not read")
        (folder / "link.txt").symlink_to("/etc/hostname")
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", name)
        if number:
            git(repository, "update-ref", f"refs/pull/{number * 10}/head", "HEAD")
    git(repository, "update-ref", "refs/heads/main", "HEAD~2")
    return repository / ".git"


def test_each_folder_is_written_once_under_the_request_that_adds_it(mirror: Path, tmp_path: Path) -> None:
    assert pulls.write(mirror, tmp_path / "out") == 2
    written = sorted(
        file.relative_to(tmp_path / "out").as_posix()
        for file in (tmp_path / "out").rglob("*")
        if file.is_file()
    )
    assert written == ["10/records/track/first/train.log", "20/records/track/second/train.log"]


def test_a_folder_without_pull_requests_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(UsageError, match="no main"):
        pulls.write(tmp_path / ".git", tmp_path / "out")
