"""What a container took above its limits: by the kernel's counters, or by the engine's word where they cannot
be read.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import docker
import pytest

from harness.base.errors import MachineFault, Violation
from harness.runners import control_group
from harness.runners.base import StageSpec
from harness.runners.control_group import Counts
from harness.runners.docker import DockerRunner
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


def test_a_violation_of_memory_says_how_many_were_killed_the_limit_and_the_peak() -> None:
    error = over_limit(SPEC, Counts(2, True, 67_000_000, 0), oom_killed=False)
    assert isinstance(error, Violation)
    assert (error.rule, error.limit) == ("memory", True)
    for number in ("killed 2 of", "67,108,864 bytes", "67,000,000 at the peak"):
        assert number in error.message


def test_a_kill_below_the_limit_is_the_machines_fault() -> None:
    error = over_limit(SPEC, Counts(1, False, 20_000_000, 0), oom_killed=False)
    assert isinstance(error, MachineFault)
    assert "machine's memory ran out" in error.message


def test_the_engines_word_counts_where_the_counters_cannot_be_read() -> None:
    error = over_limit(SPEC, None, oom_killed=True)
    assert isinstance(error, Violation)
    assert error.rule == "memory"
    assert over_limit(SPEC, None, oom_killed=False) is None


def test_a_refused_process_is_a_violation_with_the_limit() -> None:
    error = over_limit(SPEC, Counts(0, False, None, 3), oom_killed=False)
    assert isinstance(error, Violation)
    assert (error.rule, error.limit) == ("processes", True)
    assert "3 times" in error.message
    assert "64 processes" in error.message


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
        with pytest.raises(
            Violation, match=r"of the processes of stage .* wanted more than 67,108,864"
        ) as caught:
            bench.train(job) if stage == "train" else bench.score(job)
    finally:
        runner.close()
    assert (caught.value.rule, caught.value.limit) == ("memory", True)


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
        assert has_oom_event(engine, str(container.id), container.attrs["State"]) == expected
    finally:
        container.remove(force=True)
