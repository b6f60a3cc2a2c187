"""Ablations of a fake contestant with known scores: what is measured, reused, resumed and reported.

Its recipe is JSON: for each technique, the nats that it takes off every token. Checkpoint, artifact and
scores follow from it.
"""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import cli
from harness.base.errors import MachineFault, UsageError
from harness.base.progress import ProgressDisplay
from harness.commands.ablate import AblationOptions, ablate_submission
from harness.data.dataset import Dataset
from harness.protocol.frames import Description
from harness.run.ablation import report
from harness.run.ablation.study import arms_of
from harness.runners.base import StageSpec
from harness.runners.local import LocalRunner, LocalStage
from tests.harness.conftest import VOCABULARY
from tests.harness.run.test_resume import World

RECIPE = {"wide": 0.3, "grid": 0.2, "cache": 0.1, "sound": 0.0, "int": 0.05}
STAGES = {"wide": "train", "grid": "pack", "cache": "score", "sound": "train"}
CONTESTANT = """
import hashlib, time
STAGES = {"wide": "train", "grid": "pack", "cache": "score", "sound": "train"}

def recipe(setup):
    return json.load(open(setup["config"]))

def done(name):
    with open(GATE + name + "-count", "a") as file:
        file.write("x")

def without(config, *names):
    return json.dumps({key: value for key, value in config.items() if key not in names})

def describe(wire, setup):
    config = recipe(setup)
    if "typo" in config:
        raise SystemExit("typo: unknown key")
    variants = [{"name": f"without {name}", "config": without(config, name),
                 "unquantised": without(config, name, "int"), "changes": STAGES[name]}
                for name in config if name != "int"]
    wire.send(op="ready")
    wire.send(op="description", parameters=1000 if "wide" in config else 900,
              techniques=[name for name in config if name != "int"], estimated_bytes=2048,
              unquantised=without(config, "int"), variants=[], more=True)
    wire.send(op="variants", variants=variants)

def train(wire, setup):
    config = recipe(setup)
    wire.send(op="ready")
    frame, _ = wire.receive()
    done("train")
    if os.path.exists(GATE + "hang") and "wide" not in config:
        time.sleep(600)
    if os.path.exists(GATE + "crash") and setup["seed"] == 2 and "wide" in config and "sound" in config:
        raise SystemExit("crashed")
    os.makedirs(setup["out"] + "/checkpoint")
    open(setup["out"] + "/config.resolved.yaml", "w").close()
    sound = "sound" in config
    nats = math.log(setup["vocab_size"]) - config.get("wide", 0) + setup["seed"] / 100
    json.dump({"nats": nats, "sound": sound}, open(setup["out"] + "/checkpoint/weights", "w"))
    wire.send(op="trained", steps=frame.get("steps", 7), tokens=1)
    wire.receive()

def pack(wire, setup):
    config, weights = recipe(setup), json.load(open(setup["checkpoint"] + "/weights"))
    wire.send(op="ready")
    done("pack")
    weights["nats"] += config.get("int", 0) - config.get("grid", 0)
    weights["recipe"] = open(setup["config"]).read()
    with open(setup["out"] + "/artifact.bin", "w") as file:
        file.write(json.dumps(weights).ljust(500 if "int" in config else 2000))
    wire.send(op="packed")

def score(wire, setup):
    weights = json.load(open(setup["artifact"]))
    if weights["recipe"] != open(setup["config"]).read():
        raise SystemExit("packed with another recipe")
    done("score")
    nats = weights["nats"] - recipe(setup).get("cache", 0)
    wire.send(op="ready", chunk_tokens=CHUNK, adapts=False, context=1, world=1)
    seen = 0
    while True:
        frame, payload = wire.receive()
        if frame["op"] == "bye":
            return
        n = len(payload) // 2
        seen += n
        numbers = [nats if weights["sound"] else math.nan] * n
        if frame["start"] == 0:
            numbers[0] = 0.0
        row = [-math.log(setup["vocab_size"])] * setup["vocab_size"] if seen < setup["tokens"] else []
        wire.send(floats(*numbers, *row), op="nats", chunk=frame["chunk"])
"""


