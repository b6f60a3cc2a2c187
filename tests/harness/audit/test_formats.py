"""Reports in each format: escaped for their destination, short, and valid where the format is a standard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit import formats
from harness.audit.audit import audit_folder
from harness.audit.folder import MAX_FILE, MAX_FILES, read
from harness.audit.page import page
from harness.commands import audit
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.pages import Page

HOSTILE = "<script>alert(1)</script> 100%\n::error::x | `@team` [a](b), c: \x1b[31m"


def report(count: int = 1, text: str = HOSTILE) -> dict[str, Any]:
    finding = {
        "rule": "slot",
        "condition": "C1",
        "outcome": "fail",
        "message": text,
        "clears": "a mask",
        "evidence": [
            {"file": "a, b:c.py", "line": 3, "text": text},
            {"file": "x.py!1.py", "line": 9, "text": "y"},
        ],
    }
    return {
        "folder": "records/with space",
        "headline_bpb": 1.1,
        "headline_kind": "claimed",
        "seeds": [],
        "verdict": "violations found",
        "findings": [finding] * count,
    }


def test_an_annotation_is_one_line_that_no_text_can_leave() -> None:
    (line,) = formats.github([report()]).split("\n")
    head, _, data = line.removeprefix("::").partition("::")
    assert head == "error file=records/with space/a%2C b%3Ac.py,line=3,title=slot"
    assert "100%25%0A" in data


def test_a_comment_stays_within_a_screen_says_what_it_leaves_out_and_calls_nobody() -> None:
    text = formats.markdown([report(60)])
    assert len(text.splitlines()) <= 32
    assert "more: " in text
    assert "<script>" not in text.replace("\\<", "")
    assert "@team" not in text


def test_sarif_has_the_fields_that_the_standard_requires_and_places_packed_code_at_its_wrapper() -> None:
    made = json.loads(json.dumps(formats.sarif([report()], "1.0")))
    assert made["version"] == "2.1.0"
    (run,) = made["runs"]
    assert run["tool"]["driver"]["name"]
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["level"] in ("none", "note", "warning", "error")
    assert result["message"]["text"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "records/with%20space/a%2C%20b%3Ac.py"
    assert place["region"]["startLine"] == 3
    assert "region" not in result["relatedLocations"][0]["physicalLocation"]


def test_on_a_narrow_screen_the_table_of_the_page_stays_in_its_own_box() -> None:
    read_page = Page(page([report()]))
    assert (read_page.tags.count("table"), read_page.wide) == (1, [])


def test_the_page_shows_what_was_written_and_obeys_none_of_it() -> None:
    text = page([report()])
    assert text.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in text
    assert "http" not in text.split("<body>")[0].replace("http-equiv", "")


def test_the_command_exits_by_the_verdict_and_prints_a_line_a_folder(tmp_path: Path) -> None:
    for name, source in (("clean", "loss.backward()\nopt.step()\n"), ("empty", "print('ready')\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train_gpt.py").write_text(source)
        (tmp_path / name / "submission.json").write_text('{"val_bpb": 1.1}')
    both = pgolf("audit", tmp_path, "--json", "--fresh")
    assert [json.loads(line)["verdict"] for line in both.stdout.splitlines()] == [
        "nothing found",
        "violations found",
    ]
    assert both.exit_code == 1
    assert pgolf("audit", tmp_path / "clean", "--fresh").exit_code == 0


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ('"1.25"', 1.25),
        ("1", 1.0),
        ('"nan"', None),
        ('"inf"', None),
        ("true", None),
        ("null", None),
        ("[1.1]", None),
        ("1" + "0" * 400, None),
    ],
)
def test_a_claimed_score_is_a_finite_number_or_nothing(
    tmp_path: Path, stated: str, read: float | None
) -> None:
    (tmp_path / "submission.json").write_text(f'{{"val_bpb": {stated}}}')
    assert audit_folder(tmp_path)["headline_bpb"] == read


def test_of_a_huge_file_no_more_is_read_than_the_limit_and_the_report_says_so(tmp_path: Path) -> None:
    with (tmp_path / "train.log").open("wb") as file:
        file.truncate(1 << 33)
    (tmp_path / "train_gpt.py").write_text("loss.backward()\nopt.step()\n")
    assert len(read(tmp_path).texts["train.log"]) == MAX_FILE
    (found,) = (one for one in audit_folder(tmp_path)["findings"] if one["rule"] == "unread-code")
    assert (found["rule"], found["outcome"], found["evidence"][0]["file"]) == (
        "unread-code",
        "unknown",
        "train.log",
    )


def test_of_many_files_the_first_are_read_and_the_report_says_where_it_stopped(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 2):
        (tmp_path / f"{number:04}.md").write_text("x")
    held = read(tmp_path)
    assert len(held.texts) == MAX_FILES
    assert list(held.incomplete) == [f"{MAX_FILES:04}.md"]


def test_a_score_is_taken_from_the_first_of_several_files_that_states_one(tmp_path: Path) -> None:
    (tmp_path / "submission.json").write_text('{"name": "x"}')
    (tmp_path / "submission_b.json").write_text('{"mean_val_bpb": 1.2}')
    assert audit_folder(tmp_path)["headline_bpb"] == 1.2


def test_the_page_names_the_path_that_all_folders_share_once() -> None:
    text = page(
        [report() | {"folder": f"/x/records/track/{name}"} for name in ("2026-03-20_a", "2026-03-20_b")]
    )
    assert text.count("/x/records/track/") == 1
    assert 'data-key="2026-03-20_b"' in text
    assert 'data-key="alone"' in page([report() | {"folder": "alone"}])
    mixed = page([report() | {"folder": folder} for folder in ("/x/a", "b/c", "d")])
    assert all(f'data-key="{folder}"' in mixed for folder in ("/x/a", "b/c", "d"))


def test_what_a_folder_does_not_state_is_one_line_of_text_and_no_annotation(tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_text("print('x')\n")
    (tmp_path / "README.md").write_text("# x\n")
    report = audit_folder(tmp_path)
    silent = [
        found["rule"]
        for found in report["findings"]
        if found["outcome"] == "unknown" and not found["evidence"]
    ]
    assert len(silent) > 3
    text = audit._text(report).splitlines()
    assert len([line for line in text if "unknown" in line and "the folder does not say enough" in line]) == 1
    assert all(rule in audit._text(report) for rule in silent)
    assert not [
        line for line in formats.github([report]).splitlines() if "::notice" in line and silent[0] in line
    ]
