"""`pgolf rescore`: what it prints, and the runs that it refuses to score again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import docker
import pytest

from harness.base.errors import UsageError, Violation
from harness.base.exit_codes import ExitCode
from harness.data.dataset import Dataset
from harness.run import stages
from harness.runners.images import build
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.datasets import tiny_dataset
from tests.harness.fakes.images import untagged_image
from tests.harness.fakes.sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.fixture
def run_dir(tmp_path: Path, tiny: Dataset) -> Path:
    """The folder of a finished run of one seed on the local runner."""
    return Path(Sandbox(tmp_path, tiny).run()["run_dir"])


def refusal(*words: object) -> UsageError:
    refused = pgolf("rescore", *words).exception
    assert isinstance(refused, UsageError)
    return refused


def test_both_scores_are_printed_and_whether_the_score_stands(run_dir: Path) -> None:
    done = pgolf("rescore", run_dir)
    bpb = json.loads((run_dir / "verdict.json").read_text())["seeds"][0]["bpb"]
    assert done.exit_code == ExitCode.INCONCLUSIVE, "as the run, which nothing isolated"
    assert pgolf("rescore", run_dir, "--allow-open").exit_code == ExitCode.VALID
    assert f"seed 1: {bpb:.6f} recorded, {bpb:.6f} now: same ledger" in done.stdout
    stands, standing = done.stdout.splitlines()[-2:]
    assert stands == "1 of 1 scored seed: the score stands"
    assert "not shown: C1" in standing and "INCONCLUSIVE by causal" in standing


def test_a_later_witness_adds_its_guarantee_to_the_report_and_decides_nothing(run_dir: Path) -> None:
    before = json.loads((run_dir / "verdict.json").read_text())
    done = pgolf("rescore", run_dir, "--witness", 64)
    assert done.exit_code == ExitCode.INCONCLUSIVE
    after = json.loads((run_dir / "verdict.json").read_text())
    (later,) = after["seeds"][0]["later_certificates"]
    assert (later["folder"], later["failed"], later["n_probes"] > 0) == ("rescored-01", [], True)
    for key in ("verdict", "decided_by", "shown", "not_shown", "findings"):
        assert after[key] == before[key]
    assert "  After the score was fixed, the judge drew" in done.stdout
    for condition in ("C1", "C2", "C3", "C4"):
        assert f"  {condition} " in done.stdout


def test_before_a_witness_is_asked_its_number_of_probes_is_said_to_be_enough_or_too_small(
    run_dir: Path,
) -> None:
    few, many = (pgolf("rescore", run_dir, "--witness", number).stderr for number in (2, 2000))
    assert "so they cannot decide C1; " in few and "probes could, asked from the start" in few
    assert "so they can decide C1" in many
    assert "bits per byte, a pass needs" in few


def test_a_rescoring_that_breaks_is_an_outcome_of_its_own(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise Violation("contestant", "the contestant ended in stage score with exit code 7")

    monkeypatch.setattr(stages, "score", breaks)
    done = pgolf("rescore", run_dir, "--json")
    compared = json.loads(done.stdout)
    assert (done.exit_code, compared["agree"]) == (ExitCode.VIOLATION, False)
    (row,) = compared["seeds"]
    assert (row["outcome"], row["rule"], row["rescored_bpb"]) == ("broken", "contestant", None)
    assert "scoring it again broke (contestant): the contestant ended" in pgolf("rescore", run_dir).stdout


def test_a_score_that_was_changed_in_its_record_does_not_stand(run_dir: Path) -> None:
    path = run_dir / "seed-1" / "run.json"
    record = json.loads(path.read_text())
    record["attempts"][-1]["facts"]["bpb"] = 1.05
    path.write_text(json.dumps(record))
    done = pgolf("rescore", run_dir)
    assert done.exit_code == ExitCode.VIOLATION
    assert "the score does not stand" in done.stdout
    assert "now: same ledger, " in done.stdout and "bits per byte apart" in done.stdout


@pytest.mark.parametrize("seeds", ["99", "1,99"])
def test_a_named_seed_without_a_score_is_refused_with_the_scored_ones(run_dir: Path, seeds: str) -> None:
    error = refusal(run_dir, "--seeds", seeds)
    assert "seed 99 has no score here" in error.message
    assert error.hint == "scored: 1"


def test_a_run_without_a_scored_seed_is_refused(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "seed-1")
    assert "no scored seed to score again" in refusal(run_dir).message


def test_another_dataset_is_refused(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tiny_dataset(tmp_path / "other")
    refused = refusal(run_dir, "--data", other.folder)
    assert "is not the dataset of this run" in refused.message
    assert "--data" in refused.hint


def test_the_folder_of_another_run_takes_nothing_of_this_one(run_dir: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run_dir, tmp_path / "other", symlinks=True)
    before = sorted(other.rglob("*"))
    assert "the folder of another run" in refusal(run_dir, "--witness", 2, "--out", other).message
    assert sorted(other.rglob("*")) == before
    assert pgolf("rescore", run_dir, "--out", run_dir, "--allow-open").exit_code == ExitCode.VALID


def record_image(run_dir: Path, image: str) -> None:
    """Let the run be one that was made in containers of an image of today's lock."""
    plan = run_dir / "plan.json"
    stored = json.loads(plan.read_text())
    stored["identity"] |= {"runner": "docker", "image_lock": f"sha256:{build.lock_sha256('cpu')}"}
    plan.write_text(json.dumps(stored | {"image": image}))


def test_a_run_is_scored_again_in_its_own_image_even_if_that_has_no_tag_and_another_one_does(
    run_dir: Path, engine: docker.DockerClient, cpu_image: str
) -> None:
    with untagged_image(engine, cpu_image) as image:
        record_image(run_dir, image)
        compared = json.loads(pgolf("rescore", run_dir, "--json").stdout)
    assert (compared["image"], compared["same_ledgers"]) == (image, True)
    assert image != cpu_image


def test_a_run_whose_image_is_missing_is_not_scored_again_and_the_way_to_bring_it_is_told(
    run_dir: Path, engine: docker.DockerClient
) -> None:
    theirs = "sha256:" + "12" * 32
    record_image(run_dir, theirs)
    refused = refusal(run_dir)
    assert f"was begun with image {theirs}, which this engine does not have" in refused.message
    assert f"docker save {theirs}" in refused.hint
