"""The Justfile: one line a recipe, each with its help, and a set-up that a person can rely on."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.fakes.processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("Justfile", "pyproject.toml", "requirements.lock", "torch.lock", "torch-cuda.lock")
AT_THE_ROOT = ("test", "test-quick", "lint")
"""Recipes that look at the whole checkout; paths given to others are relative to where they are called."""
RECIPE = re.compile(
    r"^(?P<help># [^\n]+)\n(?P<attributes>(?:\[[a-z-]+\]\n)*)(?P<name>[\w-]+)(?P<arguments>[^:=\n]*):"
    r"(?P<needs>[^=\n]*)\n(?P<body>(?:    [^\n]*\n)+)",
    re.MULTILINE,
)


def recipes() -> dict[str, re.Match[str]]:
    return {
        match["name"]: match for match in RECIPE.finditer((ROOT / "Justfile").read_text(encoding="utf-8"))
    }


@functools.cache
def program() -> str:
    """The real `just`: what is on PATH may be a version manager's script, which needs much else on PATH."""
    found = shutil.which("just")
    if found is None:
        pytest.skip("just is not installed (pip install rust-just)")
    ask = "where:\n    @echo {{ just_executable() }}\n"
    return subprocess.run(
        [found, "--justfile", "/dev/stdin", "--working-directory", "/", "where"],
        input=ask,
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()


def just(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": path or os.environ["PATH"]},
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Only what the set-up reads; the fake .venv of a test goes beside it."""
    for name in NEEDED:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def finished(checkout: Path, script: str) -> None:
    """A .venv whose stamp is right and whose pgolf is a shell script."""
    binary = checkout / ".venv" / "bin" / "pgolf"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    binary.chmod(0o755)
    key = just(checkout, "--evaluate", "lock_key").stdout
    (checkout / ".venv" / "pgolf-stamp").write_text(key, encoding="utf-8")


def test_every_public_recipe_has_help_sets_up_and_is_one_line() -> None:
    """All but `gpu` set up first: that one runs where nothing can be installed, with whatever torch is
    there.
    """
    found = recipes()
    justfile = (ROOT / "Justfile").read_text(encoding="utf-8")
    names = re.findall(r"^([\w-]+)[^:=\n]*:(?!=)", justfile, re.MULTILINE)
    public = [name for name in names if name not in ("default", "_setup")]
    assert {"run", "test", "test-quick", "lint"} <= set(public)
    for name in public:
        recipe = found[name]
        assert recipe["body"].count("\n") == 1, f"{name} is longer than a line"
        assert ("_setup" in recipe["needs"]) == (name != "gpu")
        assert ("[no-cd]" in recipe["attributes"]) == (name not in AT_THE_ROOT), name
        door = (
            r'python=\{\{ bin \}\}/python; .* "\$python" -m golf\.bench\.gpu'
            if name == "gpu"
            else r"(\{\{ bin \}\}/(pgolf|python -P -m golf\.bench)|\.venv/bin/(python -m pytest|ruff))"
        )
        assert re.match(rf"    @{door}(?!\w)", recipe["body"]), recipe["body"]


def test_ci_runs_lint_and_both_commands_of_the_readme_and_ends_with_the_tests() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^    (pip install rust-just && just .*)$", readme, re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lint, run, tests = re.findall(r"^part warm .*?(?:\\\n.*)?$", ci, re.MULTILINE)
    assert lint.endswith(" just lint")
    assert f" {first.split(' && ')[1]} " in run
    assert tests.endswith(" all_tests")
    assert ci.endswith(f"{tests}\n")
    assert f"\nall_tests() {{\n    {second}\n}}\n" in ci


def test_a_finished_setup_does_nothing_and_says_nothing(checkout: Path) -> None:
    finished(checkout, "exit 0")
    stamp = checkout / ".venv" / "pgolf-stamp"
    before = stamp.stat().st_mtime_ns
    done = just(checkout, "_setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before, "the stamp is removed before anything is installed"


def test_arguments_exit_code_and_stdout_are_those_of_pgolf(checkout: Path) -> None:
    finished(checkout, """printf '<%s>' "$@"; exit 4""")
    done = just(checkout, "run", "a folder/with spaces", "--json", "$HOME")
    assert (done.returncode, done.stdout, done.stderr) == (
        4,
        "<run><a folder/with spaces><--json><$HOME>",
        "",
    )


def test_a_path_is_relative_to_where_just_is_called(checkout: Path) -> None:
    """Also where the checkout's own path has a space."""
    checkout = Path(shutil.copytree(checkout, checkout / "a checkout"))
    finished(checkout, """printf '<%s>' "$PWD" "$@" """)
    (checkout / "submissions").mkdir()
    done = just(checkout / "submissions", "run", "hadamard-ve128")
    assert (done.stdout, done.stderr) == (f"<{checkout}/submissions><run><hadamard-ve128>", "")


@pytest.mark.parametrize("place", [".", "submissions"])
def test_just_alone_lists_the_recipes_and_then_the_submissions(checkout: Path, place: str) -> None:
    for name in ("hadamard-ve128", "naive-baseline", "no-submission"):
        (checkout / "submissions" / name).mkdir(parents=True)
        if name != "no-submission":
            (checkout / "submissions" / name / "manifest.yaml").touch()
    lines = just(checkout / place).stdout.splitlines()
    assert lines[0] == "Available recipes:"
    assert any(line.startswith("    run ") for line in lines)
    assert lines[-4:] == [
        "",
        f"Submissions in {checkout}:",
        "    submissions/hadamard-ve128",
        "    submissions/naive-baseline",
    ]
    assert not (checkout / ".venv").exists(), "nothing is set up for a list"


@pytest.mark.parametrize("name", [name for name in NEEDED if name != "Justfile"])
def test_a_changed_lock_makes_the_setup_run_again(checkout: Path, name: str) -> None:
    before = just(checkout, "--evaluate", "lock_key").stdout
    with (checkout / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert just(checkout, "--evaluate", "lock_key").stdout != before


def tools_without_python(folder: Path) -> str:
    """A PATH with what the set-up's shell needs and no Python."""
    folder.mkdir()
    for name in ("bash", "sh", "env", "cat", "grep", "tr", "rm"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


def test_a_machine_without_a_fitting_python_gets_a_hint(checkout: Path) -> None:
    done = just(checkout, "run", "x", path=tools_without_python(checkout / "tools"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "from 3.11 to 3.14" in done.stderr
    assert "hint:" in done.stderr
    assert not (checkout / ".venv" / "pgolf-stamp").exists()


def test_an_interrupted_setup_begins_anew_because_pip_believes_half_a_package(checkout: Path) -> None:
    finished(checkout, "exit 0")
    (checkout / ".venv" / "pgolf-stamp").unlink()
    path = tools_without_python(checkout / "tools")
    fake = Path(path) / "python3"
    fake.write_text('#!/bin/sh\n[ "$1" = -m ] && echo "$@" && exit 1\nexit 0\n', encoding="utf-8")
    fake.chmod(0o755)
    assert "-m venv --clear .venv" in just(checkout, "run", "x", path=path).stderr


def test_a_python_without_venv_gets_a_hint_and_leaves_no_stamp(checkout: Path) -> None:
    path = tools_without_python(checkout / "tools")
    fake = Path(path) / "python3"
    fake.write_text('#!/bin/sh\n[ "$1" = -m ] && exit 1\nexit 0\n', encoding="utf-8")
    fake.chmod(0o755)
    done = just(checkout, "run", "x", path=path)
    assert done.returncode == 2
    assert "python3-venv" in done.stderr
    assert not (checkout / ".venv" / "pgolf-stamp").exists()


SLOW_PYTHON = """#!/bin/sh
if [ "$1" = -m ] && [ "$2" = venv ]; then
    echo begin >> events
    while [ ! -e go ]; do sleep 0.05; done
    mkdir -p .venv/bin; printf '#!/bin/sh\\nexit 0\\n' > .venv/bin/python; chmod +x .venv/bin/python
    echo end >> events; exit 0
fi
exec {real} "$@"
"""


def test_two_setups_of_one_checkout_do_not_run_into_each_other(checkout: Path) -> None:
    """The second one waits for the first, finds its work done and does nothing."""
    folder = checkout / "tools"
    folder.mkdir()
    (folder / "python3").write_text(SLOW_PYTHON.replace("{real}", sys.executable), encoding="utf-8")
    (folder / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    heard = [checkout / "first.log", checkout / "second.log"]
    both = []
    waits = "another set-up is at work in this checkout"
    for log, last_words in zip(heard, ("making .venv", waits), strict=True):
        with log.open("w") as stderr:
            both.append(subprocess.Popen([program(), "_setup"], cwd=checkout, env=environment, stderr=stderr))
        wait_until(lambda log=log, words=last_words: words in log.read_text(), both[-1])  # type: ignore[misc]
    wait_until((checkout / "events").exists, both[0])
    (checkout / "go").touch()
    assert [process.wait(120) for process in both] == [0, 0], [log.read_text() for log in heard]
    assert (checkout / "events").read_text().split() == ["begin", "end"]
    assert "making .venv" not in heard[1].read_text()


LOGGING_PYTHON = """#!/bin/sh
if [ "$1" = -m ] && [ "$2" = venv ]; then
    mkdir -p .venv/bin; cp "$0" .venv/bin/python; exit 0
fi
case "$0" in
    *.venv/bin/python) echo "$@" >> calls; env | grep ^PYTHON >> variables; exit 0;;
esac
exec {real} "$@"
"""


def test_pip_is_run_without_the_settings_that_move_packages_and_python_without_its_own(
    checkout: Path,
) -> None:
    """What harness/base/pip_settings.py leaves of the settings, its own tests say."""
    folder = checkout / "tools"
    folder.mkdir()
    (folder / "python3").write_text(LOGGING_PYTHON.replace("{real}", sys.executable), encoding="utf-8")
    (folder / "python3").chmod(0o755)
    moved = {"PYTHONHOME": "/nonexistent", "PYTHONPATH": "/nonexistent", "PYTHONUSERBASE": "/nonexistent"}
    done = subprocess.run(
        [program(), "_setup"],
        cwd=checkout,
        env={**os.environ, **moved, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (checkout / "variables").read_text() == ""
    calls = [line for line in (checkout / "calls").read_text().splitlines() if not line.startswith("-c ")]
    assert len(calls) == 5
    for call in calls:
        assert call.startswith("-P harness/base/pip_settings.py "), "pip is called in no other way"
        locked = "--require-hashes" in call or " download " in call or call.endswith(" -e .")
        assert locked and "--no-deps" in call, call


def test_a_checkout_that_cannot_be_written_gets_a_hint(checkout: Path) -> None:
    (checkout / ".venv.lock").mkdir()
    done = just(checkout, "_setup")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot write .venv.lock" in done.stderr and "hint:" in done.stderr
    assert not (checkout / ".venv").exists()
