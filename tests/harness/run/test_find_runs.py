"""Which run a name stands for, and what is said of names that stand for none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.base.errors import UsageError
from harness.run.find_runs import NEVER, find_run, last_attempt, point_latest, run_folders
from tests.harness.fakes.run_folders import write_run

MAY, JUNE = "2026-05-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `runs` of an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def refusal(given: Path | str, runs: Path) -> UsageError:
    with pytest.raises(UsageError) as refused:
        find_run(Path(given), runs)
    return refused.value


def test_a_submission_stands_for_the_run_whose_last_attempt_began_last(runs: Path) -> None:
    newest = write_run(runs, "uniform", JUNE).path
    write_run(runs, "uniform", MAY)
    write_run(runs, "uniform")
    os.utime(newest, (0, 0))
    os.utime(newest / "seed-1" / "run.json", (0, 0))
    (runs / "uniform" / "ablation-pocket-0123456789ab").mkdir()
    submission = Path("elsewhere/uniform")
    submission.mkdir(parents=True)
    (submission / "manifest.yaml").touch()
    for given in ("uniform", "submissions/uniform", "runs/uniform", submission, "./uniform/"):
        assert find_run(Path(given), runs) == newest


def test_a_name_is_understood_in_any_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = write_run(runs, "uniform", MAY).path
    Path("submissions").mkdir()
    monkeypatch.chdir("submissions")
    for given in ("uniform", "submissions/uniform", "runs/uniform", "../runs/uniform"):
        assert find_run(Path(given), Path("../runs")) == Path("..") / newest


def test_times_of_different_zones_are_compared_as_times(runs: Path) -> None:
    write_run(runs, "uniform", "2026-05-01T09:00:00+09:00")
    newest = write_run(runs, "uniform", "2026-05-01T01:00:00+00:00")
    assert find_run(Path("uniform"), runs) == newest.path


def test_a_path_that_exists_stands_for_itself(runs: Path, tmp_path: Path) -> None:
    folder = write_run(runs, "uniform", MAY)
    for path in (folder.path, folder.plan, folder.seed(1).path, tmp_path):
        assert find_run(path, runs) == path


def test_a_name_without_a_run_is_told_where_it_was_looked_for_and_what_is_near(runs: Path) -> None:
    said = refusal("uniform", runs)
    assert said.message == "uniform: no such run: looked for uniform and runs/uniform"
    assert said.hint == "runs holds no run yet: `pgolf run submissions/NAME` makes one"
    write_run(runs, "hadamard-ve128", MAY)
    assert refusal("hadamard-ve12", runs).hint == "did you mean hadamard-ve128?"
    assert "there are runs of hadamard-ve128" in refusal("uniform", runs).hint
    assert "looked for runs/uniform\n" in str(refusal("runs/uniform", runs))


def test_a_submission_that_was_never_run_does_not_stand_for_its_own_folder(runs: Path) -> None:
    Path("uniform").mkdir()
    Path("uniform/manifest.yaml").touch()
    assert "no such run: looked for uniform and runs/uniform" in refusal("uniform", runs).message


def test_a_name_with_two_meanings_is_refused(runs: Path) -> None:
    write_run(runs, "uniform", MAY)
    write_run(Path(), "uniform", JUNE)
    said = refusal("uniform", runs)
    assert f"both {Path('uniform').absolute()} and runs/uniform hold runs" in said.message
    assert "pgolf list" in said.hint


def test_a_damaged_record_is_an_error_because_it_may_be_the_newest(runs: Path) -> None:
    write_run(runs, "uniform", MAY)
    damaged = write_run(runs, "uniform", "yesterday \x1b[31m")
    assert "started_at is no time: 'yesterday \\x1b[31m'" in refusal("uniform", runs).message
    damaged.seed(1).record.write_text("{")
    assert "not valid JSON" in refusal("uniform", runs).message


def test_a_run_without_an_attempt_has_no_date(runs: Path) -> None:
    assert last_attempt(write_run(runs, "uniform")) == NEVER


def test_latest_is_a_relative_link_that_each_run_moves(runs: Path, tmp_path: Path) -> None:
    first, second = write_run(runs, "uniform", MAY).path, write_run(runs, "uniform", JUNE).path
    for path in (first, second, second):
        point_latest(path)
        assert os.readlink(runs / "uniform" / "latest") == path.name
    assert sorted(os.listdir(runs / "uniform")) == sorted([first.name, second.name, "latest"])
    assert [folder.path for folder in run_folders(runs / "uniform")] == [first, second]
    assert find_run(runs / "uniform" / "latest", runs).samefile(second)


def test_a_folder_named_latest_is_left_alone(runs: Path) -> None:
    path = write_run(runs, "uniform", MAY).path
    (path.parent / "latest").mkdir()
    point_latest(path)
    assert sorted(os.listdir(path.parent)) == ["latest", path.name]
    assert not (path.parent / "latest").is_symlink()
