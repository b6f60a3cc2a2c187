"""Remarks about a submission: files that nothing reads, and fields that a neighbour has too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.run import submission as submissions
from harness.run.remarks import remarks
from tests.harness.run.test_submission import changed, write_submission

OWN: dict[str, Any] = {"authors": ["B"], "source": "#1", "claim": None, "baseline": None}


def remarks_of(place: Path) -> list[str]:
    return remarks(submissions.load(place))


def test_a_submission_of_its_three_files_has_no_remarks(tmp_path: Path) -> None:
    place = write_submission(tmp_path)
    (place / "README.md").write_text("")
    assert remarks_of(place) == []


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train.py"], "train.py is ignored: "),
        (["train.py", "notes.txt"], "notes.txt and train.py are ignored: "),
        ([f"{letter}.py" for letter in "abcdefg"], "a.py, b.py, c.py, d.py, e.py and 2 more are ignored: "),
        (["\x1b[2J"], "\\x1b[2J is ignored: "),
    ],
)
def test_other_files_in_the_folder_are_named_as_ignored(tmp_path: Path, names: list[str], says: str) -> None:
    place = write_submission(tmp_path)
    for name in names:
        (place / name).write_text("")
    assert remarks_of(place) == [
        f"{says}a submission is manifest.yaml, config.yaml and README.md; code goes into golf/"
    ]


def test_the_recipe_that_the_manifest_names_is_not_ignored(tmp_path: Path) -> None:
    place = write_submission(tmp_path, changed(config="recipes/small.yaml"))
    (place / "recipes").mkdir()
    (place / "recipes" / "small.yaml").write_text("")
    (remark,) = remarks_of(place)
    assert remark.startswith("config.yaml is ignored: a submission is manifest.yaml, recipes/small.yaml and")


def test_fields_that_equal_those_of_a_neighbour_are_named(tmp_path: Path) -> None:
    write_submission(tmp_path, changed(name="origin"), "origin")
    assert remarks_of(write_submission(tmp_path)) == [
        "claim equals that of submissions/origin: state your own score, or leave it out",
        "source equals that of submissions/origin: state where this idea comes from",
        "authors equal those of submissions/origin: right if the same people made both",
        "baseline equals that of submissions/origin: right if both build on the same work",
    ]


def test_neighbours_that_share_nothing_stated_are_not_named(tmp_path: Path) -> None:
    write_submission(tmp_path, changed(name="other", **OWN), "other")
    assert remarks_of(write_submission(tmp_path, changed(**{**OWN, "authors": ["C"], "source": "#2"}))) == []


def test_a_neighbour_whose_manifest_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    write_submission(tmp_path, "seeds: 042\n", "broken")
    write_submission(tmp_path, changed(name="a-copy"), "a-copy")
    (remark, *_) = remarks_of(write_submission(tmp_path))
    assert "submissions/a-copy:" in remark


def test_the_folder_may_be_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_submission(tmp_path, changed(name="origin"), "origin")
    monkeypatch.chdir(write_submission(tmp_path))
    assert len(remarks_of(Path())) == 4
