"""Output cannot change an exit code: the reader has left, the disk is full, stdout is ASCII."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from harness.base.paths import ROOT
from tests.harness.fakes.verdicts import assembled, broken, evidence

ASCII = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}


def pgolf(*words: object, stdout: int | IO[Any], **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, **settings
    )


@pytest.fixture
def left() -> Iterator[int]:
    """The writing end of a pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def invalid_run(tmp_path: Path) -> Path:
    """A run folder whose verdict is `invalid`, with a letter in its evidence that ASCII does not have."""
    verdict = assembled(evidence(broken(1, "train", "failed", "protocol", "it broke: ℵ")))
    (tmp_path / "verdict.json").write_text(json.dumps(verdict))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), [(("explain",), 0), (("--help",), 0), (("explain", "none"), 2)])
def test_a_reader_that_leaves_early_changes_no_exit_code(left: int, words: tuple[str], code: int) -> None:
    done = pgolf(*words, stdout=left)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


@pytest.mark.slow
def test_an_invalid_run_stays_invalid_whoever_reads_its_report(left: int, invalid_run: Path) -> None:
    read = pgolf("report", invalid_run, stdout=subprocess.PIPE)
    unread = pgolf("report", invalid_run, stdout=left)
    in_ascii = pgolf("report", invalid_run, stdout=subprocess.PIPE, env=ASCII)
    assert [done.returncode for done in (read, unread, in_ascii)] == [1, 1, 1]
    assert "ℵ" in read.stdout
    assert "\\u2135" in in_ascii.stdout
    assert (unread.stderr, in_ascii.stderr) == ("", "")
    assert "remark: this verdict.json lies without its run" in read.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", [("explain",), ("explain", "--json"), ("--help",)])
def test_a_stdout_on_a_full_disk_is_a_machine_fault_even_at_the_last_flush(words: tuple[str]) -> None:
    with open("/dev/full", "w") as full:
        done = pgolf(*words, stdout=full)
    assert done.returncode == 3
    assert done.stderr.startswith("error: stdout: cannot be written (No space left on device)\nhint: ")
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
def test_a_stderr_that_cannot_be_written_or_a_closed_stdout_changes_no_exit_code() -> None:
    shell = f"{sys.executable} -m harness.cli explain"
    for words, code in (("none 2>/dev/full", 2), (">&-", 0), ("2>&-", 0), ("none 2>&-", 2)):
        done = subprocess.run(["sh", "-c", f"{shell} {words}"], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == code, words
