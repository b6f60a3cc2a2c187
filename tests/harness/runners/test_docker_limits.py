"""What a container took above its limits: by the kernel's counters, or by the engine's word where they cannot
be read.
"""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import docker
import pytest

from harness.base.errors import HarnessError, MachineFault, Violation
from harness.runners import control_group, docker_folders
from harness.runners.base import StageSpec
from harness.runners.control_group import Counts
from harness.runners.docker import DockerRunner
from harness.runners.docker_folders import DockerFolders, tmpfs_options
from harness.runners.docker_limits import has_oom_event, over_limit
from tests.harness.fakes.stage_bench import SMALL, Bench

LITTLE = dataclasses.replace(SMALL, memory_bytes=64 << 20)
SPEC = StageSpec("a", "train", {}, LITTLE, Path("log"), 1)
CHILD_EATS = """
def before_trained(wire, setup):
    if os.fork() == 0:
        held = bytearray(b"x" * (128 << 20))
        os._exit(0)
    os.wait()
"""
CHILD_OF_SCORE_EATS = """
def answer(wire, frame, numbers, row):
    if frame["start"] == 0:
        if os.fork() == 0:
            held = bytearray(b"x" * (128 << 20))
            os._exit(0)
        os.wait()
    wire.send(floats(*numbers, *row), op="nats", chunk=frame["chunk"])
"""


def told(counts: Counts | None, oom_killed: bool = False, engine_tells: bool = False) -> tuple[type, str]:
    """The kind and the text of the error of a stage."""
    error = over_limit(SPEC, counts, oom_killed, engine_tells)
    assert error is None or not isinstance(error, Violation) or error.limit
    return type(error), str(error)


def test_a_violation_of_memory_says_how_many_were_killed_the_limit_and_the_peak() -> None:
    error = over_limit(SPEC, Counts(2, True, 67_000_000, 0, False), oom_killed=False, engine_tells=False)
    assert isinstance(error, Violation)
    assert (error.rule, error.limit) == ("memory", True)
    for number in ("killed 2 of", "67,108,864 bytes", "67,000,000 at the peak"):
        assert number in error.message


@pytest.mark.parametrize(
    ("counts", "oom_killed", "engine_tells", "whose"),
    [
        (Counts(1, True, None, 0, False), False, False, Violation),
        (Counts(1, False, 20_000_000, 0, False), False, False, MachineFault),
        (Counts(1, False, 67_108_864, 0, False), True, True, MachineFault),  # a group above was full
        (Counts(1, None, 67_108_864, 0, False), False, False, MachineFault),  # its peak is files that it read
        (Counts(1, None, 67_108_864, 0, False), True, True, Violation),
        (Counts(0, None, 67_108_864, 0, False), True, True, Violation),  # read before the kill
        (Counts(0, False, 67_108_864, 0, False), True, False, MachineFault),
        (None, True, True, Violation),
        (None, True, False, MachineFault),
        (None, False, False, type(None)),
    ],
)
def test_a_kill_is_the_contestants_only_where_something_shows_that_its_own_limit_was_reached(
    counts: Counts | None, oom_killed: bool, engine_tells: bool, whose: type
) -> None:
    kind, text = told(counts, oom_killed, engine_tells)
    assert kind is whose
    assert ("machine's memory ran out" in text) == (whose is MachineFault)


def test_a_machine_with_less_memory_than_the_limit_blames_no_contestant() -> None:
    huge = dataclasses.replace(SPEC, limits=dataclasses.replace(SMALL, memory_bytes=1 << 60))
    error = over_limit(huge, Counts(1, True, None, 0, False), oom_killed=False, engine_tells=False)
    assert isinstance(error, MachineFault)


def test_a_refused_process_is_a_violation_with_the_limit() -> None:
    error = over_limit(SPEC, Counts(0, False, None, 3, True), oom_killed=False, engine_tells=False)
    assert isinstance(error, Violation)
    assert (error.rule, error.limit) == ("processes", True)
    assert "3 times" in error.message
    assert "64 processes" in error.message


def test_a_process_refused_below_the_limit_is_the_machines_fault() -> None:
    kind, text = told(Counts(0, False, None, 9, False))
    assert kind is MachineFault
    assert "tried 9 times" in text
    assert "its own limit of 64" in text


def test_a_folder_has_room_for_one_page_and_one_file_more_than_a_contestant_may_use() -> None:
    options = tmpfs_options(SPEC)
    assert f"size={(8 << 20) + 4096},nr_inodes=100002," in options["tmp"]
    assert f"size={4096 + 4098 * 4096},nr_inodes=4098," in options["out"]


def test_a_folder_that_cannot_be_measured_is_the_machines_fault(
    engine: docker.DockerClient, cpu_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = DockerFolders(engine, cpu_image, SPEC, {}, f"pgolf-test-{uuid.uuid4().hex[:16]}")
    try:
        folders.create()
        assert folders.full() is None
        assert folders.has_program("python3")
        assert not folders.has_program("/etc/passwd")
        monkeypatch.setattr(docker_folders, "HELD_SCRATCH", "/nowhere")
        with pytest.raises(MachineFault, match=r"stat. ended with exit code 1: .*/nowhere"):
            folders.full()
    finally:
        folders.remove()


@pytest.mark.slow
@pytest.mark.parametrize("counters", ["counters", "no counters"])
@pytest.mark.parametrize("stage", ["train", "score"])
def test_a_child_that_the_kernel_killed_is_found_though_the_conversation_succeeded(
    stage: str,
    counters: str,
    engine: docker.DockerClient,
    cpu_image: str,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if counters == "no counters":  # as with an engine on another machine
        monkeypatch.setattr(control_group, "of_container", lambda pid, container: None)
    runner = DockerRunner(engine, cpu_image)
    try:
        job = bench.job(runner, CHILD_EATS + CHILD_OF_SCORE_EATS, LITTLE)
        with pytest.raises(HarnessError) as caught:
            bench.train(job) if stage == "train" else bench.score(job)
    finally:
        runner.close()
    if counters == "no counters" and engine.info()["CgroupVersion"] == "2":  # the engine does not tell why
        assert isinstance(caught.value, MachineFault)
    else:
        assert isinstance(caught.value, Violation)
        assert (caught.value.rule, caught.value.limit) == ("memory", True)
        assert "wanted more than 67,108,864" in caught.value.message


@pytest.mark.parametrize(("megabytes", "expected"), [(128, True), (8, False)])
def test_the_engine_remembers_that_memory_ran_out_in_a_child(
    engine: docker.DockerClient, cpu_image: str, megabytes: int, expected: bool
) -> None:
    code = f"import os\nif os.fork() == 0:\n    bytearray(b'x' * ({megabytes} << 20))\nelse:\n    os.wait()"
    command = ["python3", "-c", f"{code}\n    import time; time.sleep({0.3 if expected else 0})"]
    container = engine.containers.create(
        cpu_image, command, network_mode="none", mem_limit="64m", memswap_limit="64m"
    )
    try:
        container.start()
        container.wait()
        container.reload()
        assert has_oom_event(container) == expected
    finally:
        container.remove(force=True)
