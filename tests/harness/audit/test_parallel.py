"""Many folders: found by their files, each audited within limits, reported in order, cached by content."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.audit import cache
from harness.audit.audit import audit_folder
from harness.audit.folder import MAX_FILES, MAX_TOTAL, folders, read
from harness.audit.parallel import audit_all, audit_one
from harness.base.errors import UsageError
from tests.harness.fakes.command_line import pgolf

TRAINS = "loss.backward()\nopt.step()\n"


def tree(root: Path, *files: str, text: str = '{"val_bpb": 1.1}') -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(TRAINS if name.endswith(".py") else text)
    return root


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def socket_at(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize(
    "files",
    [
        ["a/submission.json"],
        ["a/train_gpt_v5.py"],
        ["a/train0.txt"],
        ["a/README.md"],
        ["a/readme.MD", "a/logs/train.log"],
        ["a/logs/seed_42.log"],
        ["a/logs/train0.txt", "a/requirements.txt"],
        ["a/README.md", "a/ttt_17/seed_0.log", "a/model.py"],
        ["a/submission_ternary.json", "a/submission_binary.json", "a/binary/train.py"],
        ["a/train_gpt.py", "a/old/submission.json"],
    ],
)
def test_a_record_is_found_by_any_of_what_records_hold(tmp_path: Path, files: list[str]) -> None:
    assert folders(tree(tmp_path, *files)) in ([tmp_path / "a"], [tmp_path])


def test_records_are_found_apart_from_each_other_and_from_their_shelves(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "README.md",
        "train_gpt.py",
        "records/README.md",
        "records/track_10min_16mb/README.md",
        "records/track_10min_16mb/2026-03-20 with spaces/train_gpt.py",
        "records/track_10min_16mb/b/README.md",
        "records/track_non_record_16mb/group/one/submission.json",
        "records/track_non_record_16mb/group/two/submission.json",
        "records/track_non_record_16mb/group/README.md",
        "records/track_non_record_16mb/.git/train.log",
    )
    assert [folder.relative_to(tmp_path / "records").as_posix() for folder in folders(tmp_path)] == [
        "track_10min_16mb/2026-03-20 with spaces",
        "track_10min_16mb/b",
        "track_non_record_16mb/group/one",
        "track_non_record_16mb/group/two",
    ]


def test_where_no_record_lies_the_error_says_what_one_holds(tmp_path: Path) -> None:
    tree(tmp_path, "src/main.rs", "requirements.txt")
    with pytest.raises(UsageError, match="no record folder"):
        folders(tmp_path)


@pytest.mark.parametrize(
    ("files", "outcome"),
    [
        (["train.log"], "unknown"),
        (["submission.json", "train_seed42.log"], "unknown"),
        (["README.md"], "question"),
        (["README.md", "submission.json", "train.log"], "fail"),
        (["README.md", "submission.json", "train_gpt.py.xz"], "question"),
        (["README.md", "submission.json", "weights.npz", "plot.png"], "fail"),
    ],
)
def test_a_folder_without_code_fails_only_where_it_was_meant_to_be_whole(
    tmp_path: Path, files: list[str], outcome: str
) -> None:
    found = [
        found
        for found in audit_folder(tree(tmp_path, *files))["findings"]
        if found["rule"] == "no-runnable-code"
    ]
    assert [each["outcome"] for each in found] == [outcome]


@pytest.mark.parametrize("name", ["train_gpt.py", "train_gpt.pyz", "src"])
@pytest.mark.parametrize("make", [link, os.mkfifo, socket_at])
def test_a_program_that_is_a_link_a_pipe_or_a_socket_is_asked_for_and_not_said_to_be_missing(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    folder = tree(tmp_path, "README.md", "submission.json", "train.log")
    make(folder / name)
    report = audit_folder(folder)
    (found,) = (each for each in report["findings"] if each["rule"] == "no-runnable-code")
    assert (found["outcome"], found["evidence"][0]["file"]) == ("question", name)
    assert report["verdict"] == "questions"


def test_of_many_links_no_more_are_reported_than_files_are_read(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 2):
        link(tmp_path / f"{number:04}.py")
    reasons = list(read(tmp_path).incomplete.values())
    assert (len(reasons), "beyond the first" in reasons[-1]) == (MAX_FILES + 1, True)


def test_syntax_of_another_python_is_unknown_with_the_reason(tmp_path: Path) -> None:
    tree(tmp_path, "README.md", "submission.json")
    (tmp_path / "train_gpt.py").write_text("def f[T](x: T) -> T: return x\nprint 'no Python at all'\n")
    report = audit_folder(tmp_path)
    (found,) = (each for each in report["findings"] if each["rule"] == "unread-code")
    assert (found["outcome"], report["verdict"]) == ("unknown", "nothing found")
    assert "no syntax of Python 3" in found["message"]


def test_links_pipes_and_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    tree(tmp_path / "a", "train_gpt.py", ".git/train.py")
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "a" / "README.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "train.log")
    assert list(read(tmp_path / "a").texts) == ["train_gpt.py"]


def test_a_folder_is_read_up_to_a_limit_of_bytes_and_of_depth(tmp_path: Path) -> None:
    for number in range(MAX_TOTAL // 3_000_000 + 2):
        with (tmp_path / f"{number:03}.log").open("wb") as file:
            file.truncate(3_000_000)
    held = read(tmp_path)
    assert sum(map(len, held.texts.values())) <= MAX_TOTAL
    assert any("beyond the first" in reason for reason in held.incomplete.values())
    deep = tmp_path / "deep"
    tree(deep, "README.md", "/".join(["d"] * 200) + "/train.py")
    assert folders(deep) == [deep]
    assert any("deep" in reason for reason in read(deep).incomplete.values())


# --- workers


def careless(folder: Path, kept: Path | None) -> tuple[dict[str, Any], bool]:
    """A worker's work that dies, hangs, fails or needs all memory, by the folder's name."""
    if folder.name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif folder.name == "hangs":
        time.sleep(1_000)
    elif folder.name == "fails":
        raise ZeroDivisionError("by zero")
    elif folder.name == "eats":
        bytearray(1 << 40)
    return {"folder": folder.as_posix(), "verdict": "nothing found", "findings": []}, False


@pytest.mark.slow
def test_a_worker_that_dies_hangs_fails_or_eats_costs_its_folder_alone() -> None:
    names = ["a", "dies", "b", "hangs", "fails", "eats", "c", "d"]
    reports = [
        each.report
        for each in audit_all(
            [Path(name) for name in names], workers=2, cache_dir=None, seconds=4.0, work=careless
        )
    ]
    assert [report["folder"] for report in reports] == names
    verdicts = {report["folder"]: report["verdict"] for report in reports}
    assert {name for name, verdict in verdicts.items() if verdict == "questions"} == {
        "dies",
        "hangs",
        "fails",
        "eats",
    }
    said = {report["folder"]: report["findings"][0]["message"] for report in reports if report["findings"]}
    assert "exit code -9" in said["dies"] and "more than 4 s" in said["hangs"]
    assert "ZeroDivisionError" in said["fails"] and "memory" in said["eats"]
    assert all(finding["outcome"] == "unknown" for report in reports for finding in report["findings"])


def test_stopping_early_leaves_no_worker_behind() -> None:
    going = audit_all(
        [Path(name) for name in ("a", "hangs", "hangs", "hangs")], workers=3, cache_dir=None, work=careless
    )
    next(going)
    going.close()
    import multiprocessing

    assert multiprocessing.active_children() == []


def test_reports_are_the_same_from_workers_from_the_cache_and_from_one_call(tmp_path: Path) -> None:
    tree(tmp_path / "r", "a/train_gpt.py", "a/README.md", "b/submission.json", "b/README.md", "c d/train.log")
    found = folders(tmp_path / "r")
    alone = [audit_folder(folder) for folder in found]
    first = list(audit_all(found, workers=2, cache_dir=tmp_path / "kept"))
    again = list(audit_all(found, workers=2, cache_dir=tmp_path / "kept"))
    assert [each.report for each in first] == [each.report for each in again] == alone
    assert [each.cached for each in first] == [False] * 3 and [each.cached for each in again] == [True] * 3


# --- the cache


def test_the_cache_asks_anew_for_changed_bytes_names_and_rules_and_for_damaged_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kept = tree(tmp_path / "a", "train_gpt.py", "README.md"), tmp_path / "kept"
    assert [audit_one(folder, kept)[1] for _ in range(2)] == [False, True]
    (folder / "README.md").write_text("y")
    assert [audit_one(folder, kept)[1] for _ in range(2)] == [False, True]
    (folder / "weights.xz").write_text("")
    assert [audit_one(folder, kept)[1] for _ in range(2)] == [False, True]
    other = folder.rename(tmp_path / "b")
    assert [audit_one(other, kept)[1] for _ in range(2)] == [False, True]
    monkeypatch.setattr(cache, "version", lambda: "another")
    assert [audit_one(other, kept)[1] for _ in range(2)] == [False, True]
    whole = audit_one(other, kept)[0]
    for damage in (b"", b"{", b"[]", b'{"key": "x", "report": {}}', b"\xff" * 99):
        for entry in kept.rglob("*.json"):
            entry.write_bytes(damage)
        assert audit_one(other, kept) == (whole, False)


def test_the_same_folder_elsewhere_is_reported_under_its_new_path(tmp_path: Path) -> None:
    first, second = (tree(tmp_path / place / "track" / "a", "train_gpt.py") for place in ("one", "two"))
    audit_one(first, tmp_path / "kept")
    assert audit_one(second, tmp_path / "kept") == (audit_folder(second), True)


def test_the_command_keeps_reports_where_it_is_told_and_nowhere_with_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home"))
    folder = tree(tmp_path / "r", *(f"{name}/train_gpt.py" for name in "abcdef"))
    done = pgolf("audit", folder, "--fresh", "--json")
    assert done.exit_code == 0 and not (tmp_path / "home").exists()
    for known in ("6 of 6 folders, 0 s", "6 known from before"):
        done = pgolf("audit", folder, "--cache", tmp_path / "kept", "--workers", 2, "--json")
        assert known.split(",")[0] in done.stderr
    assert [json.loads(line)["folder"][-1] for line in done.stdout.splitlines()] == list("abcdef")
    assert "6 known from before" in done.stderr and not (tmp_path / "home").exists()
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = pgolf("audit", folder, "--cache", blocked)
    assert isinstance(done.exception, cache.CacheWriteError)


def test_thousands_of_classes_beside_a_long_readme_are_judged_within_the_clock_of_a_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "README.md").write_text("alpha beta gamma\n" * 20_000)
    classes = "".join(f"class AlphaZeta{n}:\n  def f(self): return 1\n" for n in range(4_000))
    (tmp_path / "train_gpt.py").write_text(classes + "def main():\n  print('x')\nmain()\n")
    report = next(iter(audit_all([tmp_path], workers=1, cache_dir=None))).report
    assert "nothing-trains" in {finding["rule"] for finding in report["findings"]}
