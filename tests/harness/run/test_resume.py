"""A run that is interrupted, killed or loses its engine goes on where it stopped, with every attempt on
record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.base.progress import ProgressDisplay
from harness.commands import run
from harness.commands.run import RunOptions
from harness.data.dataset import Dataset
from harness.run.witness_state import WitnessRequest
from tests.harness.conftest import HONEST

ROOT = Path(__file__).resolve().parents[3]
ZERO = "sha256:" + "0" * 64

SLOW = """
import time
def slow(function):
    def wrapped(wire, setup):
        if os.path.exists(GATE + os.environ["PGOLF_STAGE"]):
            scoring = {"chunk_tokens": CHUNK, "adapts": False, "context": 1}
            wire.send(op="ready", **(scoring if os.environ["PGOLF_STAGE"] == "score" else {}))
            time.sleep(600)
        function(wire, setup)
    return wrapped
train, pack, score = slow(train), slow(pack), slow(score)
"""


class World:
    """A submission of the honest contestant, which hangs in the stages whose gate file exists."""

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
        head, tail = HONEST.read_text().split('if __name__ == "__main__":')
        self.package = package
        (package / "__main__.py").write_text(
            f'{head}GATE = {str(self.gate)!r}\n{SLOW}{override}\nif __name__ == "__main__":{tail}'
        )

    def options(self, request: WitnessRequest | None = None) -> RunOptions:
        """A run of it in this process, on the local runner."""
        return RunOptions(
            submission=self.submission,
            data=self.dataset.folder,
            runner="local",
            runs=self.folder / "runs",
            request=request,
            package=self.package,
        )

    def start(self, what: str = "run") -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "tests.harness.drive",
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
        process = self.start()
        out, err = process.communicate(timeout=120)
        assert out, err
        return process.returncode, json.loads(out), err

    def seed_folder(self, seed: int = 1) -> Path:
        return next((self.folder / "runs").glob(f"uniform/pocket-*/seed-{seed}"))

    def await_stage(self, process: subprocess.Popen[str], stage: str) -> None:
        """Until the contestant is in the stage (its events say that it began and nothing ended it)."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for events in (self.folder / "runs").glob("uniform/*/seed-1/events.jsonl"):
                if f'"event": "begin", "stage": "{stage}"' in events.read_text():
                    time.sleep(0.7)
                    return
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        raise AssertionError(f"stage {stage} never began")


@pytest.fixture
def world(tmp_path: Path, tiny: Dataset) -> World:
    return World(tmp_path, tiny)


def attempts(folder: Path) -> list[tuple[str, str]]:
    return [(a["stage"], a["outcome"]) for a in json.loads((folder / "run.json").read_text())["attempts"]]


@pytest.mark.parametrize("stage", ["train", "pack", "score"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_run_stopped_in_any_stage_goes_on_there(world: World, stage: str, number: signal.Signals) -> None:
    gate = Path(f"{world.gate}{stage}")
    gate.touch()
    process = world.start()
    world.await_stage(process, stage)
    process.send_signal(number)
    out, talk = process.communicate(timeout=30)
    if number != signal.SIGKILL:
        assert process.returncode == 130, talk
        assert json.loads(out)["seeds"][0]["outcome"] == "interrupted"
    gate.unlink()
    code, judged, _ = world.finish()
    assert (code, judged["verdict"]) == (0, "valid")
    done = ["train", "pack", "score"]
    before = done[: done.index(stage)]
    assert attempts(world.seed_folder()) == [
        *((s, "done") for s in before),
        (stage, "interrupted"),
        *((s, "done") for s in done[len(before) :]),
    ]


def test_a_recipe_that_the_contestant_cannot_read_costs_no_seed_and_tells_its_last_words(
    tmp_path: Path, tiny: Dataset
) -> None:
    picky = "\ndef describe(wire, setup):\n    raise SystemExit('model.layer: unknown key')\n"
    world = World(tmp_path, tiny, "[1, 2]", picky)
    process = world.start()
    out, talk = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "its last words: model.layer: unknown key" in talk
    assert not list((world.folder / "runs").glob("uniform/*/seed-*"))


