"""`pgolf explain`: every rule of a run and of the audit is described, listed, and found by its id."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import ModuleType

import pytest

from harness.audit import cache, code, numbers, rulebook
from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.verdict.rules import RULES
from tests.harness.fakes.command_line import pgolf

AUDIT = ROOT / "harness" / "audit"
EVERY = [(kind, info) for kind, infos in rulebook.rules().items() for info in infos]


def printed(*arguments: str) -> str:
    done = pgolf("explain", *arguments)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize(("kind", "info"), EVERY, ids=[f"{kind}-{info.id}" for kind, info in EVERY])
def test_every_rule_states_all_that_a_reader_needs_and_explain_prints_it(
    kind: str, info: rulebook.RuleInfo
) -> None:
    assert info.condition in (None, "C1", "C2", "C3", "C4")
    text = printed(info.id)
    for field in (info.id, info.title, info.source, info.checks, info.example, info.not_covered):
        assert field
        assert field in text


def test_ids_are_unique_within_a_kind_and_one_that_both_kinds_have_prints_both() -> None:
    for infos in rulebook.rules().values():
        assert len({info.id for info in infos}) == len(infos)
    text = printed("train-clock")
    assert "rule of     a run" in text
    assert "rule of     the audit" in text


def test_without_an_id_every_rule_has_one_line_in_its_group() -> None:
    groups = printed().strip().split("\n\n")
    assert [group.splitlines()[0].split(" (")[0] for group in groups] == [
        "rules of a run",
        "rules of the audit",
    ]
    for group, infos in zip(groups, rulebook.rules().values(), strict=True):
        lines = group.splitlines()[1:]
        assert [line.split()[0] for line in lines] == [info.id for info in infos]
        for line, info in zip(lines, infos, strict=True):
            assert line.endswith(info.title)
            assert not info.condition or line.split()[1] == info.condition


def test_the_list_is_printed_as_json_too() -> None:
    rows = json.loads(printed("--json"))
    assert [row["id"] for row in rows if row["kind"] == "run"] == [rule.id for rule in RULES]
    assert len(rows) == len(EVERY)
    keys = {"kind", "id", "title", "condition", "source", "checks", "example", "not_covered"}
    assert all(row.keys() == keys for row in rows)
    assert [row["kind"] for row in json.loads(printed("train-clock", "--json"))] == ["run", "audit"]


def test_an_unknown_rule_is_met_with_its_nearest_names() -> None:
    with pytest.raises(UsageError, match="slto") as caught:
        rulebook.find("slto")
    assert "slot" in caught.value.hint


def test_every_rule_that_the_audit_describes_is_listed_and_every_finding_is_of_one() -> None:
    described: set[str] = set()
    for path in AUDIT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name == "RuleInfo":
                described |= {ast.literal_eval(each.value) for each in node.keywords if each.arg == "id"}
            assert name != "Finding" or path.name == "findings.py", f"{path}: Finding.of takes a RuleInfo"
    assert described == {info.id for info in rulebook.AUDIT_RULES}


@pytest.mark.parametrize("room", [code, numbers])
def test_every_file_with_checks_is_run(room: ModuleType) -> None:
    assert room.__file__ is not None
    files = [path for path in Path(room.__file__).parent.glob("*.py") if path.name != "__init__.py"]
    with_checks = {path.stem for path in files if "\nCHECKS = (" in path.read_text(encoding="utf-8")}
    assert with_checks == {file.__name__.rsplit(".", 1)[-1] for file in room.FILES}


def test_a_cached_report_depends_on_every_module_that_the_audit_imports_from_outside() -> None:
    paths = [AUDIT / f"{name}.py" for name in ("audit", "finding", "folder", "unwrap")]
    paths += [path for room in ("code", "numbers", "record") for path in (AUDIT / room).rglob("*.py")]
    outside: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("harness.") and not module.startswith("harness.audit"):
                outside.add(module.removeprefix("harness.").replace(".", "/") + ".py")
    assert outside == set(cache.OUTSIDE)
    assert all((ROOT / "harness" / name).is_file() for name in outside)
