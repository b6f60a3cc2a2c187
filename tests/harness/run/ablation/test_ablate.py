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
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import MachineFault, UsageError
from harness.data.dataset import Dataset
from harness.protocol.frames import Description
from harness.run.ablation import report
from harness.run.ablation.study import arms_of
from harness.runners.base import StageSpec
from harness.runners.local import LocalRunner, LocalStage
from tests.harness.fakes.ablation import RECIPE, STAGES, AblationSandbox
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.datasets import WORD_VOCABULARY
from tests.harness.fakes.processes import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def sandbox(tmp_path: Path, tiny: Dataset) -> AblationSandbox:
    return AblationSandbox(tmp_path, tiny)


def bpb(dataset: Dataset, nats: float, tokens: int | None = None) -> float:
    """Bits per byte if every token costs `nats`."""
    tokens_T = dataset.validation_tokens()[:tokens]
    counted = dataset.byte_table().count(tokens_T, None)
    return nats / math.log(2) * (len(tokens_T) - 1) / int(counted[1:].sum())


def row(table: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in table["rows"] if each["variant"] == name)


def test_differences_equal_the_nats_of_each_technique_and_a_failing_variant_is_listed(
    sandbox: AblationSandbox, tiny: Dataset
) -> None:
    table = sandbox.ablate()
    assert [each["variant"] for each in table["rows"]] == ["base", *(f"without {name}" for name in STAGES)]
    start, one = math.log(WORD_VOCABULARY), bpb(tiny, 1.0)
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


def test_stages_that_a_variant_does_not_change_are_not_repeated(sandbox: AblationSandbox) -> None:
    sandbox.ablate(only=("wide", "grid", "cache"))
    assert sandbox.count("train") == 2 * 2, "base and wide, two seeds each"
    assert sandbox.count("pack") == 2 * (2 + 2 + 1 + 2), "grid reuses the base's unquantised score"
    assert sandbox.count("score") == sandbox.count("pack")


def test_a_finished_ablation_is_not_measured_again_and_can_be_extended(sandbox: AblationSandbox) -> None:
    first = sandbox.ablate(only=("grid",))
    trained = sandbox.count("train")
    assert sandbox.ablate(only=("grid",))["rows"] == first["rows"]
    assert sandbox.count("train") == trained == 2
    more = sandbox.ablate(seeds=(1, 2, 3), only=("without grid", "cache"))
    assert sandbox.count("train") == trained + 1
    assert row(more, "without grid")["scored"] == [1, 2, 3]
    assert more["run_dir"] == first["run_dir"]


def test_another_recipe_other_steps_or_other_tokens_are_another_ablation(sandbox: AblationSandbox) -> None:
    folders = {
        sandbox.ablate(only=("grid",), seeds=(1,))["run_dir"],
        sandbox.ablate(only=("grid",), seeds=(1,), steps=4)["run_dir"],
        sandbox.ablate(only=("grid",), seeds=(1,), val_tokens=100)["run_dir"],
    }
    (sandbox.submission / "config.yaml").write_text(json.dumps(RECIPE | {"wide": 0.4}))
    folders.add(sandbox.ablate(only=("grid",), seeds=(1,))["run_dir"])
    assert len(folders) == 4


def test_one_seed_has_no_interval(sandbox: AblationSandbox) -> None:
    table = sandbox.ablate(seeds=(2,), only=("grid",))
    assert row(table, "base")["values"]["after"]["ci95"] is None
    assert row(table, "without grid")["differences"]["gap"]["ci95"] is None


def test_val_tokens_limits_what_is_scored_and_the_headline_says_so(
    sandbox: AblationSandbox, tiny: Dataset
) -> None:
    table = sandbox.ablate(seeds=(1,), only=("grid",), val_tokens=100)
    nats = math.log(WORD_VOCABULARY) - 0.3 - 0.2 - 0.1 + 0.05 + 0.01
    assert row(table, "base")["values"]["after"]["mean"] == pytest.approx(bpb(tiny, nats, 100), abs=1e-6)
    assert table["scored_tokens"] == 99
    assert "the first 100 tokens of tiny" in report.headline(table)


def test_without_steps_the_train_clock_decides_their_number_which_is_counted_once(
    sandbox: AblationSandbox,
) -> None:
    table = sandbox.ablate(seeds=(1,), steps=None, only=("grid",))
    assert (table["steps"], sandbox.count("train")) == (7, 2), "one training counts, one is compared"
    assert sandbox.ablate(seeds=(1, 2), steps=None, only=("grid",))["steps"] == 7
    assert sandbox.count("train") == 3
    assert "7 steps each (what the train clock of 45 s allowed here)" in report.headline(table)