def test_the_recipe_is_described_once_a_run_folder_and_the_plan_keeps_what_was_claimed(
    tmp_path: Path, tiny: Dataset
) -> None:
    world = World(tmp_path, tiny)
    _, judged, first = world.finish()
    plan = json.loads((Path(judged["run_dir"]) / "plan.json").read_text())
    assert plan["claims"] == {"parameters": 0, "techniques": [], "estimated_bytes": 2048}
    _, _, second = world.finish()
    assert ("describe ..." in first, "describe ..." in second) == (True, False)


def test_a_second_run_does_nothing_and_says_so(world: World) -> None:
    _, first, _ = world.finish()
    record = (world.seed_folder() / "run.json").read_bytes()
    code, second, talk = world.finish()
    assert code == 0
    assert "nothing to do" in talk
    assert (world.seed_folder() / "run.json").read_bytes() == record
    assert second["seeds"] == first["seeds"]


def test_running_again_keeps_the_earlier_run_and_no_longer_says_that_none_was_replaced(world: World) -> None:
    world.finish()
    artifact = (world.seed_folder() / "artifact.bin").read_bytes()
    with ProgressDisplay() as display:
        judged = run.run_submission(replace(world.options(), again=True), display)
    assert (world.seed_folder().with_name("seed-1.earlier-1") / "artifact.bin").read_bytes() == artifact
    seeds = next(found for found in judged["findings"] if found["rule"] == "seeds")
    assert (seeds["outcome"], "--again" in seeds["evidence"]) == ("unknown", True)


def test_another_code_recipe_or_dataset_is_another_run(world: World) -> None:
    world.finish()
    (world.submission / "config.yaml").write_text("a: 1\n")
    world.finish()
    (world.package / "__init__.py").write_text("# changed\n")
    world.finish()
    assert len(list((world.folder / "runs" / "uniform").iterdir())) == 3


def test_two_processes_cannot_share_a_run_folder(world: World) -> None:
    Path(f"{world.gate}train").touch()
    first = world.start()
    world.await_stage(first, "train")
    second = world.start()
    _, talk = second.communicate(timeout=60)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert second.returncode == 2
    assert "another process is working" in talk


def test_a_seed_that_fails_leaves_the_others_running_and_is_not_tried_again(
    tmp_path: Path, tiny: Dataset
) -> None:
    failing = (
        "\n_train = train\ndef train(wire, setup):\n    if setup['seed'] == 1:\n        raise SystemExit(3)\n"
        "    _train(wire, setup)\n"
    )
    world = World(tmp_path, tiny, "[1, 2]", failing)
    code, judged, _ = world.finish()
    assert (code, judged["verdict"]) == (1, "invalid")
    assert [seed["outcome"] for seed in judged["seeds"]] == ["failed", "scored"]
    again, _, talk = world.finish()
    assert again == 1
    assert "nothing to do" in talk
    assert attempts(world.seed_folder(1)) == [("train", "failed")]


def test_an_artifact_over_the_cap_is_invalid_with_exit_code_4(tmp_path: Path, tiny: Dataset) -> None:
    fat = (
        "\ndef pack(wire, setup):\n    wire.send(op='ready')\n    with open(setup['out'] + '/artifact.bin', "
        "'wb') as file:\n"
        "        file.truncate(setup['limits']['counted_bytes'])\n    wire.send(op='packed')\n"
    )
    code, judged, _ = World(tmp_path, tiny, "[1]", fat).finish()
    assert (code, judged["verdict"]) == (4, "invalid")
    size = next(found for found in judged["findings"] if found["rule"] == "size")
    assert (size["outcome"], size["limit"]) == ("fail", True)


def test_a_judge_killed_with_9_takes_its_contestant_along(world: World) -> None:
    import psutil

    Path(f"{world.gate}train").touch()
    process = world.start()
    world.await_stage(process, "train")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_a_seed_copied_under_another_name_is_refused(tmp_path: Path, tiny: Dataset) -> None:
    world = World(tmp_path, tiny, "[1, 2]")
    world.finish()
    (world.seed_folder(2) / "run.json").write_bytes((world.seed_folder(1) / "run.json").read_bytes())
    process = world.start()
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "is the record of seed 1, not of seed 2" in talk
