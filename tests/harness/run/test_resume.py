"""An interrupted, killed or failed run resumes where it stopped, and every attempt is on record."""

from __future__ import annotations

import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from harness.base.errors import MachineFault, UsageError
from harness.base.progress import ProgressDisplay
from harness.commands import run
from harness.data.dataset import Dataset
from harness.runners.images import build
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.images import untagged_image
from tests.harness.fakes.sandbox import ZERO, Sandbox, finding

pytestmark = pytest.mark.slow

FAT = """
def pack(wire, setup):
    wire.send(op="ready")
    with open(setup["out"] + "/artifact.bin", "wb") as file:
        file.truncate(setup["limits"]["counted_bytes"])
    wire.send(op="packed")
"""


@pytest.fixture
def sandbox(tmp_path: Path, tiny: Dataset) -> Sandbox:
    return Sandbox(tmp_path, tiny)


def attempts(folder: Path) -> list[tuple[str, str]]:
    return [(a["stage"], a["outcome"]) for a in json.loads((folder / "run.json").read_text())["attempts"]]


@pytest.mark.parametrize("stage", ["train", "pack", "score"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_run_stopped_in_any_stage_resumes_there(
    sandbox: Sandbox, stage: str, number: signal.Signals
) -> None:
    gate = sandbox.hang_in(stage)
    process = sandbox.start()
    sandbox.await_stage(process, stage)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    if number != signal.SIGKILL:
        assert process.returncode == 130, err
        assert json.loads(out)["seeds"][0]["outcome"] == "interrupted"
    gate.unlink()
    code, verdict, _ = sandbox.finish()
    assert (code, verdict["verdict"]) == (5, "inconclusive"), "nothing isolates this runner"
    done = ["train", "pack", "score"]
    before = done[: done.index(stage)]
    assert attempts(sandbox.seed_folder()) == [
        *((s, "done") for s in before),
        (stage, "interrupted"),
        *((s, "done") for s in done[len(before) :]),
    ]


def test_an_unreadable_recipe_is_refused_before_the_first_seed_with_the_contestants_last_lines(
    tmp_path: Path, tiny: Dataset
) -> None:
    picky = "\ndef describe(wire, setup):\n    raise SystemExit('model.layer: unknown key')\n"
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]", picky)
    process = sandbox.start()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert "with exit code 1; its last line: model.layer: unknown key" in err
    assert not list((sandbox.folder / "runs").glob("uniform/*/seed-*"))


def test_a_run_resumes_in_its_own_image_though_that_has_no_tag_and_is_not_the_newest(
    sandbox: Sandbox, engine: docker.DockerClient, cpu_image: str
) -> None:
    manifest = sandbox.submission / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace(ZERO, f"sha256:{build.lock_sha256('cpu')}", 1))

    def in_containers() -> dict[str, Any]:
        with ProgressDisplay() as display:
            return run.run_submission(replace(sandbox.options(), runner="docker"), display)

    folder = Path(in_containers()["run_dir"])
    with untagged_image(engine, cpu_image) as image:
        plan, record = folder / "plan.json", folder / "seed-1" / "run.json"
        plan.write_text(json.dumps(json.loads(plan.read_text()) | {"image": image}))
        stored = json.loads(record.read_text())
        record.write_text(json.dumps(stored | {"attempts": stored["attempts"][:-1]}))
        resumed = in_containers()
    assert (resumed["image"], resumed["seeds"][0]["outcome"]) == (image, "scored")
    with pytest.raises(UsageError, match=f"was begun with image {image}, which this engine does not have"):
        in_containers()


