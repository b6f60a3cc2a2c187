"""What a witness finds of what its scorer left: nothing in a container; the local runner hides nothing,
and says so.

`python -m tests.harness.runners.test_memory_channels` prints the bit error rate of the page cache as a
channel, with and without clearing between scorer and witness.
"""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest

from harness.base.errors import Violation
from harness.base.progress import no_progress
from harness.data.dataset import Dataset
from harness.protocol.probe import probe
from harness.run import stages
from harness.run.witnesses import WitnessSession
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.local import LocalRunner
from tests.harness.fakes.contestants import memory
from tests.harness.fakes.datasets import write_word_dataset
from tests.harness.fakes.stage_bench import SMALL, Bench

pytestmark = pytest.mark.slow

SOURCE = Path(memory.__file__).read_text(encoding="utf-8")


@pytest.fixture
def mark() -> Iterator[str]:
    """A unique file name; files of this name are removed from this machine's folders afterwards."""
    made = f"pgolf-memory-{uuid.uuid4().hex}"
    yield made
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue", "/run", "/usr", "/", "/run/pgolf", "/in"):
        Path(folder, made).unlink(missing_ok=True)


def witness_finds(
    bench: Bench, runner: Runner, mark: str, between: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """What the witness found after its scorer had ended. `between` runs between the two."""
    tokens_T = bench.dataset.validation_tokens()
    token_file = bench.dataset.validation[0].path
    override = SOURCE.replace("pgolf-memory-mark", mark).replace("/nowhere/val_000000.bin", str(token_file))
    job = bench.job(runner, override, SMALL)
    bench.folder.artifact.write_bytes(b"w" * 2048)
    _, scored = stages.score(job, tokens_T, no_progress)
    between()
    session = WitnessSession(job, tokens_T, scored, no_progress)
    assert session.query_witness(np.array([5, 600]), probe).ended is None
    found: dict[str, Any] = json.loads(bench.folder.log("witness-00").read_text().splitlines()[0])
    sent = [int(token) & 1 for token in tokens_T[: memory.BITS]]
    found["bit_error_rate"] = float(np.mean(np.array(found.pop("bits")) != sent))
    return found


def test_in_a_container_the_witness_finds_nothing_of_what_its_scorer_left(
    engine: docker.DockerClient, cpu_image: str, bench: Bench, mark: str
) -> None:
    runner = DockerRunner(engine, cpu_image)
    try:
        assert witness_finds(bench, runner, mark)["found"] == []
    finally:
        runner.close()


def test_the_local_runner_hides_neither_tmp_nor_the_token_file_and_says_that_it_isolates_nothing(
    bench: Bench, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = LocalRunner()
    try:
        found = witness_finds(bench, runner, mark)["found"]
    finally:
        runner.close()
    assert {"/tmp", "System V shared memory", "token file"} <= set(found)
    assert "abstract socket" not in found, "a process outlived its stage"
    assert not runner.isolated


def test_the_page_cache_of_the_image_carries_nothing_once_the_runner_has_cleared_it(
    engine: docker.DockerClient, cpu_image: str, bench: Bench, mark: str
) -> None:
    runner = DockerRunner(engine, cpu_image)
    try:
        errors = witness_finds(bench, runner, mark, lambda: runner.clear_channels(SMALL))["bit_error_rate"]
    finally:
        runner.close()
    assert errors > 0.4, "a guess gets half of the 1,024 bits wrong (standard deviation 0.016)"


def main() -> None:
    """Prints the bit error rate for four actions between scorer and witness."""
    import tempfile

    from harness.runners.images import build

    client = docker.from_env()
    found = build.find(client, "cpu")
    assert found is not None, "pgolf image build cpu"

    def read_all() -> None:
        command = "find / -xdev -type f -exec cat {} + >/dev/null; true"
        client.containers.run(found, ["sh", "-c", command], user="0:0", remove=True)

    def drop() -> None:
        Path("/proc/sys/vm/drop_caches").write_text("1\n")

    clearing_runner = DockerRunner(client, found)
    with contextlib.closing(clearing_runner), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny").mkdir()
        write_word_dataset(Path(folder) / "tiny")
        dataset = Dataset.open(Path(folder) / "tiny")
        actions = {
            "nothing": lambda: None,
            "every file read in full": read_all,
            "cleared by the runner: every file dropped": lambda: clearing_runner.clear_channels(SMALL),
            "caches dropped, as root of the machine": drop,
        }
        for name, between in actions.items():
            for turn in range(3):
                runner = DockerRunner(client, found)
                try:
                    seen = witness_finds(
                        Bench(Path(folder, f"{name}-{turn}"), dataset), runner, uuid.uuid4().hex, between
                    )
                except Violation as violation:
                    print(violation, file=sys.stderr)
                    continue
                finally:
                    runner.close()
                print(
                    f"{name}: {seen['how']}, {seen['bit_error_rate']:.3f} of {memory.BITS} bits wrong",
                    flush=True,
                )


if __name__ == "__main__":
    main()
