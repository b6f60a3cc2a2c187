"""A folder that one process makes and all processes of a test run read: a tokenizer, a trained checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

Make = Callable[[Path], None]


class Once:
    """`once(name, make)` is the folder `name`, filled by `make` in whichever process asks first."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str, make: Make) -> Path:
        """The finished folder; the processes that ask meanwhile wait for it. Nobody may change it."""
        done = self.root / name
        with FileLock(f"{done}.lock"):
            if not done.exists():
                begun = Path(tempfile.mkdtemp(prefix=f"{name}.begun-", dir=self.root))
                make(begun)
                begun.rename(done)
        return done