def test_the_recipe_is_described_once_per_run_folder_and_the_plan_keeps_the_claims(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    _, verdict, first = sandbox.finish()
    plan = json.loads((Path(verdict["run_dir"]) / "plan.json").read_text())
    assert plan["claims"] == {"parameters": 0, "techniques": [], "estimated_bytes": 2048}
    _, _, second = sandbox.finish()
    assert ("describe ..." in first, "describe ..." in second) == (True, False)


def test_a_run_says_which_of_its_stages_it_is_in_and_about_what_is_left(
    tmp_path: Path, tiny: Dataset
) -> None:
    _, _, said = Sandbox(tmp_path, tiny, "[1, 2]").finish()
    places = re.findall(
        r"^seed (\d \w+) \.\.\. \(stage (\d) of 6, 0:\d\d elapsed(, about)?", said, re.MULTILINE
    )
    stages = ("train", "pack", "score")
    assert [(title, int(number)) for title, number, _ in places] == [
        (f"{seed} {stage}", 3 * (seed - 1) + number)
        for seed in (1, 2)
        for number, stage in enumerate(stages, 1)
    ]
    assert [bool(left) for _, _, left in places] == [False] * 3 + [True] * 3
    assert len(re.findall(r"^seed \d \w+: \d+\.\d s$", said, re.MULTILINE)) == 6


def test_a_second_run_does_nothing_and_says_so(sandbox: Sandbox) -> None:
    _, first, _ = sandbox.finish()
    record = (sandbox.seed_folder() / "run.json").read_bytes()
    code, second, err = sandbox.finish()
    assert code == 5
    assert "nothing to do" in err
    assert (sandbox.seed_folder() / "run.json").read_bytes() == record
    assert second["seeds"] == first["seeds"]


def test_again_keeps_the_earlier_run_and_the_seeds_finding_says_that_it_was_replaced(
    sandbox: Sandbox,
) -> None:
    sandbox.finish()
    artifact = (sandbox.seed_folder() / "artifact.bin").read_bytes()
    with ProgressDisplay() as display:
        verdict = run.run_submission(replace(sandbox.options(), again=True), display)
    assert (sandbox.seed_folder().with_name("seed-1.earlier-1") / "artifact.bin").read_bytes() == artifact
    seeds = finding(verdict, "seeds")
    assert (seeds["outcome"], "--again" in seeds["evidence"]) == ("unknown", True)


def test_another_code_recipe_or_dataset_is_another_run(sandbox: Sandbox) -> None:
    sandbox.finish()
    (sandbox.submission / "config.yaml").write_text("a: 1\n")
    sandbox.finish()
    (sandbox.package / "__init__.py").write_text("CHANGED = True\n")
    sandbox.finish()
    assert len(list((sandbox.folder / "runs" / "uniform").glob("pocket-*"))) == 3


def test_two_processes_cannot_share_a_run_folder(sandbox: Sandbox) -> None:
    sandbox.hang_in("train")
    first = sandbox.start()
    sandbox.await_stage(first, "train")
    with pytest.raises(UsageError, match="another process is working"):
        sandbox.run()
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)


def test_a_failed_seed_does_not_stop_the_others_and_is_not_retried(tmp_path: Path, tiny: Dataset) -> None:
    failing = (
        "\n_train = train\ndef train(wire, setup):\n    if setup['seed'] == 1:\n        raise SystemExit(3)\n"
        "    _train(wire, setup)\n"
    )
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]", failing)
    code, verdict, _ = sandbox.finish()
    assert (code, verdict["verdict"]) == (1, "invalid")
    assert [seed["outcome"] for seed in verdict["seeds"]] == ["failed", "scored"]
    again, _, err = sandbox.finish()
    assert again == 1
    assert "nothing to do" in err
    assert attempts(sandbox.seed_folder(1)) == [("train", "failed")]


def test_an_artifact_over_the_cap_is_invalid_with_exit_code_4(tmp_path: Path, tiny: Dataset) -> None:
    code, verdict, _ = Sandbox(tmp_path, tiny, "[1]", FAT).finish()
    assert (code, verdict["verdict"]) == (4, "invalid")
    size = finding(verdict, "size")
    assert (size["outcome"], size["limit"]) == ("fail", True)


def test_an_artifact_over_the_cap_ends_its_seed_after_pack_and_the_size_is_the_only_rule_broken(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1]", FAT)
    _, verdict, talk = sandbox.finish()
    assert attempts(sandbox.seed_folder()) == [("train", "done"), ("pack", "over_limit")]
    assert verdict["decided_by"] == ["size"]
    (row,) = verdict["seeds"]
    over = row["code_bytes"] + row["config_bytes"]
    assert row["counted_bytes"] == verdict["limits"]["counted_bytes"] + over
    assert f"{over:,} bytes over" in row["reason"]
    assert f"seed 1 pack: {over:,} bytes over: code" in talk


def test_a_run_tells_an_estimate_that_is_over_the_cap_before_it_trains(tmp_path: Path, tiny: Dataset) -> None:
    large = """
def describe(wire, setup):
    wire.send(op="ready")
    wire.send(op="description", parameters=0, techniques=[], estimated_bytes=25_000_000)
"""
    _, _, talk = Sandbox(tmp_path, tiny, "[1]", large).finish()
    told = talk.index("the contestant estimates its size: 25.00 MB, 56% over the cap")
    assert told < talk.index("seed 1 train")


def test_a_part_of_the_seeds_gives_the_verdict_on_all_and_the_declared_ones_that_are_missing_are_rows(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2, 3]")
    with ProgressDisplay() as display:
        first = run.run_submission(replace(sandbox.options(), seeds=[2]), display)
    assert [(row["seed"], row["outcome"]) for row in first["seeds"]] == [
        (1, "missing"),
        (2, "scored"),
        (3, "missing"),
    ]
    assert "seeds" in first["decided_by"]
    whole = sandbox.run()
    with ProgressDisplay() as display:
        part = run.run_submission(replace(sandbox.options(), seeds=[2]), display)
    assert {**part, "harness": None} == {**whole, "harness": None}
    assert [row["attempts"] for row in whole["seeds"]] == 3 * [{"train": 1, "pack": 1, "score": 1}]


