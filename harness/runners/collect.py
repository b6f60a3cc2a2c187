"""Copy what a contestant left in /out: regular files only, limited in number and size, all or nothing.

The content of /out may be hostile: links to the host's files, devices, names with `..`, a million files, a
file that grows while it is read. Each runner walks /out in its own way and passes the entries here. They are
copied into a new folder, which then replaces the destination in one rename. The content of the files is not
checked: only the next stage reads it, in its own container.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from harness.base.errors import Violation
from harness.base.text import quote

NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MAX_DEPTH = 4
BLOCK_BYTES = 1 << 20
TAMPERING_ERRNOS = {errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENXIO, errno.EINVAL}
"""Errors that a contestant can cause by changing a listed file; any other is the machine's fault."""


class Entry(NamedTuple):
    """One entry under /out. `kind` is 'file', 'folder', or the name of a kind that is refused."""

    path: str
    kind: str
    n_bytes: int
    open: Callable[[], IO[bytes]]


def collect(entries: Iterable[Entry], destination: Path, max_bytes: int, max_files: int) -> None:
    """Copies `entries` to the folder `destination`, replacing it.

    Raises Violation `output` for a link, a special file, an invalid name, or too many bytes, files or levels.
    """
    partial = destination.with_name(destination.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    total = count = 0
    try:
        for entry in entries:
            target = partial / _safe_path(entry)
            count += 1
            if count > max_files:
                raise _violation(f"more than {max_files} files and folders", limit=True)
            if entry.kind == "folder":
                target.mkdir(exist_ok=True)
                continue
            total += entry.n_bytes
            if total > max_bytes:
                raise _violation(f"more than {max_bytes} bytes", limit=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(entry, target)
        shutil.rmtree(destination, ignore_errors=True)
        partial.rename(destination)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _violation(what: str, limit: bool = False) -> Violation:
    return Violation(
        "output", f"/out holds {what}", limit=limit, hint="plain files, plain names, within the limits"
    )


def _safe_path(entry: Entry) -> Path:
    """The entry's relative path. Raises Violation if its depth, name or kind is not allowed."""
    parts = entry.path.split("/")
    if len(parts) > MAX_DEPTH:
        raise _violation(f"more than {MAX_DEPTH} levels of folders: {quote(entry.path)}", limit=True)
    if not all(NAME_PATTERN.fullmatch(part) for part in parts):
        raise _violation(f"an invalid name: {quote(entry.path)}")
    if entry.kind not in ("file", "folder"):
        raise _violation(f"a {entry.kind}: {quote(entry.path)}")
    return Path(*parts)


def _copy(entry: Entry, target: Path) -> None:
    """Copies as many bytes as were listed. Raises Violation for a file that has shrunk or cannot be read."""
    left = entry.n_bytes
    try:
        source = entry.open()
    except OSError as error:
        if error.errno not in TAMPERING_ERRNOS:
            raise
        raise _violation(f"a file that cannot be read: {quote(entry.path)} ({error.strerror})") from error
    with source, target.open("xb") as file:
        while left and (piece := source.read(min(left, BLOCK_BYTES))):
            file.write(piece)
            left -= len(piece)
        if left:
            raise _violation(f"a file that shrank while it was read: {quote(entry.path)}")
        file.flush()
        os.fsync(file.fileno())


def walk_folder(folder: Path) -> Iterator[Entry]:
    """The entries of a folder on this machine, down to one level below MAX_DEPTH. Follows no links."""
    if not os.path.lexists(folder):  # the contestant may remove it
        return
    if folder.is_symlink() or not folder.is_dir():
        yield Entry("out", _kind(folder.lstat().st_mode), 0, _opener(folder))
        return
    pending, linked = [folder], set[tuple[int, int]]()
    for base in pending:
        try:
            found = [(base / name, (base / name).lstat()) for name in sorted(os.listdir(base))]
        except PermissionError:
            yield Entry(base.name, "folder that cannot be read", 0, _opener(base))
            continue
        for path, status in found:
            name, inode = path.relative_to(folder), (status.st_dev, status.st_ino)
            kind = "second name of a file" if inode in linked else _kind(status.st_mode)
            yield Entry(str(name), kind, status.st_size, _opener(path))
            if status.st_nlink > 1 and kind == "file":
                linked.add(inode)
            if kind == "folder" and len(name.parts) <= MAX_DEPTH:
                pending.append(path)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
        stat.S_IFBLK: "device",
        stat.S_IFCHR: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    def open_file() -> IO[bytes]:
        """Checks the kind again: the file may have become a link or a fifo since it was listed."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no longer a regular file")
        return os.fdopen(descriptor, "rb")

    return open_file


def walk_tar(archive: tarfile.TarFile, root: str) -> Iterator[Entry]:
    """The entries of a tar stream whose members lie under `root`/, in the order of the stream."""
    for member in archive:
        if member.name.rstrip("/") == root:
            continue
        plain = member.isreg() and not member.sparse
        kind = "file" if plain else "folder" if member.isdir() else "link or special file"
        yield Entry(member.name.removeprefix(root + "/"), kind, member.size, _member_opener(archive, member))


def _member_opener(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def open_member() -> IO[bytes]:
        stream = archive.extractfile(member)
        assert stream is not None, f"{member.name} is not a regular file"
        return stream

    return open_member
