"""`pgolf explain`: every condition, rule and violation is described, listed, and found by its id."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness.audit import cache, code, numbers, rulebook
from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.edition import SIGNIFICANCE
from harness.verdict.condition_info import BOUND, CONDITIONS, ConditionInfo
from harness.verdict.rule_info import RuleInfo
from harness.verdict.rules import RULES
from harness.verdict.violation_info import VIOLATIONS, ViolationInfo
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.verdicts import assembled, broken, evidence, outcome, record

AUDIT = ROOT / "harness" / "audit"
EVERY = rulebook.entries()
RULE_INFOS = [("run", rule.info) for rule in RULES] + [("audit", info) for info in rulebook.AUDIT_RULES]


def printed(*arguments: str) -> str:
    done = pgolf("explain", *arguments)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize(("kind", "info"), RULE_INFOS, ids=[f"{kind}-{info.id}" for kind, info in RULE_INFOS])
def test_every_rule_states_all_that_a_reader_needs_and_explain_prints_it(kind: str, info: RuleInfo) -> None:
    assert info.condition in (None, "C1", "C2", "C3", "C4")
    text = printed(info.id)
    for field in (info.id, info.title, info.source, info.checks, info.example, info.not_covered):
        assert field
        assert field in text


@pytest.mark.parametrize("info", [*CONDITIONS, BOUND], ids=lambda info: info.id)
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_every_condition_is_explained_in_any_case(info: ConditionInfo, case: Callable[[str], str]) -> None:
    text = printed(case(info.id))
    for field in (info.title, info.source, info.says, info.messages, info.witness, info.example):
        assert field
        assert field in text


@pytest.mark.parametrize(
    ("condition", "findings"),
    [
        ("C1", "causal, border-rows"),
        ("C2", "normalised"),
        ("C3", "score-first"),
        ("C4", "single-pass"),
        ("G", "causal, score-first, single-pass"),
    ],
)
def test_a_condition_names_the_findings_that_show_it(condition: str, findings: str) -> None:
    assert f"  findings    {findings}\n" in printed(condition)


def test_the_bound_tells_how_many_probes_each_profile_asks_for() -> None:
    assert "4,096 probes in pocket, 8,192 probes in solo, 32,768 probes in record" in printed("g")


def test_ids_are_unique_within_a_kind_and_one_of_several_kinds_prints_them_all() -> None:
    assert len({(entry.kind, entry.id) for entry in EVERY}) == len(EVERY)
    text = printed("train-clock")
    for kind in ("run", "audit", "violation"):
        assert f"  is          {rulebook.NAMES[kind]}\n" in text


def test_without_an_id_everything_has_one_line_under_the_heading_of_its_kind() -> None:
    groups = printed().strip().split("\n\n")
    assert [group.splitlines()[0] for group in groups] == list(rulebook.HEADINGS.values())
    for group, kind in zip(groups, rulebook.HEADINGS, strict=True):
        lines, listed = group.splitlines()[1:], [entry for entry in EVERY if entry.kind == kind]
        assert [line.split()[0] for line in lines] == [entry.id for entry in listed]
        for line, entry in zip(lines, listed, strict=True):
            assert line.endswith(entry.title)
            assert not entry.condition or line.split()[1] == entry.condition


def test_the_list_is_printed_as_json_too() -> None:
    rows = json.loads(printed("--json"))
    assert [row["id"] for row in rows if row["kind"] == "run"] == [rule.id for rule in RULES]
    assert len(rows) == len(EVERY)
    keys = {"kind", "id", "title", "condition", "source", "checks", "example", "not_covered"}
    assert all(row.keys() == keys for row in rows if row["kind"] in ("run", "audit"))
    assert [row["kind"] for row in json.loads(printed("train-clock", "--json"))] == [
        "run",
        "audit",
        "violation",
    ]


def test_an_unknown_id_is_met_with_its_nearest_names() -> None:
    with pytest.raises(UsageError, match="slto") as caught:
        rulebook.find("slto")
    assert "slot" in caught.value.hint


def ids_of_violations() -> set[str]:
    """The ids that the code raises violations with; a clock's id is handed over as an argument."""
    found: set[str] = set()
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if not isinstance(node, ast.Call) or name not in ("Violation", "_deadline_as_violation"):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.add(first.value)
            else:
                assert path.name == "conversation.py", f"{path}: an id that this test cannot read"
                assert ast.unparse(first) == "rule", f"{path}: an id that this test cannot read"
    return found


@pytest.mark.slow
def test_every_id_that_run_json_can_carry_is_explained_and_no_other() -> None:
    assert ids_of_violations() == {info.id for info in VIOLATIONS}


@pytest.mark.parametrize("info", VIOLATIONS, ids=lambda info: info.id)
def test_a_violation_is_mapped_to_the_finding_that_it_becomes(info: ViolationInfo) -> None:
    facts = evidence(broken(1337, "score", "failed", info.id, "what was wrong"))
    assert [rule.id for rule in RULES if outcome(rule.id, facts) == "fail"] == [info.finding]
    assert f"  finding     {info.finding}\n" in printed(info.id)


def test_every_id_of_a_verdict_can_be_asked_for() -> None:
    known = {entry.id for entry in EVERY}
    verdict = assembled(evidence(record(1337), record(42), record(2024)))
    for found in verdict["findings"]:
        assert {found["rule"], found["condition"] or "C1"} <= known
    assert {test.name for test in SIGNIFICANCE} <= known


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