class AblationWorld(World):
    """A submission of that contestant, ablated in this process."""

    def __init__(self, folder: Path, dataset: Dataset, recipe: dict[str, Any] = RECIPE) -> None:
        super().__init__(folder, dataset, "[1, 2]", CONTESTANT)
        (self.submission / "config.yaml").write_text(json.dumps(recipe))

    def ablate(
        self,
        seeds: tuple[int, ...] = (1, 2),
        steps: int | None = 3,
        only: tuple[str, ...] = (),
        val_tokens: int | None = None,
    ) -> dict[str, Any]:
        options = AblationOptions(
            submission=self.submission,
            seeds=seeds,
            steps=steps,
            only=only,
            val_tokens=val_tokens,
            data=self.dataset.folder,
            runner="local",
            runs=self.folder / "runs",
            command="pgolf ablate",
            package=self.package,
        )
        with ProgressDisplay() as display:
            return ablate_submission(options, display)

    def count(self, stage: str) -> int:
        path = Path(f"{self.gate}{stage}-count")
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def world(tmp_path: Path, tiny: Dataset) -> AblationWorld:
    return AblationWorld(tmp_path, tiny)


def bpb(dataset: Dataset, nats: float, tokens: int | None = None) -> float:
    """Bits per byte if every token costs `nats`."""
    tokens_T = dataset.validation_tokens()[:tokens]
    counted = dataset.byte_table().count(tokens_T, None)
    return nats / math.log(2) * (len(tokens_T) - 1) / int(counted[1:].sum())


def row(table: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in table["rows"] if each["variant"] == name)


def test_differences_equal_the_nats_of_each_technique_and_a_failing_variant_is_listed(
    world: AblationWorld, tiny: Dataset
) -> None:
    table = world.ablate()
    assert [each["variant"] for each in table["rows"]] == ["base", *(f"without {name}" for name in STAGES)]
    start, one = math.log(VOCABULARY), bpb(tiny, 1.0)
    base = row(table, "base")["values"]
    assert base["after"]["mean"] == pytest.approx(bpb(tiny, start - 0.3 - 0.2 - 0.1 + 0.05 + 0.015), abs=1e-6)
    assert base["gap"]["mean"] == pytest.approx(0.05 * one, abs=1e-6)
    assert base["ratio"]["mean"] == pytest.approx(2 * 1000 / 500)
    for name, after, gap in (("wide", 0.3, 0.0), ("grid", 0.2, 0.2), ("cache", 0.1, 0.0)):
        found = row(table, f"without {name}")["differences"]
        assert found["after"]["mean"] == pytest.approx(after * one, abs=1e-6), name
        assert found["gap"]["mean"] == pytest.approx(gap * one, abs=1e-6), name
        assert found["bytes"] == {"mean": 0.0, "ci95": [0.0, 0.0], "n": 2}
        low, high = found["after"]["ci95"]
        assert high - low < 1e-5, "seeds differ, but paired differences do not"
    assert row(table, "without wide")["values"]["ratio"]["mean"] == pytest.approx(2 * 900 / 500), (
        "its own parameters"
    )
    assert row(table, "without grid")["values"]["step_seconds"] is None, "it was not trained"
    broken = row(table, "without sound")
    assert (broken["scored"], [each["stage"] for each in broken["failed"]]) == ([], ["score", "score"])
    assert "expected a finite number" in broken["failed"][0]["message"]
    assert broken["values"]["bytes"]["mean"] == 500, "what was measured before it failed is kept"
    assert table["exit_code"] == 1


def test_stages_that_a_variant_does_not_change_are_not_repeated(world: AblationWorld) -> None:
    world.ablate(only=("wide", "grid", "cache"))
    assert world.count("train") == 2 * 2, "base and wide, two seeds each"
    assert world.count("pack") == 2 * (2 + 2 + 1 + 2), "grid reuses the base's unquantised score"
    assert world.count("score") == world.count("pack")


