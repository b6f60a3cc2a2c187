"""Commands that read a run need neither its lock nor the right to write into its folder."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.data.dataset import Dataset
from harness.run.folder import RunFolder
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.disks import NOBODY, as_nobody, on_a_full_disk, on_a_read_only_disk, require
from tests.harness.fakes.processes import kill, start
from tests.harness.fakes.sandbox import Sandbox
from tests.harness.run.test_folder import HOLDER

pytestmark = pytest.mark.slow

NOT_WRITTEN = "report.md and report.html are not written anew: "
NOT_KEPT = "this rescoring's logs and certificates are not kept, --out DIR keeps them: "


@pytest.fixture
def run_dir(tmp_path: Path, tiny: Dataset) -> Path:
    """The folder of a finished run of one seed on the local runner."""
    return Path(Sandbox(tmp_path, tiny).run()["run_dir"])


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a folder, with its size and the time of its last change."""
    found = [(path, path.stat()) for path in folder.rglob("*")]
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found}


def test_a_report_on_a_read_only_disk_is_shown_and_one_line_says_that_its_files_stay(run_dir: Path) -> None:
    before = content(run_dir)
    shown = on_a_read_only_disk(run_dir, "report", run_dir)
    assert (shown.returncode, shown.stdout.splitlines()[1].split()[0]) == (5, "INCONCLUSIVE")
    assert "report: " not in shown.stdout, "no place is named as if the report had been written"
    (line,) = shown.stderr.splitlines()
    assert line.startswith(NOT_WRITTEN) and "Read-only file system" in line
    assert json.loads(on_a_read_only_disk(run_dir, "report", run_dir, "--json").stdout)["schema"] == 1
    assert content(run_dir) == before


def test_records_are_audited_and_the_machine_is_examined_though_the_home_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "train_gpt.py").write_text("")
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home" / "pgolf"))
    audited = on_a_read_only_disk(tmp_path / "home", "audit", tmp_path / "record", "--json")
    assert audited.returncode != 3 and json.loads(audited.stdout)["folder"] == str(tmp_path / "record")
    assert "reports are neither taken from the cache nor kept: " in audited.stderr
    examined = on_a_read_only_disk(tmp_path / "home", "doctor")
    assert "none yet: the first pocket run" in examined.stdout
    assert examined.returncode in (0, 3), "with an engine 3: its runs write there"


def test_a_verdict_that_lies_alone_on_a_read_only_disk_is_shown(run_dir: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run_dir / "verdict.json", alone)
    shown = on_a_read_only_disk(alone, "report", alone)
    assert (shown.returncode, "nothing of it was checked" in shown.stdout) == (5, True)


def test_runs_on_a_read_only_disk_are_exported_compared_and_listed(run_dir: Path, tmp_path: Path) -> None:
    exported = on_a_read_only_disk(run_dir, "export", run_dir, "--out", tmp_path / "out")
    assert (exported.returncode, exported.stdout) == (0, f"{tmp_path / 'out'}\n")
    compared = on_a_read_only_disk(run_dir, "compare", run_dir, run_dir)
    assert (compared.returncode, "a tie" in compared.stdout) == (0, True)
    listed = on_a_read_only_disk(run_dir, "list", "--runs", run_dir.parent.parent)
    assert (listed.returncode, str(run_dir) in listed.stdout) == (0, True)


def test_a_run_on_a_read_only_disk_is_scored_again(run_dir: Path) -> None:
    done = on_a_read_only_disk(run_dir, "rescore", run_dir)
    assert (done.returncode, "1 of 1 scored seed: the score stands" in done.stdout) == (5, True)
    (line,) = [line for line in done.stderr.splitlines() if NOT_KEPT in line]
    assert "Read-only file system" in line


def test_a_witness_of_a_run_on_a_read_only_disk_leaves_its_certificate_where_out_says(
    run_dir: Path, tmp_path: Path
) -> None:
    before, out = content(run_dir), tmp_path / "out"
    done = on_a_read_only_disk(run_dir, "rescore", run_dir, "--witness", 64, "--out", out, "--json")
    compared = json.loads(done.stdout)
    assert (compared["kept_in"], compared["same_ledgers"], NOT_KEPT in done.stderr) == (str(out), True, False)
    assert {"rescore.log", "rescored-01"} == {path.name for path in (out / "seed-1").iterdir()}
    assert json.loads((out / "seed-1" / "rescored-01" / "rescored.json").read_bytes())["certificate"]
    assert content(run_dir) == before


def test_out_keeps_a_rescoring_out_of_a_run_folder_that_could_be_written(
    run_dir: Path, tmp_path: Path
) -> None:
    before = content(run_dir)
    assert pgolf("rescore", run_dir, "--out", tmp_path / "out").exit_code == 5
    assert content(run_dir) == before


def test_a_run_at_work_is_read_without_its_lock(run_dir: Path, tmp_path: Path) -> None:
    with RunFolder(run_dir).locked():
        pass
    holder = start(HOLDER, run_dir, "locked")
    before = content(run_dir)
    busy = f"{run_dir}: another process is working in this run folder"
    shown, scored = pgolf("report", run_dir), pgolf("rescore", run_dir)
    assert (shown.exit_code, shown.stderr.splitlines()) == (5, [f"{NOT_WRITTEN}{busy}"])
    assert (scored.exit_code, f"{NOT_KEPT}{busy}" in scored.stderr) == (5, True)
    assert pgolf("export", run_dir, "--out", tmp_path / "out").exit_code == 0
    assert pgolf("compare", run_dir, run_dir).exit_code == 0
    assert content(run_dir) == before
    kill(holder)


def test_a_run_on_a_full_disk_is_shown_and_scored_again(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shown = on_a_full_disk(run_dir, copy, "report", copy)
    assert (shown.returncode, "INCONCLUSIVE" in shown.stdout) == (5, True)
    (line,) = shown.stderr.splitlines()
    assert line.startswith(NOT_WRITTEN) and "ran full" in line
    done = on_a_full_disk(run_dir, copy, "rescore", copy)
    assert (done.returncode, "the score stands" in done.stdout, NOT_KEPT in done.stderr) == (5, True, True), (
        done.stderr
    )


@pytest.fixture
def foreign_run(run_dir: Path) -> Iterator[Path]:
    """A copy of the run in a folder that everybody may read and only its owner may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(run_dir, Path(folder) / run_dir.name))


def test_a_run_of_another_user_is_shown_and_exported(foreign_run: Path) -> None:
    shown = as_nobody("report", foreign_run)
    assert (shown.returncode, "INCONCLUSIVE" in shown.stdout) == (5, True)
    assert "Permission denied" in shown.stderr and shown.stderr.startswith(NOT_WRITTEN)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        exported = as_nobody("export", foreign_run, "--out", Path(folder) / "out")
    assert exported.returncode == 0


def test_a_run_of_another_user_is_scored_again(foreign_run: Path, tiny: Dataset) -> None:
    require(
        *NOBODY, sys.executable, "-c", "import subprocess, sys; subprocess.check_call([sys.executable, '-V'])"
    )
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(shutil.copytree(tiny.folder, Path(folder) / "data"))
        for path in (Path(folder), dataset):
            path.chmod(0o755)
        done = as_nobody("rescore", foreign_run, "--data", dataset)
    assert (done.returncode, "the score stands" in done.stdout, NOT_KEPT in done.stderr) == (5, True, True)
