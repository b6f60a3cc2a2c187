"""What may import what, what an import costs, and how large a file may grow: held by tests, since habits wear
off."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.paths import ROOT
from harness.run import bundle

MAX_LINES = 400
FAMILIES = (
    ("model",),
    ("optim",),
    ("quant",),
    ("storage/codec",),
    ("storage/entropy",),
    ("inference/windows", "inference/predict"),
    ("inference/adapt",),
)
"""Parts of the contestant that do not know each other; train, pack, score and the entry point join them."""
RUNS_A_SCRIPT = "golf/bench/script.py"
"""Executes the challenge's own script, whose hash it has checked, and is no part of what is submitted."""


def sources(package: str) -> list[Path]:
    """The sources of a folder, or the one of a module."""
    return sorted((ROOT / package).rglob("*.py")) or [ROOT / f"{package}.py"]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def imports(path: Path) -> set[str]:
    """Every module that a source names, inside functions too; for `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def offenders(package: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in sorted(imports(path))
        if name.split(".")[0] in forbidden
    ]


def loaded(statement: str, tmp_path: Path) -> set[str]:
    """Modules in a fresh interpreter after `statement`, which nothing else has warmed up."""
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_judge_imports_neither_torch_nor_the_contestant() -> None:
    assert len(sources("harness")) > 30
    assert offenders("harness", {"torch", "golf", "triton"}) == []


def test_the_contestant_imports_nothing_of_the_judge_nor_of_the_tests() -> None:
    assert len(sources("golf")) > 10
    assert offenders("golf", {"harness", "tests"}) == []


def test_neither_package_imports_tests_or_a_tool_for_tests() -> None:
    assert offenders("harness", {"tests", "pytest", "hypothesis"}) == []
    assert offenders("golf", {"pytest", "hypothesis"}) == []


def test_the_families_of_the_contestant_do_not_know_each_other() -> None:
    for family in FAMILIES:
        others = {f"golf/{part}".replace("/", ".") for other in FAMILIES if other != family for part in other}
        for path in (path for part in family for path in sources(f"golf/{part}")):
            known = [
                name
                for name in imports(path)
                if any(name == other or name.startswith(f"{other}.") for other in others)
            ]
            assert not known, f"{path.relative_to(ROOT)} knows {known}"


HEAVY = {"torch", "scipy", "docker", "sentencepiece", "huggingface_hub", "numpy", "pydantic", "jinja2"}


def test_what_is_submitted_holds_the_stages_and_no_benchmark() -> None:
    modules = bundle.build(ROOT / "golf").modules
    assert {
        "golf/stages/train.py",
        "golf/stages/pack.py",
        "golf/stages/score.py",
        "golf/stages/describe.py",
    } <= set(modules)
    assert not [name for name in modules if name.startswith("golf/bench")]


def test_importing_the_judge_costs_nothing(tmp_path: Path) -> None:
    assert not loaded("import harness", tmp_path) & HEAVY


@pytest.mark.parametrize(
    "statement",
    ["import harness.cli", "import harness.verdict.decide, harness.verdict.report, harness.run.submission"],
)
def test_the_command_line_loads_no_torch_no_scipy_and_no_engine_until_they_are_needed(
    tmp_path: Path, statement: str
) -> None:
    assert not loaded(statement, tmp_path) & {
        "torch",
        "scipy",
        "docker",
        "sentencepiece",
        "huggingface_hub",
        "golf",
    }


def test_no_module_of_the_judge_loads_torch_or_the_contestant_by_any_way(tmp_path: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("harness")
    )
    assert not loaded(f"import {', '.join(modules)}", tmp_path) & {"torch", "golf"}


def test_importing_writes_nothing_and_says_nothing(tmp_path: Path) -> None:
    code = "import harness.cli, harness.run.seeds, harness.run.preflight, harness.runners.docker"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["harness", "golf", "tests", "images"])
def test_no_file_grows_beyond_what_one_idea_needs(package: str) -> None:
    counts = {str(path.relative_to(ROOT)): len(text_of(path).splitlines()) for path in sources(package)}
    assert counts
    assert {name: count for name, count in counts.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize("package", ["harness", "golf", "tests"])
def test_every_module_says_what_it_is(package: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(package)
        if text_of(path).strip() and not ast.get_docstring(ast.parse(text_of(path)))
    ]
    assert silent == []


def test_nothing_in_either_package_unpickles() -> None:
    """Whatever a contestant wrote is read by our own parsers: no pickle, no marshal, no shelve, no eval."""
    for package in ("harness", "golf"):
        assert (
            offenders(package, {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"})
            == []
        )
        for path in sources(package):
            for node in ast.walk(ast.parse(text_of(path))):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", "")
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    lawful = name == "exec" and str(path.relative_to(ROOT)) == RUNS_A_SCRIPT
                    assert lawful or name not in ("eval", "exec", "__import__"), f"{place}: {name}"
                    allowed = {
                        keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords
                    }
                    assert allowed.get("allow_pickle") is not True, f"{place}: allow_pickle"
