"""Two processes never share a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import UsageError
from harness.run.folder import RunFolder
from tests.harness.fakes.processes import kill, start

HOLDER = """
import sys, time
from pathlib import Path
from harness.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_the_lock_refuses_a_second_process_and_is_released_when_its_holder_dies(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "pocket-0123")
    holder = start(HOLDER, folder.path, "locked")
    with pytest.raises(UsageError, match="another process is working"), folder.locked():
        pass
    kill(holder)
    with folder.locked():
        assert folder.path.is_dir()


def test_the_lock_is_free_again_after_its_context_and_after_an_error_inside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RuntimeError), folder.locked():
        raise RuntimeError
    holder = start(HOLDER, tmp_path, "locked")
    kill(holder)
