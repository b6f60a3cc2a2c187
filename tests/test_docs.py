"""The documents that repeat the code say what the code says."""

from __future__ import annotations

import json
import re

import pytest

from harness.audit import record
from harness.base.paths import ROOT
from harness.edition import PROFILES
from harness.run import submission
from harness.verdict.rules import RULES


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_published_schema_is_the_one_that_manifests_are_read_by() -> None:
    assert json.loads(document("manifest.schema.json")) == submission.schema()


def test_the_published_schema_of_a_record_is_the_one_that_records_are_read_into() -> None:
    assert json.loads(document("record.schema.json")) == record.schema()


def test_every_key_of_a_manifest_has_its_line() -> None:
    keys = re.findall(r"^\| `(\w+)` \|", document("manifest.md"), re.MULTILINE)
    assert sorted(keys) == sorted(submission.schema()["properties"])


def test_every_rule_has_its_line_and_no_other_has() -> None:
    rows = re.findall(
        r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|",
        document("rules.md").split("| rule | condition |")[1],
        re.MULTILINE,
    )
    assert sorted(name.strip("`") for row in rows for name in row.split(", ")) == sorted(
        rule.id for rule in RULES
    )


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("train", "train_seconds"),
        ("pack", "pack_seconds"),
        ("score", "score_seconds"),
        ("GPUs", "gpus"),
        ("processes", "pids"),
    ],
)
def test_the_limits_are_those_of_the_edition(line: str, field: str) -> None:
    row = next(
        row
        for row in document("rules.md").splitlines()
        if row.startswith(f"| {line} |") and row.count("|") == 6
    )
    shown = [float(cell.strip().removesuffix(" s").replace(",", "")) for cell in row.split("|")[3:6]]
    assert shown == [getattr(PROFILES[profile], field) for profile in ("record", "solo", "pocket")]


FOREIGN = {"train_gpt.py"}
"""Files of the challenge and of records, which documents name too."""


def tracked() -> list[str]:
    """Every file of the checkout, by its path from the root."""
    skipped = {".git", ".venv", "runs", "build", "__pycache__"}
    return [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
    ]


def readable(names: list[str]) -> list[str]:
    """Documents, and sources but for tests and for the audit, which speak of files of others."""
    return [
        name
        for name in names
        if name.endswith(".md")
        or name == "Justfile"
        or (
            (name.startswith(("harness/", "golf/", "images/")) and name.endswith(".py"))
            and not name.startswith("harness/audit/")
        )
    ]


@pytest.mark.slow
def test_every_source_that_a_document_or_a_docstring_names_is_there() -> None:
    names = tracked()
    missing = {
        f"{document} names {named}"
        for document in readable(names)
        for named in re.findall(r"(?<![\w./-])((?:[a-z_]+/)*[a-z_0-9]+\.py)\b", (ROOT / document).read_text())
        if named not in FOREIGN and not any(f"/{name}".endswith(f"/{named}") for name in names)
    }
    assert missing == set()


def test_every_module_that_a_document_or_a_docstring_runs_is_there() -> None:
    names = set(tracked())
    found = {
        (document, module.replace(".", "/"))
        for document in readable(sorted(names))
        for module in re.findall(r"-m ((?:harness|golf|tests)[\w.]*\w)", (ROOT / document).read_text())
    }
    assert len(found) > 5
    assert [pair for pair in found if not {f"{pair[1]}.py", f"{pair[1]}/__main__.py"} & names] == []
