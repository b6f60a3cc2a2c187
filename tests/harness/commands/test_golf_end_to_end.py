"""golf under the judge, in both runners: every stage of a small recipe (4 layers, 30 steps).

`just run submissions/hadamard-ve128` takes the same path at full size.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from harness import edition
from harness.base.paths import ROOT
from harness.data.dataset import Dataset
from harness.run import bundle_archive
from harness.run.bundle_archive import Contents
from harness.runners.images import build
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.contestant import pyz
from tests.once import Once

pytestmark = pytest.mark.slow
PROBES = 256
"""So many that the certificate decides; fewer leave a bound that is too wide."""
FEW_PROBES = 64
"""So few that the bound is too wide to decide; a witness that disagreed would show all the same."""
RECIPE = """
model: {layers: 4, width: 64, heads: 2, kv_heads: 1, mlp_hidden: 128, rope_dims: 16, ln_scale: true,
        xsa_last: 2, attn_gate: true, smear: true, bigram_buckets: 64, bigram_dim: 16, ve_dim: 16,
        ve_layers: [2, 3], init: orthogonal}
optim: {warmdown: 0.5, muon_momentum_warmup: 0.2, clip: 0.3, ema_fraction: 0.1}
train: {batch_tokens: 512, seq_len: 64, steps: 30, warmup_steps: 1, log_every: 10}
quant: {rotate: true, fp16_limit: 1023}
score: {window: 64, stride: 32, chunk_tokens: 1024}
"""


AMPLE = replace(
    edition.PROFILES["pocket"], setup_seconds=600, train_seconds=600, pack_seconds=600, score_seconds=600
)
"""Long clocks, because these tests do not test clocks and the machine may be busy."""


@pytest.fixture(autouse=True)
def ample_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(edition.PROFILES, "pocket", AMPLE)


def write_submission(folder: Path) -> Path:
    """The submission `small` under a folder."""
    submission = folder / "small"
    submission.mkdir()
    (submission / "config.yaml").write_text(RECIPE)
    locks = {name: f"sha256:{build.lock_sha256(name)}" for name in ("cpu", "cuda")}
    (submission / "manifest.yaml").write_text(
        "schema: 1\nname: small\ntitle: t\nauthors: [a]\nsource: s\ntrack: A\ndataset: sp1024\n"
        "seeds: [1, 2]\n"
        f"image: {json.dumps(locks)}\nclaim: {{dataset: other, bpb: {{1: 4.0}}}}\n"
        "baseline: {name: uniform, source: s, dataset: tiny, profile: pocket, bpb: {1: 5.0, 2: 5.01}}\n"
    )
    return submission


def run(submission: Path, dataset: Dataset, runner: str, *more: object) -> Result:
    """`pgolf run` of the submission, with its runs in a folder beside it."""
    runs = submission.parent / "runs"
    return pgolf("run", submission, "--data", dataset.folder, "--runner", runner, "--runs", runs, *more)


@pytest.fixture
def run_folder(once: Once, tiny: Dataset, tmp_path: Path) -> Path:
    """A copy of a finished local run of both seeds, certified; its submission lies beside its folder of
    runs. All tests share the one training.
    """

    def make(folder: Path) -> None:
        result = run(write_submission(folder), tiny, "local", "--witness", PROBES, "--json")
        assert result.exit_code == 5, (result.output, result.exception)
        (folder / "printed.json").write_text(result.stdout)

    made = once("golf-run", make)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    return next((tmp_path / "runs" / "small").glob("pocket-*"))


def assert_judged(verdict: dict[str, Any], isolated: bool) -> None:
    """Both seeds are scored, certified and better than the uniform baseline."""
    assert verdict["verdict"] == ("valid" if isolated else "inconclusive"), verdict
    assert verdict["shown"] == (["C1", "C2", "C3", "C4"] if isolated else ["C2"])
    assert [seed["outcome"] for seed in verdict["seeds"]] == ["scored", "scored"]
    assert 0 < verdict["mean_bpb"] < 5.0
    assert verdict["seeds"][0]["claims"] == {
        "steps": 30,
        "tokens": 30 * 512,
        "attention": "blocks",
        "world": 1,
    }
    assert verdict["baseline"]["tests"][0]["better"] is True
    outcomes = {found["rule"]: found["outcome"] for found in verdict["findings"]}
    assert (outcomes["border-rows"], outcomes["normalised"]) == ("pass", "pass")
    shown = "pass" if isolated else "unknown"
    assert (outcomes["causal"], outcomes["score-first"], outcomes["single-pass"]) == (shown,) * 3
    for seed in verdict["seeds"]:
        assert seed["certificate"]["largest_gain_nats"] < 1e-5
        assert [each["witnesses"] for each in seed["certificate"]["looks"]] == [1], (
            "numbers that repeat exactly need no second witness"
        )


def assert_scored_again(run_dir: Path, isolated: bool) -> None:
    """The report is there, and scoring again gives the same ledgers and shows what the run showed."""
    verdict, code = ("valid", 0) if isolated else ("inconclusive", 5)
    assert f"{verdict.upper()}" in (run_dir / "report.md").read_text().splitlines()[2]
    again = pgolf("rescore", run_dir, "--json")
    assert again.exit_code == code
    assert json.loads(again.stdout)["same_ledgers"] is True


def test_a_submission_is_trained_packed_scored_judged_and_scored_again_on_the_local_runner(
    run_folder: Path,
) -> None:
    verdict = json.loads((run_folder.parents[2] / "printed.json").read_text())
    assert_judged(verdict, isolated=False)
    assert json.loads((run_folder / "verdict.json").read_text()) == verdict
    assert_scored_again(run_folder, isolated=False)


def test_a_submission_is_trained_packed_scored_judged_and_scored_again_in_containers(
    cpu_image: str, tmp_path: Path, tiny: Dataset
) -> None:
    result = run(write_submission(tmp_path), tiny, "docker", "--witness", PROBES, "--json")
    verdict = json.loads(result.stdout)
    assert result.exit_code == 0
    assert_judged(verdict, isolated=True)
    assert_scored_again(Path(verdict["run_dir"]), isolated=True)


def test_windows_aligned_to_documents_are_scored_and_witnesses_asked_in_batches_agree(
    tiny: Dataset, tmp_path: Path
) -> None:
    submission = write_submission(tmp_path)
    aligned = RECIPE.replace("chunk_tokens: 1024", "chunk_tokens: 1024, align: documents")
    (submission / "config.yaml").write_text(aligned.replace("steps: 30", "steps: 4"))
    witness = ("--witness", FEW_PROBES, "--witness-lanes")
    result = run(submission, tiny, "local", "--seeds", 1, *witness, "--json")
    verdict = json.loads(result.stdout)
    row = next(row for row in verdict["seeds"] if row["seed"] == 1)
    assert (result.exit_code, row["outcome"]) == (5, "scored"), verdict
    certificate = row["certificate"]
    assert certificate["lanes"] is not None
    assert certificate["largest_gain_nats"] < 1e-3
    assert "fail" not in {condition["outcome"] for condition in certificate["conditions"]}


@pytest.mark.parametrize("name", sorted(folder.name for folder in (ROOT / "submissions").iterdir()))
def test_every_submission_is_trained_packed_and_scored_and_its_witness_agrees(
    name: str, tiny: Dataset, tmp_path: Path
) -> None:
    """Its whole recipe for profile pocket, but two steps, few batches for statistics, one process
    (tests/golf/stages/test_stages.py has two), and chunks of 2,048 tokens for a text of 7,948.
    """
    submission = tmp_path / name
    shutil.copytree(ROOT / "submissions" / name, submission)
    recipe = yaml.safe_load((submission / "config.yaml").read_text())
    smaller = {"train": {"steps": 2}, "score": {"chunk_tokens": 2048}, "hardware": {"ranks": 1}}
    batches = {field: 1 for field in recipe.get("stats", {}) if field.endswith("_batches")}
    for part in (recipe, recipe["profiles"]["pocket"]):
        for section, fields in {**smaller, "stats": batches}.items():
            part.setdefault(section, {}).update(fields)
    (submission / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    manifest = yaml.safe_load((submission / "manifest.yaml").read_text())
    seed = manifest["seeds"][0]
    result = run(submission, tiny, "local", "--seeds", seed, "--witness", FEW_PROBES, "--json")
    verdict = json.loads(result.stdout)
    row = next(row for row in verdict["seeds"] if row["seed"] == seed)
    assert (result.exit_code, verdict["verdict"], row["outcome"]) == (5, "inconclusive", "scored"), verdict
    assert row["claims"]["steps"] == 2
    certificate = row["certificate"]
    assert certificate["largest_gain_nats"] < 1e-5
    assert "fail" not in {condition["outcome"] for condition in certificate["conditions"]}
    assert [each["witnesses"] for each in certificate["looks"]] == [1], "its numbers repeat exactly"
    outcomes = {found["rule"]: found["outcome"] for found in verdict["findings"]}
    assert (outcomes["border-rows"], outcomes["size"]) == ("pass", "pass")
    learned = {"A": "`adapt` was never sent (track A)", "B": "3 times `adapt` was sent"}
    evidence = next(found for found in verdict["findings"] if found["rule"] == "score-first")["evidence"]
    assert learned[manifest["track"]] in evidence, "three boundaries between four chunks"


def test_rescoring_refuses_stored_numbers_that_were_changed(run_folder: Path) -> None:
    seed = run_folder / "seed-1"
    nats = bytearray((seed / "nats.f32").read_bytes())
    nats[400:404] = bytes(4)
    (seed / "nats.f32").write_bytes(nats)
    again = pgolf("rescore", run_folder)
    assert again.exit_code != 0
    assert "does not match the ledger" in str(again.exception)


def test_rescoring_refuses_a_changed_recipe_changed_code_another_image_and_a_broken_plan(
    run_folder: Path, tiny: Dataset
) -> None:
    seed, plan = run_folder / "seed-1", run_folder / "plan.json"
    recipe, code, source = seed / "config.yaml", seed / "code.pyz", seed / "source.zip"
    other = Contents(b"", bundle_archive.unpack(code.read_bytes()).sources)
    image = json.dumps({**json.loads(plan.read_text()), "image": "sha256:another"})
    for path, content, message in (
        (recipe, recipe.read_bytes() + b"# ", "is not what the run was made with"),
        (code, bundle_archive.pack(other), "is not what the run was made with"),
        (code, pyz(), "not a code bundle"),
        (source, pyz(), "names are not those of code.pyz"),
        (plan, b'{"submission": 1}', "plan.json: submission"),
    ):
        before = path.read_bytes()
        path.write_bytes(content)
        refused = pgolf("rescore", run_folder)
        path.write_bytes(before)
        assert refused.exit_code != 0
        assert message in str(refused.exception)
    plan.write_text(image)
    resumed = run(run_folder.parents[2] / "small", tiny, "local")
    assert "was begun with image sha256:another" in str(resumed.exception)


def test_a_replaced_artifact_is_refused_and_a_damaged_verdict_is_written_again(
    run_folder: Path, tmp_path: Path
) -> None:
    (run_folder / "seed-1" / "artifact.bin").write_bytes(b"another")
    assert "is not the artifact that was packed" in str(pgolf("rescore", run_folder).exception)
    verdict = json.loads((run_folder / "verdict.json").read_text())
    for hostile in (
        [],
        {},
        {**verdict, "verdict": "\x1b[31mvalid"},
        {**verdict, "seeds": [{}]},
        {**verdict, "findings": 1},
    ):
        (run_folder / "verdict.json").write_text(json.dumps(hostile))
        assert pgolf("report", run_folder).exit_code == 5
        assert json.loads((run_folder / "verdict.json").read_text())["verdict"] == "inconclusive"
        lone = tmp_path / "lone" / "verdict.json"
        lone.parent.mkdir(exist_ok=True)
        lone.write_text(json.dumps(hostile))
        assert "cannot be shown" in str(pgolf("report", lone).exception)
    lone.write_text(json.dumps(verdict))
    assert pgolf("report", lone).exit_code == 5


def test_check_states_the_published_number_of_parameters_without_training() -> None:
    submission = ROOT / "submissions" / "hadamard-ve128"
    result = pgolf("check", submission, "--profile", "record", "--runner", "local", "--json")
    checked = json.loads(result.stdout)
    assert checked["parameters"] == 27_038_810
    assert (result.exit_code, checked["size"] in ("pass", "unknown")) == (0, True)


def test_check_repeats_the_contestants_error_for_a_mistyped_recipe(tmp_path: Path) -> None:
    submission = write_submission(tmp_path)
    (submission / "config.yaml").write_text("model: {layer: 4}\n")
    result = pgolf("check", submission, "--runner", "local")
    assert result.exit_code != 0
    assert "model.layer: unknown key; did you mean 'layers'?" in str(result.exception)
