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