def test_a_seed_that_was_run_again_stays_in_the_verdict_whatever_is_asked_afterwards(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]")
    first = sandbox.run()
    with ProgressDisplay() as display:
        run.run_submission(replace(sandbox.options(), seeds=[1], again=True), display)
        later = run.run_submission(replace(sandbox.options(), seeds=[2]), display)
    assert f"1 ({first['seeds'][0]['bpb']:.4f})" in finding(later, "seeds")["evidence"]


def test_a_seed_that_the_manifest_drops_after_its_run_is_still_judged(tmp_path: Path, tiny: Dataset) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]")
    sandbox.run()
    sandbox.declare("[1]")
    later = sandbox.run()
    assert [row["seed"] for row in later["seeds"]] == [1, 2]
    assert "in the manifest no longer: 2" in finding(later, "seeds")["evidence"]


def test_report_reads_the_records_and_not_what_verdict_json_says(tmp_path: Path, tiny: Dataset) -> None:
    sandbox = Sandbox(tmp_path, tiny)
    whole = sandbox.run()
    written = Path(whole["run_dir"]) / "verdict.json"
    written.write_text(json.dumps({**whole, "verdict": "valid", "decided_by": [], "mean_bpb": 0.1}))
    shown = pgolf("report", whole["run_dir"], "--json")
    assert shown.exit_code == 5
    assert json.loads(shown.stdout) == whole == json.loads(written.read_text())


def test_killing_the_judge_with_sigkill_ends_its_contestant(sandbox: Sandbox) -> None:
    import psutil

    sandbox.hang_in("train")
    process = sandbox.start()
    sandbox.await_stage(process, "train")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate(timeout=120)
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive


def test_a_seed_copied_under_another_name_is_refused(tmp_path: Path, tiny: Dataset) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]")
    sandbox.finish()
    (sandbox.seed_folder(2) / "run.json").write_bytes((sandbox.seed_folder(1) / "run.json").read_bytes())
    with pytest.raises(UsageError, match="is the record of seed 1, not of seed 2"):
        sandbox.run()


def test_a_command_that_had_nothing_to_do_was_not_interrupted_by_an_earlier_ones_interrupt(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]")
    with ProgressDisplay() as display:
        done = run.run_submission(replace(sandbox.options(), seeds=[1]), display)
    written = Path(done["run_dir"]) / "verdict.json"
    stopped = {**done, "harness": {**done["harness"], "stopped": "interrupted"}}
    written.write_text(json.dumps(stopped))
    with ProgressDisplay() as display:
        again = run.run_submission(replace(sandbox.options(), seeds=[1]), display)
    assert again["harness"] == done["harness"]
    assert pgolf("report", done["run_dir"]).exit_code == 5


def test_a_seed_that_was_declared_and_dropped_unrun_is_missing(tmp_path: Path, tiny: Dataset) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]")
    with ProgressDisplay() as display:
        run.run_submission(replace(sandbox.options(), seeds=[1]), display)
    sandbox.declare("[1]")
    later = sandbox.run()
    assert [(row["seed"], row["outcome"]) for row in later["seeds"]] == [(1, "scored"), (2, "missing")]
    seeds = finding(later, "seeds")
    assert (seeds["outcome"], "declared and not scored: 2" in seeds["evidence"]) == ("unknown", True)


def test_an_archived_run_whose_seed_was_not_run_again_stays_in_the_verdict(
    tmp_path: Path, tiny: Dataset
) -> None:
    sandbox = Sandbox(tmp_path, tiny, "[1, 2]")
    sandbox.run()
    place = sandbox.seed_folder(2)
    place.rename(place.with_name("seed-2.earlier-1"))
    sandbox.declare("[1]")
    with ProgressDisplay() as display:
        later = run.run_submission(replace(sandbox.options(), seeds=[1]), display)
    assert "seeds that were run before: 2 (" in finding(later, "seeds")["evidence"]


def test_a_disk_without_room_is_named_before_the_first_stage(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearly_full(_: object) -> tuple[int, int, int]:
        return usage(10**12, 10**12 - 1000, 1000)

    usage = type(shutil.disk_usage("/"))
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", nearly_full)
        with pytest.raises(MachineFault, match=r"has 1,000 bytes free, .* are needed for"):
            sandbox.run()
    assert not list((sandbox.folder / "runs").glob("uniform/*/seed-*"))
    assert sandbox.run()["seeds"][0]["outcome"] == "scored"


def test_a_run_says_what_its_submission_copied_and_the_link_latest_leads_to_it(sandbox: Sandbox) -> None:
    neighbour = sandbox.submission.with_name("original")
    shutil.copytree(sandbox.submission, neighbour)
    manifest = neighbour / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("name: uniform", "name: original"))
    (sandbox.submission / "train.py").write_text("")
    _, verdict, talk = sandbox.finish()
    assert f"{sandbox.submission}: claim equals that of" in talk
    assert f"{sandbox.submission}: train.py is ignored" in talk
    latest = sandbox.folder / "runs" / "uniform" / "latest"
    assert latest.resolve() == Path(verdict["run_dir"]).resolve()