def test_a_finished_ablation_is_not_measured_again_and_can_be_extended(world: AblationWorld) -> None:
    first = world.ablate(only=("grid",))
    trained = world.count("train")
    assert world.ablate(only=("grid",))["rows"] == first["rows"]
    assert world.count("train") == trained == 2
    more = world.ablate(seeds=(1, 2, 3), only=("without grid", "cache"))
    assert world.count("train") == trained + 1
    assert row(more, "without grid")["scored"] == [1, 2, 3]
    assert more["run_dir"] == first["run_dir"]


def test_another_recipe_other_steps_or_other_tokens_are_another_ablation(world: AblationWorld) -> None:
    folders = {
        world.ablate(only=("grid",), seeds=(1,))["run_dir"],
        world.ablate(only=("grid",), seeds=(1,), steps=4)["run_dir"],
        world.ablate(only=("grid",), seeds=(1,), val_tokens=100)["run_dir"],
    }
    (world.submission / "config.yaml").write_text(json.dumps(RECIPE | {"wide": 0.4}))
    folders.add(world.ablate(only=("grid",), seeds=(1,))["run_dir"])
    assert len(folders) == 4


def test_one_seed_has_no_interval(world: AblationWorld) -> None:
    table = world.ablate(seeds=(2,), only=("grid",))
    assert row(table, "base")["values"]["after"]["ci95"] is None
    assert row(table, "without grid")["differences"]["gap"]["ci95"] is None


def test_val_tokens_limits_what_is_scored_and_the_headline_says_so(
    world: AblationWorld, tiny: Dataset
) -> None:
    table = world.ablate(seeds=(1,), only=("grid",), val_tokens=100)
    nats = math.log(VOCABULARY) - 0.3 - 0.2 - 0.1 + 0.05 + 0.01
    assert row(table, "base")["values"]["after"]["mean"] == pytest.approx(bpb(tiny, nats, 100), abs=1e-6)
    assert table["scored_tokens"] == 99
    assert "the first 100 tokens of tiny" in report.headline(table)


def test_without_steps_the_train_clock_decides_their_number_which_is_counted_once(
    world: AblationWorld,
) -> None:
    table = world.ablate(seeds=(1,), steps=None, only=("grid",))
    assert (table["steps"], world.count("train")) == (7, 2), "one training counts, one is compared"
    assert world.ablate(seeds=(1, 2), steps=None, only=("grid",))["steps"] == 7
    assert world.count("train") == 3
    assert "7 steps each (what the train clock of 45 s allowed here)" in report.headline(table)


def test_variants_that_reuse_a_failed_base_fail_and_the_others_still_run(world: AblationWorld) -> None:
    Path(f"{world.gate}crash").touch()
    table = world.ablate(only=("grid", "wide"))
    assert [row(table, name)["scored"] for name in ("base", "without wide", "without grid")] == [
        [1],
        [1, 2],
        [1],
    ]
    assert (
        "reuses the base's training of this seed, which failed"
        in row(table, "without grid")["failed"][0]["message"]
    )
    assert row(table, "without wide")["differences"]["after"]["n"] == 1, (
        "only seeds with both numbers are paired"
    )
    assert table["exit_code"] == 1


