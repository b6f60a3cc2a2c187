"""A run as a record folder: the counted files, the judge's numbers, and nothing that the audit objects to."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.audit.audit import audit_folder
from harness.base import arrays, files
from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.edition import PROFILES
from harness.run import bundle
from harness.run.bundle import Bundle
from harness.run.folder import RunFolder
from harness.run.records import load, save
from harness.verdict.export import export
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.verdicts import SEEDS, broken, manifest, record

CONFIG = b"model: {}\n"
FORGED = "seed:1\nquantized val_loss:0.1 val_bpb:0.1\n\x1b[2Jfinal val_loss:0.2 val_bpb:0.2"


@pytest.fixture(scope="module")
def code() -> Bundle:
    return bundle.build(ROOT / "golf")


@pytest.fixture
def run(tmp_path: Path, code: Bundle) -> RunFolder:
    """A finished run of three seeds, as `pgolf run` leaves it."""
    folder = RunFolder(tmp_path / "runs" / "my-idea" / "pocket-0123456789ab")
    artifact = b"a" * 5_000
    scores = [2.1 + at / 100 for at in range(len(SEEDS))]
    seeds = [
        record(seed, bpb=bpb, nats_per_token=bpb * 3.5 / 2.1, artifact_bytes=len(artifact))
        for seed, bpb in zip(SEEDS, scores, strict=True)
    ]
    for each in seeds:
        place = folder.seed(each.seed)
        place.path.mkdir(parents=True)
        place.code.write_bytes(code.pyz)
        place.source.write_bytes(code.source_zip)
        place.config.write_bytes(CONFIG)
        place.artifact.write_bytes(artifact)
        bits = np.array([done.facts["bpb"] * 1000 for done in each.attempts if done.stage == "score"])
        columns = {"starts": np.zeros(1, np.int64), "bits": bits, "bytes": np.array([1000])}
        arrays.write_arrays(place.documents, columns)
        place.log("train").write_text(FORGED)
        packed = each.done("pack")
        assert packed is not None
        packed.facts["artifact_sha256"] = hashlib.sha256(artifact).hexdigest()
        save(place.record, each)
    files.write_json(
        folder.plan,
        {
            "schema": 1,
            "submission": "my-idea",
            "track": "A",
            "image": None,
            "manifest": manifest().model_dump(mode="json", by_alias=True),
            "isolated": True,
            "isolation": "container: no network",
            "code_bytes": len(code.pyz),
            "config_bytes": len(CONFIG),
            "dataset": {"name": "pocket", "folder": "/x", "compressors": {"xz -9e": 2.557}},
            "identity": {
                "code": code.sha256,
                "config": hashlib.sha256(CONFIG).hexdigest(),
                "runner": "docker",
                "dataset": "cd" * 32,
                "profile": "pocket",
                "limits": PROFILES["pocket"].public(),
            },
        },
    )
    return folder


def test_the_record_folder_holds_the_challenges_files_and_the_code_that_was_counted(
    run: RunFolder, tmp_path: Path
) -> None:
    out = export(run.path, tmp_path / "out", "A. Person", "aperson")
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "code.pyz",
        "config.yaml",
        "submission.json",
        *sorted(f"train_seed{seed}.log" for seed in SEEDS),
    ]
    stated = json.loads((out / "submission.json").read_text())
    assert (out / "code.pyz").read_bytes() == run.seed(1337).code.read_bytes()
    assert stated["bytes_code"] == (out / "code.pyz").stat().st_size + (out / "config.yaml").stat().st_size
    assert stated["bytes_total"] == stated["bytes_code"] + stated["artifact_bytes_max"]
    assert stated["val_bpb"] == pytest.approx(2.11)
    assert [stated["author"], stated["github_id"], stated["seeds"]] == ["A. Person", "aperson", list(SEEDS)]
    assert stated["track"] == "non_record_16mb" and "pocket" in stated["non_record_reason"]
    readme = (out / "README.md").read_text()
    assert "on pocket" in readme.splitlines()[0]
    assert all(f"| {seed} | {row['val_bpb']:.8f} |" in readme for seed, row in stated["seed_results"].items())


@pytest.mark.slow
def test_the_audit_of_an_export_reads_its_code_and_finds_nothing(run: RunFolder, tmp_path: Path) -> None:
    report = audit_folder(export(run.path, tmp_path / "out", "A. Person", "aperson"))
    assert report["verdict"] == "nothing found"
    open_rules = {found["rule"] for found in report["findings"] if found["outcome"] != "pass"}
    assert not open_rules & {
        "unread-code",
        "no-runnable-code",
        "artifact-size",
        "nats-and-bytes",
        "train-clock",
        "eval-clock",
    }
    assert [seed["bpb"] for seed in report["seeds"]] == pytest.approx([2.1, 2.11, 2.12])
    assert report["headline_bpb"] == pytest.approx(2.11)


def test_lines_that_a_contestant_printed_never_look_like_measurements(run: RunFolder, tmp_path: Path) -> None:
    text = (export(run.path, tmp_path / "out", None, None) / "train_seed42.log").read_text()
    measured = [line for line in text.splitlines() if not line.startswith("> ")]
    assert [line for line in measured if "val_bpb:" in line] == [
        "quantized val_loss:3.51666667 val_bpb:2.11000000 eval_time:20000ms"
    ]
    assert [line for line in measured if line.startswith("seed:")] == ["seed:42"]
    assert "val_bpb:0.2" in text and "\x1b" not in text


def test_an_existing_folder_is_never_overwritten(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(run.path, out, None, None)  # an empty folder may be used
    before = (out / "README.md").read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        export(run.path, out, None, None)
    assert (out / "README.md").read_bytes() == before
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="already exists"):
        export(run.path, link, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out", "runs"]


def test_an_unfinished_or_invalid_run_is_refused_with_the_reason(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="is this a run folder"):
        export(tmp_path, out, None, None)
    save(run.seed(42).record, broken(42, "train", "interrupted"))
    with pytest.raises(UsageError, match=r"not scored: 42 \(interrupted\)"):
        export(run.path, out, None, None)
    run.seed(42).record.unlink()
    with pytest.raises(UsageError, match=r"not scored: 42 \(missing\)"):
        export(run.path, out, None, None)
    save(run.seed(42).record, record(42, artifact_bytes=20_000_000))
    with pytest.raises(UsageError, match="invalid by size"):
        export(run.path, out, None, None)
    stored = json.loads(run.plan.read_text())
    del stored["manifest"]
    run.plan.write_text(json.dumps(stored))
    with pytest.raises(UsageError, match=r"manifest: Field required"):
        export(run.path, out, None, None)
    assert not out.exists()


@pytest.mark.parametrize("name", ["code.pyz", "source.zip", "config.yaml", "artifact.bin"])
def test_files_that_were_changed_since_the_run_are_refused(run: RunFolder, tmp_path: Path, name: str) -> None:
    path = run.seed(42).path / name
    if name in ("code.pyz", "source.zip"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("golf/more.py", "x = 1\n")
    else:
        path.write_bytes(path.read_bytes() + b"#")
    with pytest.raises(UsageError, match=name):
        export(run.path, tmp_path / "out", None, None)


def test_a_score_that_was_written_into_the_verdict_is_not_exported(run: RunFolder, tmp_path: Path) -> None:
    files.write_json(run.verdict, {"mean_bpb": 1.0, "seeds": [{"seed": 1337, "bpb": 1.0}]})
    out = export(run.path, tmp_path / "out", None, None)
    assert json.loads((out / "submission.json").read_text())["val_bpb"] == pytest.approx(2.11)


def test_a_score_that_was_changed_in_its_record_is_refused(run: RunFolder, tmp_path: Path) -> None:
    forged = load(run.seed(42).record, 42)
    scored = forged.done("score")
    assert scored is not None
    scored.facts["bpb"] = 1.0
    save(run.seed(42).record, forged)
    with pytest.raises(UsageError, match=r"states 1\.000000 bits per byte, its documents have 2\.110000"):
        export(run.path, tmp_path / "out", None, None)


def test_the_command_prints_the_folder_and_says_what_is_missing(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "2026-05-01_my-idea"
    done = pgolf("export", run.path, "--out", out, "--author", "A. Person")
    assert done.exit_code == 0
    assert done.stdout.strip() == str(out)
    assert "no --github-id" in done.stderr


def test_the_audit_reads_code_in_an_archive_from_its_entry_point(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("__main__.py", "from golf.work import main\nmain()\n")
        archive.writestr(
            "golf/work.py",
            "import requests\n\ndef main():\n    requests.get('x')\n\n"
            "def dead():\n    exec(open('x').read())\n",
        )
    (tmp_path / "code.pyz").write_bytes(content.getvalue())
    (tmp_path / "README.md").write_text("x")
    found = {finding["rule"]: finding for finding in audit_folder(tmp_path)["findings"]}
    assert found["network"]["evidence"][0]["file"] == "code.pyz!golf/work.py"
    assert "exec-of-file" not in found


def test_the_gpus_of_a_run_are_named(run: RunFolder, tmp_path: Path) -> None:
    for seed in SEEDS:
        done = load(run.seed(seed).record, seed)
        for each in done.attempts:
            each.host["gpus"] = [{"name": "NVIDIA H100 80GB HBM3"}] * 2
        save(run.seed(seed).record, done)
    stated = json.loads((export(run.path, tmp_path / "out", None, None) / "submission.json").read_text())
    assert stated["hardware"] == "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"
