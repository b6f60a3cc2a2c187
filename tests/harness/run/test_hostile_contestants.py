"""Hostile contestants in both runners: each attempt ends in time with a violation, with nothing left."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import psutil
import pytest

from harness.base.errors import Violation
from harness.runners.base import Runner, StageSpec, contestant_environment
from tests.harness.fakes.stage_bench import SMALL, Bench

pytestmark = pytest.mark.slow

SHORT = dataclasses.replace(SMALL, train_seconds=1.0, pack_seconds=1.0, score_seconds=1.0)


def test_an_honest_contestant_passes_every_stage(bench: Bench, runner: Runner) -> None:
    job = bench.job(runner)
    trained = bench.train(job)
    assert trained.claims["tokens"] == bench.dataset.train[0].tokens
    assert (bench.folder.checkpoint / "weights").stat().st_size == 2048
    bench.pack(job)
    assert bench.folder.artifact.read_bytes() == b"w" * 2048
    scored = bench.score(job)
    assert scored.facts["ledger_sha256"]
    assert all(abs(boundary["before_nats"] - math.log(300)) < 1e-5 for boundary in scored.facts["borders"])


def test_sleeping_past_the_train_clock_is_over_the_limit_and_ends_in_time(
    bench: Bench, runner: Runner
) -> None:
    sleeper = "import time\ndef before_trained(wire, setup):\n    time.sleep(600)\n"
    begun = time.monotonic()
    with pytest.raises(Violation, match="did not end within 1 s") as caught:
        bench.train(bench.job(runner, sleeper, SHORT))
    assert caught.value.rule == "train-clock"
    assert caught.value.limit
    assert time.monotonic() - begun < 300, "it did not wait for the contestant"


def test_ignoring_sigterm_does_not_help(bench: Bench, runner: Runner) -> None:
    stubborn = (
        "import signal, time\ndef pack(wire, setup):\n"
        "    for n in (1, 2, 15):\n        signal.signal(n, signal.SIG_IGN)\n"
        "    wire.send(op='ready')\n    time.sleep(600)\n"
    )
    with pytest.raises(Violation, match="packing did not end") as caught:
        bench.pack(bench.job(runner, stubborn, SHORT))
    assert caught.value.rule == "pack-clock"


def test_a_log_over_its_limit_counts_however_late_it_is_written(bench: Bench, runner: Runner) -> None:
    """The judge may read the last frame before it looks at the log again."""
    late = (
        "import sys\nbefore = pack\ndef pack(wire, setup):\n"
        f"    sys.stderr.write('x' * {2 * SMALL.log_bytes})\n"
        "    sys.stderr.flush()\n    before(wire, setup)\n"
    )
    bench.train(bench.job(runner))
    with pytest.raises(Violation, match="to its log") as caught:
        bench.pack(bench.job(runner, late))
    assert caught.value.rule == "log"


def test_a_forked_survivor_dies_with_its_stage(bench: Bench, runner: Runner) -> None:
    mark = f"survivor-{time.time_ns()}"
    forker = (
        "import os, subprocess, sys\ndef before_trained(wire, setup):\n"
        "    subprocess.Popen([sys.executable, '-c', 'import os,time\\nif os.fork(): "
        "os._exit(0)\\nos.setsid()\\n"
        f"time.sleep(600)', {mark!r}], env={{}}, start_new_session=True).wait()\n"
    )
    bench.train(bench.job(runner, forker))
    time.sleep(0.2)
    alive = [
        process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])
    ]
    assert not alive


def test_filling_the_output_is_over_the_limit(bench: Bench, runner: Runner) -> None:
    filler = (
        "import time\ndef before_trained(wire, setup):\n    for i in range(100):\n"
        "        with open(f\"{setup['out']}/checkpoint/f{i}\", 'wb') as file:\n            "
        "file.write(bytes(1 << 20))\n"
        "    time.sleep(600)\n"
    )
    with pytest.raises(Violation) as caught:
        bench.train(bench.job(runner, filler))
    assert caught.value.rule == "output"
    assert caught.value.limit


def test_eating_memory_is_over_the_limit(bench: Bench, runner: Runner) -> None:
    eater = (
        "import time\ndef before_trained(wire, setup):\n    held = [bytearray(b'x' * (64 << 20)) for _ in "
        "range(20)]\n"
        "    time.sleep(600)\n"
    )
    with pytest.raises(Violation) as caught:
        bench.train(bench.job(runner, eater))
    assert caught.value.rule == "memory"
    assert caught.value.limit


def test_flooding_the_log_is_over_the_limit_and_the_log_stays_bounded(bench: Bench, runner: Runner) -> None:
    flooder = "def before_trained(wire, setup):\n    while True:\n        print('x' * 65536, flush=True)\n"
    with pytest.raises(Violation) as caught:
        bench.train(bench.job(runner, flooder))
    assert caught.value.rule == "log"
    assert bench.folder.log("train").stat().st_size <= SMALL.log_bytes


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("wire.send(floats(*numbers[1:], *row), op='nats', chunk=frame['chunk'])", "the frame declares"),
        (
            "wire.send(floats(*numbers[:-1], math.nan, *row), op='nats', chunk=frame['chunk'])",
            "finite number >= 0, got .*nan",
        ),
        (
            "wire.send(floats(*numbers[:-1], -0.5, *row), op='nats', chunk=frame['chunk'])",
            "finite number >= 0, got .*-0.5",
        ),
        (
            "wire.send(floats(*numbers[:-1], math.inf, *row), op='nats', chunk=frame['chunk'])",
            "finite number >= 0, got .*inf",
        ),
        ("wire.send(floats(*numbers, *row), op='nats', chunk=7)", "got one for chunk 7"),
        ("wire.send(op='packed')", "out of turn"),
        ("wire.socket.close(); import time; time.sleep(600)", "closed the socket"),
        ("wire.socket.sendall(b'x' * 70000); wire.receive()", "a line of more than 65536 bytes"),
        ("wire.socket.sendall(b'[' * 60000 + b'\\n'); wire.receive()", "nested deeper"),
        ('wire.socket.sendall(b\'{"op":"nats","chunk":true,"bytes":4}\\n\'); wire.receive()', "chunk"),
    ],
)
def test_a_wrong_answer_is_a_violation_that_names_it(bench: Bench, answer: str, says: str) -> None:
    from harness.runners.local import LocalRunner

    with pytest.raises(Violation, match=says) as caught:
        bench.score(bench.job(LocalRunner(), f"def answer(wire, frame, numbers, row):\n    {answer}\n"))
    assert caught.value.rule == "protocol"


def test_a_contestant_that_stalls_in_score_exceeds_its_clock(bench: Bench, runner: Runner) -> None:
    staller = "import time\ndef answer(wire, frame, numbers, row):\n    time.sleep(600)\n"
    with pytest.raises(Violation) as caught:
        bench.score(bench.job(runner, staller, SHORT))
    assert caught.value.rule == "score-clock"


def test_a_contestant_that_crashes_is_a_violation_with_its_stage(bench: Bench, runner: Runner) -> None:
    with pytest.raises(Violation) as caught:
        bench.score(
            bench.job(
                runner, "def score(wire, setup):\n    import time; time.sleep(0.5); raise SystemExit(3)\n"
            )
        )
    assert caught.value.rule in ("contestant", "protocol")
    assert "stage" in caught.value.message


@pytest.mark.parametrize(
    "link", ["os.symlink('/etc/passwd', path)", "os.symlink('weights', path)", "os.mkfifo(path)"]
)
def test_links_and_special_files_in_the_output_are_refused(bench: Bench, runner: Runner, link: str) -> None:
    linker = f"def before_trained(wire, setup):\n    path = setup['out'] + '/checkpoint/more'\n    {link}\n"
    with pytest.raises(Violation, match="/out holds a") as caught:
        bench.train(bench.job(runner, linker))
    assert caught.value.rule == "output"
    assert not bench.folder.checkpoint.exists()
    assert not list(bench.folder.path.glob("*.partial"))


def test_a_track_a_submission_may_not_learn_from_scored_text(bench: Bench) -> None:
    from harness.runners.local import LocalRunner

    adapter = (
        "_send = Wire.send\ndef send(self, payload=b'', **frame):\n"
        "    frame.update(adapts=True) if 'adapts' in frame else None\n"
        "    _send(self, payload, **frame)\nWire.send = send\n"
    )
    with pytest.raises(Violation) as caught:
        bench.score(bench.job(LocalRunner(), adapter))
    assert caught.value.rule == "track"


PROBE = """
import socket, os, json
def before_trained(wire, setup):
    facts = {}
    try:
        socket.create_connection(("198.51.100.7", 80), timeout=2); facts["network"] = True
    except OSError as error:
        facts["network"] = str(error)
    try:
        socket.getaddrinfo("example.org", 80); facts["names"] = True
    except OSError as error:
        facts["names"] = str(error)
    for path in ("/root.txt", "/usr/x", "/in/code.pyz", "/run/pgolf/x"):
        try:
            open(path, "wb").close(); facts[path] = "written"
        except OSError as error:
            facts[path] = error.strerror
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    facts["uid"] = os.getuid(); facts["capabilities"] = status["CapEff"].strip()
    facts["no_new_privileges"] = status["NoNewPrivs"].strip(); facts["seccomp"] = status["Seccomp"].strip()
    facts["in"] = sorted(os.listdir("/in"))
    with open(setup["out"] + "/checkpoint/facts.json", "w") as file:
        json.dump(facts, file)