def await_file(path: Path, process: subprocess.Popen[str], size: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text()) < size:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_an_interrupted_ablation_resumes_without_repeating_finished_pairs(
    world: AblationWorld, number: signal.Signals
) -> None:
    hang = Path(f"{world.gate}hang")
    hang.touch()
    process = world.start("ablate")
    await_file(Path(f"{world.gate}train-count"), process, 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    if number == signal.SIGINT:
        table = json.loads(out)
        assert (process.returncode, table["stopped"]) == (130, "interrupted"), err
        assert (row(table, "base")["scored"], row(table, "without wide")["unfinished"]) == ([1, 2], [1, 2])
    hang.unlink()
    results = {path: path.read_bytes() for path in (world.folder / "runs").rglob("result.json")}
    assert len(results) == 2
    table = world.ablate()
    assert world.count("train") == 2 + 1 + 2 + 2, "base, interrupted, wide, sound"
    assert all(path.read_bytes() == content for path, content in results.items())
    assert row(table, "without wide")["scored"] == [1, 2]


def test_a_machine_fault_ends_the_ablation_and_the_next_call_resumes_it(
    world: AblationWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, calls = LocalRunner.start, itertools.count()

    def failing(self: LocalRunner, spec: StageSpec) -> LocalStage:
        if next(calls) == 6:  # describe, then five stages of the base
            raise MachineFault("the engine is gone")
        return start(self, spec)

    monkeypatch.setattr(LocalRunner, "start", failing)
    table = world.ablate(seeds=(1,), only=("grid",))
    assert (table["exit_code"], table["stopped"]) == (3, "the engine is gone")
    assert (row(table, "base")["scored"], row(table, "without grid")["unfinished"]) == ([1], [1])
    assert world.ablate(seeds=(1,), only=("grid",))["exit_code"] == 0
    assert world.count("train") == 1


def test_two_processes_cannot_share_an_ablation(world: AblationWorld) -> None:
    Path(f"{world.gate}hang").touch()
    process = world.start("ablate")
    await_file(Path(f"{world.gate}train-count"), process, 3)
    with pytest.raises(UsageError, match="another process is working"):
        world.ablate()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_a_result_of_another_pair_a_missing_checkpoint_and_a_changed_study_are_refused(
    world: AblationWorld,
) -> None:
    place = Path(world.ablate(seeds=(1,), only=("grid",))["run_dir"])
    base = place / "base" / "seed-1" / "result.json"
    honest = base.read_text()
    for key, value in (("steps", 4), ("seed", 2), ("variant", "without grid")):
        base.write_text(json.dumps(json.loads(honest) | {key: value}))
        with pytest.raises(
            UsageError, match=r"result.json: is the result of .* not of 'base', seed 1, 3 steps"
        ):
            world.ablate(seeds=(1,))
    base.write_text(honest)
    (place / "base" / "seed-1" / "checkpoint").rename(place / "elsewhere")
    with pytest.raises(UsageError, match="the base's checkpoint is missing"):
        world.ablate(seeds=(1,), only=("cache",))
    (place / "study.json").write_text((place / "study.json").read_text().replace('"steps": 3', '"steps": 5'))
    with pytest.raises(UsageError, match="does not describe this ablation"):
        world.ablate(seeds=(1,))


def test_an_unreadable_recipe_is_refused_before_training_with_the_contestants_last_log_lines(
    world: AblationWorld,
) -> None:
    (world.submission / "config.yaml").write_text(json.dumps(RECIPE | {"typo": 1}))
    with pytest.raises(UsageError) as caught:
        world.ablate()
    assert "typo: unknown key" in caught.value.hint
    assert world.count("train") == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"val_tokens": 1}, "--val-tokens 1: from 2"),
        ({"val_tokens": 10**9}, "that dataset tiny has"),
        ({"seeds": (-1,)}, "--seeds -1"),
        ({"only": ("gird",)}, "no variant 'gird'"),
    ],
)
def test_invalid_numbers_and_names_are_refused_before_training(
    world: AblationWorld, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        world.ablate(**options)
    assert world.count("train") == 0


def test_a_variant_may_not_be_named_like_the_base() -> None:
    described = Description.model_validate(
        {
            "op": "description",
            "parameters": 1,
            "techniques": [],
            "estimated_bytes": 1,
            "variants": [{"name": "base", "config": ""}],
        }
    )
    with pytest.raises(UsageError, match="a variant is named 'base'"):
        arms_of(b"", described, [])


def test_names_that_differ_only_in_punctuation_get_different_folders() -> None:
    described = Description.model_validate(
        {
            "op": "description",
            "parameters": 1,
            "techniques": [],
            "estimated_bytes": 1,
            "variants": [{"name": name, "config": ""} for name in ("a/b", "a-b", "../..")],
        }
    )
    slugs = [arm.slug for arm in arms_of(b"", described, [])]
    assert len(set(slugs)) == 4
    assert not [slug for slug in slugs if "/" in slug or slug.startswith(".")]


def test_the_command_refuses_a_submission_that_does_not_exist() -> None:
    result = CliRunner().invoke(cli.app, ["ablate", "submissions/none", "--steps", "2"])
    assert "no such submission" in str(result.exception)
