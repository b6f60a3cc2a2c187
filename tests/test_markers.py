"""What tests/markers.py promises, in a run of its own: engine tests share a worker, and what is left out is
counted.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.paths import ROOT

pytestmark = pytest.mark.slow

TESTS = """
import pytest

@pytest.fixture
def engine():
    pass

@pytest.mark.parametrize("number", range(8))
def test_with_an_engine(engine, number):
    pass

@pytest.mark.parametrize("number", range(8))
def test_without(number):
    pass

@pytest.mark.slow
def test_that_takes_long():
    pass
"""


def pytest_run(folder: Path, *arguments: str) -> str:
    """The output of pytest on TESTS with two workers."""
    (folder / "test_some.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    engine: e\n    slow: s\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.markers", "--rootdir", str(folder), "-v"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup", *arguments, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_worker_runs_all_engine_tests_and_the_other_one_the_rest(tmp_path: Path) -> None:
    """pytest 9.2 breaks this (pytest-dev/pytest-xdist#1386)."""
    printed = pytest_run(tmp_path)
    assert "left out" not in printed
    ran = re.findall(r"\[(gw\d)\] .*PASSED \S*::(test_\w+)", printed)
    assert len(ran) == 17
    (engine,) = {worker for worker, name in ran if name == "test_with_an_engine"}
    assert {worker for worker, _ in ran if worker != engine}, "the other worker ran the rest"


def test_a_selection_says_what_it_leaves_out_and_why(tmp_path: Path) -> None:
    printed = pytest_run(tmp_path, "-m", "not slow and not engine")
    assert "left out: 9 tests (8 engine, 1 slow); `just test` runs all that can run here" in printed
