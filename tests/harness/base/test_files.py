"""Files survive their writers: whole after kill -9, and the old one stays where a write fails."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base import files
from harness.base.errors import UsageError
from harness.run.folder import RunFolder
from tests.harness.fakes.processes import kill, start

WRITER = """
import sys
from pathlib import Path
from harness.base import files
path = Path(sys.argv[1])
for count in range(10**9):
    files.write_json(path, {"count": count, "padding": [count] * 20_000})
    if count == 0:
        print("writing", flush=True)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.11])
def test_a_kill_in_the_middle_of_many_writes_leaves_one_whole_file(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "run.json"
    process = start(WRITER, path, "writing")
    time.sleep(seconds)
    kill(process)
    data = files.read_json(path)
    assert data["padding"] == [data["count"]] * 20_000


def test_a_reader_never_sees_half_a_file_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    process = start(WRITER, path, "writing")
    seen = [files.read_json(path)["count"] for _ in range(30)]
    kill(process)
    assert seen == sorted(seen)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        files.write_bytes(path, "text")  # type: ignore[arg-type]
    assert files.read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["verdict.json"]


def test_a_write_makes_the_folders_it_needs_and_a_file_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "seed-1" / "deep" / "code.pyz"
    files.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_replaces_a_link_and_never_follows_it(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"untouched")
    (tmp_path / "run.json").symlink_to("outside")
    files.write_bytes(tmp_path / "run.json", b"new")
    assert (tmp_path / "outside").read_bytes() == b"untouched"
    assert not (tmp_path / "run.json").is_symlink()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_or_missing_file_is_an_error_for_people(
    tmp_path: Path, content: bytes | None, match: str
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=match) as caught:
        files.read_json(tmp_path / "run.json")
    assert "run.json" in caught.value.message
    assert caught.value.hint


def test_a_file_too_large_to_be_ours_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(files.MAX_JSON_BYTES + 1)
    with pytest.raises(UsageError, match="larger than"):
        files.read_json(tmp_path / "run.json")


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [os.mkfifo, link_to_a_device, Path.mkdir])
def test_what_is_no_regular_file_is_refused_unread(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "plan.json")
    with pytest.raises(UsageError, match=r"plan\.json: expected a regular file"):
        files.read_json(tmp_path / "plan.json")


def test_a_link_to_a_file_of_ours_is_followed(tmp_path: Path) -> None:
    files.write_json(tmp_path / "kept.json", {"a": 1})
    (tmp_path / "plan.json").symlink_to("kept.json")
    assert files.read_json(tmp_path / "plan.json") == {"a": 1}


def test_two_runs_of_other_folders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a").locked(), RunFolder(tmp_path / "b").locked():
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_every_place_of_a_seed_is_inside_its_own_folder_and_distinct(tmp_path: Path) -> None:
    seed = RunFolder(tmp_path).seed(1337)
    places = [
        seed.record,
        seed.events,
        seed.code,
        seed.config,
        seed.resolved,
        seed.checkpoint,
        seed.artifact,
        seed.nats,
        seed.documents,
        *(seed.log(stage) for stage in ("train", "pack", "score")),
        *(seed.incoming(stage) for stage in ("train", "pack")),
    ]
    assert {place.parent for place in places} == {tmp_path / "seed-1337"}
    assert len(set(places)) == len(places)


def test_json_is_written_for_people_too(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"b": [1, 2], "a": None})
    text = (tmp_path / "x.json").read_text()
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 2
    assert json.loads(text) == {"b": [1, 2], "a": None}
