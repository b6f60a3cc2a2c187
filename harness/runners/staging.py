"""The private folder of one stage on the host: copies of its inputs, and its socket."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.base.temporary import TemporaryFolder
from harness.protocol.wire import Listener
from harness.runners.base import StageSpec


class Staging:
    """A temporary folder with `in/` for copies of the inputs and `run/` for the socket."""

    def __init__(self, spec: StageSpec) -> None:
        self.folder = TemporaryFolder()
        self.root = self.folder.path
        self.inputs, self.run = self.root / "in", self.root / "run"
        try:
            make_folder(self.inputs, 0o755)
            make_folder(self.run, 0o711)
            for name, source in spec.inputs.items():
                _copy_readable(source, self.inputs / name)
            self.listener = _listen(self.run / "s")
        except BaseException:  # for example a full disk: give the space back
            self.folder.remove()
            raise

    def remove(self) -> None:
        self.listener.close()
        self.folder.remove()


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


def _copy_readable(source: Path, target: Path) -> None:
    """Copies a file or folder so that any user may read it; the copy shares no storage with the original."""
    if source.is_dir():
        make_folder(target, 0o755)
        for entry in source.iterdir():
            _copy_readable(entry, target / entry.name)
    else:
        shutil.copyfile(source, target)
        target.chmod(0o555 if os.access(source, os.X_OK) else 0o444)
