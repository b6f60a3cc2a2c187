"""pip runs with the user's choice of index and nothing else of the user's settings; pip is the real one."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.base import pip_settings
from harness.base.paths import ROOT

PROGRAM = ROOT / "harness" / "base" / "pip_settings.py"
HOSTILE_VARIABLES = {
    "PIP_TARGET": "{folder}/elsewhere",
    "PIP_PREFIX": "{folder}/elsewhere",
    "PIP_ROOT": "{folder}/elsewhere",
    "PIP_USER": "1",
    "PIP_CONSTRAINT": "{folder}/absent.txt",
    "PIP_NO_BINARY": ":all:",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_REQUIRE_HASHES": "1",
    "PIP_DRY_RUN": "1",
    "PIP_PYTHON": "{folder}/no-python",
    "PIP_QUIET": "3",
    "PYTHONPATH": "{folder}/path",
    "PYTHONUSERBASE": "{folder}/elsewhere",
    "PYTHONWARNINGS": "error",
}
HOSTILE_FILE = """
[global]
target = {folder}/elsewhere
constraint = {folder}/absent.txt
no-binary = :all:
quiet = 2
find-links = {folder}/links
no-index = yes
[install]
user = yes
prefix = {folder}/elsewhere
[download]
dest = {folder}/elsewhere
platform = plan9
"""


def wheel(folder: Path, name: str, text: str = "") -> None:
    """A wheel with one module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting of pip but those of a file, which is returned."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "nothing"))
    monkeypatch.setenv("HOME", str(tmp_path / "nothing"))
    (tmp_path / "pip.conf").touch()
    return tmp_path / "pip.conf"


def hostile(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of wheels as index, and every setting that could move or change what is installed."""
    folder = settings.parent
    wheel(folder / "links", "tiny")
    settings.write_text(HOSTILE_FILE.format(folder=folder), encoding="utf-8")
    for name, value in HOSTILE_VARIABLES.items():
        monkeypatch.setenv(name, value.format(folder=folder))
    (folder / "path" / "tiny-1.0.dist-info").mkdir(parents=True)  # pip would take tiny for installed
    (folder / "path" / "tiny-1.0.dist-info" / "METADATA").write_text("Name: tiny\nVersion: 1.0\n")


def pip(*words: object) -> subprocess.CompletedProcess[str]:
    """What the Justfile's set-up does, with the Python of the first word."""
    python, *arguments = map(str, words)
    return subprocess.run(
        [python, "-P", str(PROGRAM), *arguments], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_a_download_lands_where_it_is_asked_for(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(settings, monkeypatch)
    done = pip(sys.executable, "download", "--no-deps", "--dest", tmp_path / "here", "tiny")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["tiny-1.0-py3-none-any.whl"]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_a_package_is_installed_into_the_environment_that_asks(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    hostile(settings, monkeypatch)
    python = tmp_path / "venv" / "bin" / "python"
    done = pip(python, "install", "--no-deps", "tiny")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "venv").glob("lib/*/site-packages/tiny.py"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_index_is_that_of_the_file_unless_a_variable_names_another(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(
        "[global]\nindex-url = https://a.invalid/simple\nextra-index-url =\n  https://b.invalid\n"
        "  https://c.invalid\ntrusted-host = a.invalid\nretries = 9\n"
        "[download]\nretries = 3\n[install]\nretries = 4\n",
        encoding="utf-8",
    )
    found = pip_settings.environment("download")
    assert found["PIP_INDEX_URL"] == "https://a.invalid/simple"
    assert found["PIP_EXTRA_INDEX_URL"].split() == ["https://b.invalid", "https://c.invalid"]
    assert (found["PIP_TRUSTED_HOST"], found["PIP_RETRIES"]) == ("a.invalid", "3")
    assert found["PIP_CONFIG_FILE"] == os.devnull
    monkeypatch.setenv("PIP_INDEX_URL", "https://d.invalid/simple")
    monkeypatch.setenv("PIP_RETRIES", "")  # pip takes an empty one for none
    found = pip_settings.environment("install")
    assert (found["PIP_INDEX_URL"], found["PIP_RETRIES"]) == ("https://d.invalid/simple", "4")


def test_no_other_setting_of_pip_or_of_python_is_passed_on(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(settings, monkeypatch)
    monkeypatch.setenv("PIP_CERT", "/a.pem")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    found = pip_settings.environment("install")
    assert {name for name in found if name.startswith(("PIP_", "PYTHON"))} == {
        *("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"),
        *("PIP_CONFIG_FILE", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_INPUT", "PYTHON_KEYRING_BACKEND"),
    }
    assert found["HTTPS_PROXY"] == "http://proxy.invalid"


def test_a_file_that_pip_cannot_read_is_told_and_left_out(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.write_text("no section\n", encoding="utf-8")
    monkeypatch.setenv("PIP_INDEX_URL", "https://d.invalid/simple")
    assert pip_settings.environment("install")["PIP_INDEX_URL"] == "https://d.invalid/simple"
    assert "pip cannot read its configuration files, going on without them" in capsys.readouterr().err
