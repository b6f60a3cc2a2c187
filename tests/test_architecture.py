"""What may import what, what an import costs, and how long a file may grow."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from harness import cli
from harness.base.paths import ROOT
from harness.run import bundle

MAX_LINES = 400
ORDER = {
    "harness": (
        "edition",
        "base",
        "data",
        "scoring",
        "protocol",
        "runners",
        "run",
        "verdict",
        "audit",
        "commands",
        "cli",
    ),
    "golf": (
        "recipe",
        "runtime",
        "storage",
        "model",
        "optim",
        "quant",
        "training",
        "inference",
        "stages",
        "bench",
        "__main__",
    ),
}
"""The rooms of each package from the lowest: a module imports only its own room and rooms before it."""
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


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a source names, inside functions too; for `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def edges(package: str) -> dict[str, set[str]]:
    """Module -> the modules of the same package that it imports; an import of a name counts for its
    module.
    """
    modules = {module_of(path): path for path in sources(package)}
    return {
        module: {
            name
            for name in imports(path) & modules.keys()
            if name != module
            and not any(other.startswith(f"{name}.") for other in imports(path) & modules.keys())
        }
        for module, path in modules.items()
    }


def test_the_tests_lie_in_the_rooms_of_what_they_test_and_their_fakes_in_one_place() -> None:
    strays = []
    for package in ("harness", "golf"):
        for path in (ROOT / "tests" / package).rglob("*.py"):
            inside = path.relative_to(ROOT / "tests" / package)
            room = ROOT / package / inside.parent
            named = path.name.startswith("test_") or path.name in (
                "__init__.py",
                "conftest.py",
                "confusion.py",
            )
            if inside.parts[0] != "fakes" and not (room.is_dir() and named):
                strays.append(str(inside))
    assert strays == []


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


@pytest.mark.parametrize("package", ORDER)
def test_every_module_lies_in_a_room_and_imports_only_its_own_room_and_rooms_below(package: str) -> None:
    rank = {f"{package}.{room}": index for index, room in enumerate(ORDER[package])}
    assert {path.with_suffix("").name for path in (ROOT / package).iterdir() if path.name[:2] != "__"} <= {
        *ORDER[package]
    }
    upward = [
        f"{module} imports {imported}"
        for module, names in edges(package).items()
        for imported in names
        if module != package
        and rank[".".join(module.split(".")[:2])] < rank[".".join(imported.split(".")[:2])]
    ]
    assert upward == []


@pytest.mark.parametrize("package", ORDER)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    graph = edges(package)
    assert sum(map(len, graph.values())) > 50
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


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


@pytest.mark.parametrize(
    "statement", ["import harness", "import harness.cli", "import harness.commands.options"]
)
def test_importing_the_judge_and_its_command_line_costs_nothing(tmp_path: Path, statement: str) -> None:
    assert not loaded(statement, tmp_path) & HEAVY


def test_every_command_has_its_file_and_its_line_of_help() -> None:
    files = {path.stem for path in (ROOT / "harness/commands").glob("*.py")} - {"__init__", "options"}
    assert files == set(cli.COMMANDS)
    for name in cli.COMMANDS:
        command = typer.main.get_command(importlib.import_module(f"harness.commands.{name}").app)
        assert command.name == name or name in ("data", "image"), "groups have no name of their own"
        assert command.help, name


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


@pytest.mark.slow
def test_no_module_of_the_judge_loads_torch_or_the_contestant_by_any_way(tmp_path: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("harness")
    )
    assert not loaded(f"import {', '.join(modules)}", tmp_path) & {"torch", "golf"}


@pytest.mark.slow
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


@pytest.mark.slow
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
