"""The private folder of one stage on the host: copies of its inputs, and its socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from harness.protocol.wire import Listener
from harness.runners.base import StageSpec


class Staging:
    """A temporary folder with `in/` for copies of the inputs and `run/` for the socket."""

    def __init__(self, spec: StageSpec) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pgolf-"))
        self.inputs, self.run = self.root / "in", self.root / "run"
        try:
            make_folder(self.inputs, 0o755)
            make_folder(self.run, 0o711)
            for name, source in spec.inputs.items():
                _copy_readable(source, self.inputs / name)
            self.listener = _listen(self.run / "s")
        except BaseException:  # for example a full disk: give the space back
            remove_tree(self.root)
            raise

    def remove(self) -> None:
        self.listener.close()
        remove_tree(self.root)


def _listen(path: Path) -> Listener:
    """The stage's socket. An error of the system names its path, which Python leaves out for sockets."""
    try:
        return Listener(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(path: Path, mode: int) -> None:
    """Makes a folder of exactly this mode, whatever the umask of the judge takes away."""
    path.mkdir()
    path.chmod(mode)


def remove_tree(root: Path) -> None:
    """Removes a folder that a contestant wrote to, whatever its depth and permissions.

    Moves each subfolder directly under `root` before emptying it, so that paths do not grow with
    the depth.
    """
    pending = [root]
    for number, folder in enumerate(pending):
        try:
            folder.chmod(0o700)
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    moved = root / f".{number}.{len(pending)}"
                    if folder == root:  # it is in place already
                        moved = Path(os.path.abspath(entry.path))
                    pending.append(moved)
                    os.rename(entry.path, moved)
                else:
                    os.unlink(entry.path)
        except OSError:
            continue  # leave what cannot be removed: it does not affect the stage's result
    for folder in reversed(pending):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _copy_readable(source: Path, target: Path) -> None:
    """Copies a file or folder so that any user may read it; the copy shares no storage with the original."""
    if source.is_dir():
        make_folder(target, 0o755)
        for entry in source.iterdir():
            _copy_readable(entry, target / entry.name)
    else:
        shutil.copyfile(source, target)
        target.chmod(0o555 if os.access(source, os.X_OK) else 0o444)
