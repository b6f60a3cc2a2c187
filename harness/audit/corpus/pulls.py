"""Write the record folders that pull requests add, from a mirror of the repository, as plain files.

    python -m harness.audit.corpus.pulls MIRROR.git OUT

Each folder that main lacks is written once, from the head of the lowest pull request that holds it, as
OUT/NUMBER/records/TRACK/NAME. Only text files that the audit reads are written, within its limits; links, odd
names and files that the mirror lacks are left out. Heads that changed after reviewers judged a folder are
written as they are now.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harness.audit.folder import MAX_FILE, MAX_FILES, TEXT
from harness.base.errors import MachineFault, UsageError

PULL = re.compile(r"refs/pull/(\d{1,7})/head ([0-9a-f]{40,64})")
DEPTH = 3
"""records/TRACK/NAME."""


class Added(NamedTuple):
    """A folder that a pull request adds."""

    pull: int
    path: str
    tree: str


def added(mirror: Path) -> list[Added]:
    """The added folders. Raises UsageError where the mirror has no main or no pull requests."""
    seen = _folders(mirror, "refs/heads/main")
    trees = set(seen.values())
    refs = _git(mirror, "for-each-ref", "--format=%(refname) %(objectname)", "refs/pull").decode()
    pulls = sorted((int(match[1]), match[2]) for match in PULL.finditer(refs))
    if not (seen and pulls):
        raise UsageError(
            f"{mirror}: no main with records, or no pull requests",
            hint="git clone --mirror, which fetches refs/pull too",
        )
    found = []
    for number, head in pulls:
        for path, tree in _folders(mirror, head).items():
            if path not in seen and tree not in trees:
                seen[path] = tree
                trees.add(tree)
                found.append(Added(number, path, tree))
    return found


def write(mirror: Path, out: Path) -> int:
    """Write the folders of `added` below `out`; return how many."""
    folders = added(mirror)
    for one in folders:
        top = out / str(one.pull) / one.path
        top.mkdir(parents=True, exist_ok=True)
        for name, blob in list(_texts(mirror, one.tree))[:MAX_FILES]:
            file = top / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_git(mirror, "cat-file", "blob", blob))
    return len(folders)


def _folders(mirror: Path, commit: str) -> dict[str, str]:
    return {
        path: name
        for kind, name, _, path in _entries(mirror, "-r", "-t", commit, "records")
        if kind == "tree" and path.count("/") == DEPTH - 1
    }


def _texts(mirror: Path, tree: str) -> Iterator[tuple[str, str]]:
    for kind, name, size, path in _entries(mirror, "-r", "-l", tree):
        if kind == "blob" and size.isdigit() and int(size) <= MAX_FILE and path.lower().endswith(TEXT):
            yield path, name


def _entries(mirror: Path, *arguments: str) -> Iterator[tuple[str, str, str, str]]:
    """Kind, object, size if `-l` is given, and path, without links and paths that lead out of the tree."""
    for line in _git(mirror, "ls-tree", "-z", *arguments).decode("utf-8", "replace").split("\0"):
        head, _, path = line.partition("\t")
        fields = head.split()
        if (
            len(fields) >= 3
            and fields[0] != "120000"
            and not {"..", ".", "", ".git"} & set(path.split("/"))
            and not PurePosixPath(path).is_absolute()
        ):
            yield fields[1], fields[2], fields[3] if len(fields) > 3 else "", path


def _git(mirror: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", f"--git-dir={mirror}", *arguments], capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineFault(f"git: {error}", hint="is git installed, and the mirror whole?") from None
    return done.stdout


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), Path(sys.argv[2])), "folders")
