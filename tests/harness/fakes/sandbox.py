"""A submission of the honest test contestant, which tests run, interrupt and change; and one that learns.

A stage whose gate file exists hangs, so that a test can interrupt the run in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.base.paths import ROOT
from harness.base.progress import ProgressDisplay
from harness.commands.run import RunOptions, run_submission
from harness.data.dataset import Dataset
from harness.run.witness_state import WitnessRequest, witness_request
from harness.verdict import decide
from tests.harness.fakes.contestant import contestant_source
from tests.harness.fakes.processes import wait_until

ZERO = "sha256:" + "0" * 64

SLOW = """
import time
def slow(function):
    def wrapped(wire, setup):
        if os.path.exists(GATE + os.environ["PGOLF_STAGE"]):
            scoring = {"chunk_tokens": CHUNK, "adapts": False, "context": 1}
            wire.send(op="ready", **(scoring if os.environ["PGOLF_STAGE"] == "score" else {}))
            if os.environ["PGOLF_STAGE"] != "pack":
                wire.receive()  # what the judge sends once it has read `ready`
            open(GATE + os.environ["PGOLF_STAGE"] + "-reached", "w").close()
            time.sleep(600)
        function(wire, setup)
    return wrapped
train, pack, score = slow(train), slow(pack), slow(score)
"""


class Sandbox:
    """A folder with a submission of the honest contestant, a dataset, the runs and the gate files."""

    def __init__(self, folder: Path, dataset: Dataset, seeds: str = "[1]", override: str = "") -> None:
        self.folder, self.dataset, self.gate = folder, dataset, folder / "gate-"
        self.submission = folder / "uniform"
        self.submission.mkdir(parents=True)
        (self.submission / "config.yaml").write_text("{}\n")
        (self.submission / "manifest.yaml").write_text(
            "schema: 1\nname: uniform\ntitle: t\nauthors: [a]\nsource: s\ntrack: A\ndataset: sp1024\nseeds: "
            f"{seeds}\n"
            f"image: {{cpu: '{ZERO}', cuda: '{ZERO}'}}\nclaim: {{dataset: other, bpb: {{1: 4.0}}}}\n"
        )
        package = folder / "golf"
        package.mkdir()
        (package / "__init__.py").write_text("")
        self.package = package
        (package / "__main__.py").write_text(
            contestant_source(f"GATE = {str(self.gate)!r}\n{SLOW}{override}")
        )

    def declare(self, seeds: str) -> None:
        """Let the manifest declare other seeds, such as `[1]`."""
        path = self.submission / "manifest.yaml"
        path.write_text(re.sub(r"seeds: .*", f"seeds: {seeds}", path.read_text()))

    def options(self, request: WitnessRequest | None = None) -> RunOptions:
        """Options of a run in this process, on the local runner."""
        return RunOptions(
            submission=self.submission,
            data=self.dataset.folder,
            runner="local",
            runs=self.folder / "runs",
            request=request,
            package=self.package,
        )

    def run(self, request: WitnessRequest | None = None) -> dict[str, Any]:
        """Run the submission in this process; returns the verdict."""
        with ProgressDisplay() as display:
            return run_submission(self.options(request), display)

    def start(self, what: str = "run") -> subprocess.Popen[str]:
        """Start `pgolf run` or `pgolf ablate` in a process of its own."""
        command = [
            sys.executable,
            "-m",
            "tests.harness.fakes.drive",
            what,
            str(self.submission),
            str(self.dataset.folder),
            str(self.folder / "runs"),
            "local",
            str(self.package),
        ]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PGOLF_HOME": str(self.folder / "home")},
            # a shell's background jobs ignore Ctrl-C, and so would their children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def finish(self) -> tuple[int, dict[str, Any], str]:
        """Run the submission in this process: exit code, verdict, stderr."""
        talk = io.StringIO()
        with contextlib.redirect_stderr(talk):
            verdict = self.run()
        return decide.exit_code(verdict), verdict, talk.getvalue()

    def seed_folder(self, seed: int = 1) -> Path:
        return next((self.folder / "runs").glob(f"uniform/pocket-*/seed-{seed}"))

    def hang_in(self, stage: str) -> Path:
        """Let the contestant hang in a stage, once it is ready; remove the file to let it pass."""
        gate = Path(f"{self.gate}{stage}")
        gate.touch()
        return gate

    def await_stage(self, process: subprocess.Popen[str], stage: str) -> None:
        """Wait until the judge has been told that the contestant is ready in a stage in which it hangs."""
        wait_until(Path(f"{self.gate}{stage}-reached").exists, process)


CHUNK = 512
COUNTER = f"""
CHUNK = {CHUNK}
def row(counts):
    total = sum(counts)
    return [math.log(count / total) for count in counts]

def score(wire, setup):
    size, seen, total = setup["vocab_size"], 0, setup["tokens"]
    counts = [1] * size
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=True, context=1, world=1)
    while True:
        frame, payload = wire.receive()
        if frame["op"] == "bye":
            return
        chunk = array.array("H", payload)
        seen += len(chunk)
        before_answer(counts, chunk)
        logs = row(counts)
        numbers = [-logs[token] for token in chunk]
        if frame["start"] == 0:
            numbers[0] = 0.0
        wire.send(floats(*numbers), op="nats", chunk=frame["chunk"])
        if seen < total:
            frame, _ = wire.receive()
            assert frame["op"] == "adapt"
            learn(counts, chunk)
            wire.send(floats(*row(counts)), op="adapted", chunk=frame["chunk"])
        after_row(counts, chunk)

def learn(counts, chunk):
    for token in chunk:
        counts[token] += 1

def before_answer(counts, chunk):
    pass

def after_row(counts, chunk):
    pass
"""


class LearnerSandbox(Sandbox):
    """A submission of a contestant that learns from scored text: it counts tokens on `adapt` (COUNTER)."""

    def __init__(self, folder: Path, dataset: Dataset, track: str = "B", override: str = "") -> None:
        super().__init__(folder, dataset, "[1]", COUNTER + override)
        path = self.submission / "manifest.yaml"
        path.write_text(path.read_text().replace("track: A", f"track: {track}"))


def finding(verdict: dict[str, Any], rule: str) -> dict[str, Any]:
    """The finding of a rule."""
    found: dict[str, Any] = next(each for each in verdict["findings"] if each["rule"] == rule)
    return found


def certified_run(
    sandbox: Sandbox, probes: int = 256, chunks: int | None = None, batched: bool = False
) -> dict[str, Any]:
    """The verdict of a run that asks a witness."""
    return sandbox.run(witness_request("pocket", probes, chunks, batched))


def outcomes(verdict: dict[str, Any]) -> dict[str, str]:
    """The outcome of each rule."""
    return {each["rule"]: each["outcome"] for each in verdict["findings"]}