def test_variants_that_reuse_a_failed_base_fail_and_the_others_still_run(sandbox: AblationSandbox) -> None:
    Path(f"{sandbox.gate}crash").touch()
    table = sandbox.ablate(only=("grid", "wide"))
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


def await_training(sandbox: AblationSandbox, process: subprocess.Popen[str], number: int) -> None:
    """Wait until the contestant is in its training of this number."""
    wait_until(lambda: sandbox.count("train") >= number, process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_an_interrupted_ablation_resumes_without_repeating_finished_pairs(
    sandbox: AblationSandbox, number: signal.Signals
) -> None:
    hang = Path(f"{sandbox.gate}hang")
    hang.touch()
    process = sandbox.start("ablate")
    await_training(sandbox, process, 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    if number == signal.SIGINT:
        table = json.loads(out)
        assert (process.returncode, table["stopped"]) == (130, "interrupted"), err
        assert (row(table, "base")["scored"], row(table, "without wide")["unfinished"]) == ([1, 2], [1, 2])
    hang.unlink()
    results = {path: path.read_bytes() for path in (sandbox.folder / "runs").rglob("result.json")}
    assert len(results) == 2
    table = sandbox.ablate()
    assert sandbox.count("train") == 2 + 1 + 2 + 2, "base, interrupted, wide, sound"
    assert all(path.read_bytes() == content for path, content in results.items())
    assert row(table, "without wide")["scored"] == [1, 2]


def test_a_machine_fault_ends_the_ablation_and_the_next_call_resumes_it(
    sandbox: AblationSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, calls = LocalRunner.start, itertools.count()

    def failing(self: LocalRunner, spec: StageSpec) -> LocalStage:
        if next(calls) == 7:  # the judge's own stage, describe, then five stages of the base
            raise MachineFault("the engine is gone")
        return start(self, spec)

    monkeypatch.setattr(LocalRunner, "start", failing)
    table = sandbox.ablate(seeds=(1,), only=("grid",))
    assert (table["exit_code"], table["stopped"]) == (3, "the engine is gone")
    assert (row(table, "base")["scored"], row(table, "without grid")["unfinished"]) == ([1], [1])
    assert sandbox.ablate(seeds=(1,), only=("grid",))["exit_code"] == 0
    assert sandbox.count("train") == 1


def test_two_processes_cannot_share_an_ablation(sandbox: AblationSandbox) -> None:
    Path(f"{sandbox.gate}hang").touch()
    process = sandbox.start("ablate")
    await_training(sandbox, process, 3)
    with pytest.raises(UsageError, match="another process is working"):
        sandbox.ablate()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130


def test_a_result_of_another_pair_a_missing_checkpoint_and_a_changed_study_are_refused(
    sandbox: AblationSandbox,
) -> None:
    place = Path(sandbox.ablate(seeds=(1,), only=("grid",))["run_dir"])
    base = place / "base" / "seed-1" / "result.json"
    honest = base.read_text()
    for key, value in (("steps", 4), ("seed", 2), ("variant", "without grid")):
        base.write_text(json.dumps(json.loads(honest) | {key: value}))
        with pytest.raises(
            UsageError, match=r"result.json: is the result of .* not of 'base', seed 1, 3 steps"
        ):
            sandbox.ablate(seeds=(1,))
    base.write_text(honest)
    (place / "base" / "seed-1" / "checkpoint").rename(place / "elsewhere")
    with pytest.raises(UsageError, match="the base's checkpoint is missing"):
        sandbox.ablate(seeds=(1,), only=("cache",))
    (place / "study.json").write_text((place / "study.json").read_text().replace('"steps": 3', '"steps": 5'))
    with pytest.raises(UsageError, match="does not describe this ablation"):
        sandbox.ablate(seeds=(1,))


def test_an_unreadable_recipe_is_refused_before_training_with_the_contestants_last_log_lines(
    sandbox: AblationSandbox,
) -> None:
    (sandbox.submission / "config.yaml").write_text(json.dumps(RECIPE | {"typo": 1}))
    with pytest.raises(UsageError) as caught:
        sandbox.ablate()
    assert "its last line: typo: unknown key" in caught.value.message
    assert sandbox.count("train") == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"val_tokens": 1}, "--val-tokens 1: from 2"),
        ({"val_tokens": 10**9}, "that dataset tiny has"),
        ({"only": ("gird",)}, "no variant 'gird'"),
    ],
)
def test_invalid_numbers_and_names_are_refused_before_training(
    sandbox: AblationSandbox, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        sandbox.ablate(**options)
    assert sandbox.count("train") == 0


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
    result = pgolf("ablate", "submissions/none", "--steps", 2)
    assert "no such submission" in str(result.exception)
