"""The documents that repeat the code say what the code says."""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from harness import cli
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


FOREIGN_FILES = {"train_gpt.py"}
"""Files of the challenge and of records, which documents name too."""


@functools.cache
def tracked() -> list[str]:
    """Every file of the checkout, by its path from the root, but for caches and results."""
    skipped = {"runs", "build", "__pycache__"}
    found = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in skipped and (name[0] != "." or name == ".ci")]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in names]
    return found


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
        if named not in FOREIGN_FILES and not any(f"/{name}".endswith(f"/{named}") for name in names)
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


# --- the command line

BENCHMARKS = {
    "bench": "golf/bench/__main__.py",
    "claims": "golf/bench/claims.py",
    "gpu": "golf/bench/gpu/__main__.py",
    "gpu-carry": "golf/bench/gpu/carry.py",
    "windows": "golf/bench/windows.py",
}
"""Recipes of the Justfile that are no command of pgolf -> the source that reads their options."""
FOREIGN_OPTIONS = {"--cov", "--diff-filter", "--include", "--mirror", "--name-only", "--variant"}
"""Options of pytest, git and debootstrap, which documents name too."""


def commands() -> dict[tuple[str, ...], Any]:
    """The words of each command, such as data prepare docs -> the command that they run."""
    found: dict[tuple[str, ...], Any] = {}

    def collect(words: tuple[str, ...], command: Any) -> None:
        inner = getattr(command, "commands", {})
        if not inner:
            found[words] = command
        for name in inner:
            collect((*words, name), inner[name])

    for name in cli.COMMANDS:
        module = importlib.import_module(f"harness.commands.{name}")
        collect((name,), typer.main.get_command(module.app))
    return found


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def literals(source: Path) -> set[str]:
    """Every option that a source names in quotes."""
    return set(re.findall(r'"(--[a-z-]+)"', source.read_text(encoding="utf-8")))


def recipes() -> set[str]:
    return set(re.findall(r"^(\w[\w-]*)[^:=\n]*:(?!=)", (ROOT / "Justfile").read_text(), re.MULTILINE))


def documented_calls() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every call of `just` or `pgolf` in the documents: (document, words after the program's name)."""
    for name in tracked():
        if name.endswith(".md"):
            text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
            blocks = re.findall(r"^    (?:\S.*&& )?((?:just|\S*pgolf) .*)$", text, re.MULTILINE)
            for call in re.findall(r"`([^`\n]+)`", text) + blocks:
                program, *words = call.split("#")[0].rstrip(".:, ").split() or [""]
                if program.split("/")[-1] in ("just", "pgolf") and words:
                    yield name, tuple(words)


def test_every_command_and_option_that_a_document_names_is_there() -> None:
    known, calls = commands(), list(documented_calls())
    groups = {path[:length] for path in known for length in range(1, len(path))}
    wrong = []
    for document, words in calls:
        path = next((words[:n] for n in (3, 2, 1) if words[:n] in known), None)
        if path:
            allowed = options_of(known[path])
        elif words[0] in BENCHMARKS:
            allowed = literals(ROOT / BENCHMARKS[words[0]])
        elif words in groups or (words[0] in recipes() and words[:1] not in groups):
            allowed = FOREIGN_OPTIONS  # of pytest
        else:
            wrong.append(f"{document}: no command {' '.join(words[:2])}")
            continue
        named = {word.split("=")[0] for word in words if re.match(r"--\w", word)}
        wrong += [f"{document}: {words[0]} has no {option}" for option in named - allowed - {"--help"}]
    assert len(calls) > 60
    assert sorted(wrong) == []


def test_every_option_that_a_document_names_alone_belongs_to_some_command() -> None:
    known = set().union(*map(options_of, commands().values()), FOREIGN_OPTIONS)
    for package in ("harness", "golf", "images"):
        known |= set().union(*map(literals, (ROOT / package).rglob("*.py")))
    option = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b")
    documents = [name for name in tracked() if name.endswith(".md")]
    named = {(name, found) for name in documents for found in option.findall((ROOT / name).read_text())}
    assert len(named) > 30
    assert sorted(f"{name}: {found}" for name, found in named if found not in known) == []


def test_every_command_is_in_some_document() -> None:
    called = {words[:n] for _, words in documented_calls() for n in (1, 2, 3)}
    assert sorted(commands().keys() - called) == []


def test_every_recipe_for_people_is_in_some_document() -> None:
    called = {words[0] for _, words in documented_calls()}
    assert sorted(recipes() - called - {"default", "_setup"}) == []
