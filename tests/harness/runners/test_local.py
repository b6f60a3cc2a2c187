"""The local runner against a contestant that tries to escape its limits: by forking, by deep folders, by
filling its scratch.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import io
import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from harness.base.errors import MachineFault, UsageError, Violation
from harness.runners import local, staging
from harness.runners.local import LocalRunner
from harness.runners.log_pump import LogPump
from tests.harness.fakes.stage_bench import SMALL, Bench

PR_SET_DUMPABLE = 4
FORK_CHAIN = """
import time
def before_trained(wire, setup):
    if os.fork() == 0:
        os.close(1); os.close(2); wire.socket.close()
        count = 0
        while True:
            if SETSID and os.getpid() != os.getsid(0):
                os.setsid()
            count += 1
            with open(MARK, "w") as file:
                file.write(str(count))
            if os.fork():
                os._exit(0)
    while not os.path.exists(MARK) or open(MARK).read() in ("", "1"):
        time.sleep(0.01)
"""
DEEP_FOLDERS = """
import time
def before_trained(wire, setup):
    os.chdir(FOLDER)
    for level in range(1500):
        os.mkdir("d")
        os.chdir("d")
    time.sleep(PAUSE)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stages keep their private folders. The path is short, because a socket path may not be long."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("new_session", [False, True])
def test_a_process_that_forks_and_exits_over_and_over_does_not_outlive_its_stage(
    bench: Bench, tmp_path: Path, new_session: bool
) -> None:
    mark = tmp_path / "mark"
    bench.train(
        bench.job(
            LocalRunner(), FORK_CHAIN.replace("MARK", repr(str(mark))).replace("SETSID", str(new_session))
        )
    )
    count = mark.read_text()
    time.sleep(0.3)
    assert mark.read_text() == count


@pytest.mark.slow
def test_folders_deeper_than_the_judge_can_recurse_are_a_violation_not_a_crash(
    bench: Bench, temporary: Path
) -> None:
    deep = DEEP_FOLDERS.replace("FOLDER", "setup['out']").replace("PAUSE", "5")
    with pytest.raises(Violation, match="levels of folders") as caught:
        bench.train(bench.job(LocalRunner(), deep))
    assert caught.value.rule == "output"
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_a_scratch_of_any_depth_is_removed(bench: Bench, temporary: Path) -> None:
    job = bench.job(LocalRunner(), DEEP_FOLDERS.replace("FOLDER", "os.environ['HOME']").replace("PAUSE", "0"))
    with contextlib.suppress(Violation):  # a slow machine may notice the depth first
        bench.train(job)
    assert not list(temporary.iterdir())


def test_the_umask_of_the_judge_is_not_the_contestants(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job = bench.job(
        LocalRunner(),
        f"def before_trained(wire, setup):\n    open({str(mark)!r}, 'w').write(oct(os.umask(0)))\n",
    )
    before = os.umask(0o077)
    try:
        bench.train(job)
    finally:
        os.umask(before)
    assert mark.read_text() == oct(0o022)


def test_filling_the_scratch_is_over_the_limit(bench: Bench) -> None:
    filler = (
        "import time\ndef before_trained(wire, setup):\n    for i in range(4):\n"
        "        with open(os.environ['HOME'] + f'/f{i}', 'wb') as file:\n            file.write(bytes(4 << "
        "20))\n"
        "    time.sleep(60)\n"
    )
    with pytest.raises(Violation, match="in HOME of stage train") as caught:
        bench.train(bench.job(LocalRunner(), filler))
    assert (caught.value.rule, caught.value.limit) == ("output", True)
    assert caught.value.hint == "delete what is no longer needed"


def test_a_process_that_keeps_its_share_of_memory_from_the_judge_counts_with_all_that_it_has(
    unprivileged: Path,
) -> None:
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        os.write(write_end, b"x")
        signal.pause()
    process = psutil.Process(pid)
    try:
        os.read(read_end, 1)
        assert local._share_bytes(process, 123) == 123
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert local._share_bytes(process, 123) == 0


def test_a_stage_that_cannot_begin_leaves_nothing(
    bench: Bench, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.job(LocalRunner())
    monkeypatch.setattr(staging, "_copy_readable", _full_disk)
    with pytest.raises(OSError, match="No space"):
        bench.train(job)
    assert not list(temporary.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(local, "LogPump", _full_disk)
    with pytest.raises(OSError, match="No space"):
        bench.train(job)
    assert not list(temporary.iterdir())


def _full_disk(*what: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_temporary_folder_too_long_for_a_socket_is_left_empty(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(UsageError, match="socket path"):
        bench.train(bench.job(LocalRunner()))
    assert not list(folder.iterdir())


def test_a_log_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    pump = LogPump(io.BytesIO(b"x" * 10), tmp_path / "log", 100)
    (tmp_path / "log").symlink_to("/dev/full")
    pump.start()
    pump.join(5)
    with pytest.raises(MachineFault, match="log cannot be written"):
        pump.check()


def test_many_files_in_the_output_are_over_the_limit_while_the_stage_runs(bench: Bench) -> None:
    few = dataclasses.replace(SMALL, out_files=20)
    many = (
        "import time\ndef before_trained(wire, setup):\n    for i in range(200):\n"
        "        open(setup['out'] + f'/f{i}', 'wb').close()\n    time.sleep(60)\n"
    )
    with pytest.raises(Violation, match="more than 80 files") as caught:
        bench.train(bench.job(LocalRunner(), many, few))
    assert caught.value.limit
