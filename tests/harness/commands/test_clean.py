"""`pgolf clean`: what it says that it removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import MachineFault
from tests.harness.fakes.command_line import pgolf


def test_what_was_removed_is_said_before_a_later_step_fails(
    no_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = tmp_path / "temporary" / "pgolf-abandoned"
    abandoned.mkdir(parents=True)
    (abandoned / ".owner").touch()
    (abandoned / "data").write_bytes(bytes(3_000_000))
    monkeypatch.setattr("tempfile.tempdir", str(abandoned.parent))
    monkeypatch.setenv("TMPDIR", str(abandoned.parent))
    (tmp_path / "file").touch()
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "file"))
    done = pgolf("clean")
    assert isinstance(done.exception, MachineFault)
    assert done.stdout.splitlines() == [
        f"no container engine answers: there is no socket {tmp_path}/nothing.sock: its leftovers stay",
        "freed 3 MB in 1 temporary folder of killed commands",
    ]
    assert not abandoned.exists()