"""


def test_a_container_reaches_nothing_but_its_socket_its_inputs_and_its_output(
    bench: Bench, engine: object, cpu_image: str
) -> None:
    import json

    from harness.runners.docker import DockerRunner

    runner = DockerRunner(engine, cpu_image)  # type: ignore[arg-type]
    try:
        bench.train(bench.job(runner, PROBE))
    finally:
        runner.close()
    facts = json.loads((bench.folder.checkpoint / "facts.json").read_text())
    assert facts["network"] is not True
    assert facts["names"] is not True
    assert not [path for path in facts if path.startswith("/") and facts[path] == "written"]
    assert (facts["uid"], int(facts["capabilities"], 16)) == (10001, 0)
    assert (facts["no_new_privileges"], facts["seccomp"]) == ("1", "2")
    assert facts["in"] == ["code.pyz", "config.yaml", "tokenizer.model"]


@pytest.mark.parametrize(
    ("stage", "seen"), [("train", "0,1"), ("score", "0,1"), ("pack", ""), ("describe", "")]
)
def test_a_stage_sees_the_gpus_of_its_profile_and_pack_and_describe_none(
    stage: str, seen: str, tmp_path: Path
) -> None:
    spec = StageSpec("a", stage, {}, dataclasses.replace(SMALL, gpus=2), tmp_path / "log", 1)
    assert contestant_environment(spec, "/s", "/tmp", 1)["CUDA_VISIBLE_DEVICES"] == seen
    without_gpus = dataclasses.replace(spec, limits=SMALL)
    assert contestant_environment(without_gpus, "/s", "/tmp", 1)["CUDA_VISIBLE_DEVICES"] == ""


def test_nothing_is_left_in_the_temporary_folder(
    bench: Bench, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bench.pack(bench.job(runner))
    with pytest.raises(Violation):
        bench.pack(bench.job(runner, "def pack(wire, setup):\n    raise SystemExit(1)\n"))
    assert not list(tmp_path.glob("pgolf-*"))
