"""The lock files: every package by hash, nothing about where it comes from, the same versions everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness.runners.images import pins
from images import relock

ROOT = Path(__file__).resolve().parents[1]
LOCKS = [
    ROOT / name
    for name in (
        "requirements.lock",
        "torch.lock",
        "torch-cuda.lock",
        "images/cpu/requirements.lock",
        "images/cuda/requirements.lock",
    )
]


def versions(path: Path) -> dict[str, str]:
    return {requirement.name: requirement.version for requirement in pins.read_lock(path)}


@pytest.mark.parametrize("path", LOCKS, ids=str)
def test_every_locked_package_has_hashes_and_a_single_version(path: Path) -> None:
    locked = pins.read_lock(path)
    assert locked
    assert all(requirement.sha256s for requirement in locked)
    assert len({requirement.name for requirement in locked}) == len(locked)


@pytest.mark.parametrize("path", LOCKS, ids=str)
def test_a_lock_names_no_host_no_index_and_no_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|//|--(extra-)?index|--find-links|-i ", text)


def test_what_pyproject_asks_for_is_locked_at_a_version_that_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = versions(ROOT / "requirements.lock") | versions(ROOT / "torch.lock")
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    for text in wanted:
        requirement = Requirement(text)
        assert locked[requirement.name] in requirement.specifier, (
            f"{text} is locked at {locked[requirement.name]}"
        )


def test_the_cpu_image_has_the_versions_of_the_project() -> None:
    project = versions(ROOT / "requirements.lock") | versions(ROOT / "torch.lock")
    assert versions(ROOT / "images/cpu/requirements.lock").items() <= project.items()


def test_torch_cuda_lock_holds_nothing_that_the_main_lock_holds() -> None:
    assert not versions(ROOT / "torch-cuda.lock").keys() & versions(ROOT / "requirements.lock").keys()


def test_the_cpu_image_admits_exactly_the_recorded_cpu_builds_of_torch() -> None:
    recorded = yaml.safe_load((ROOT / "images/torch-cpu-builds.yaml").read_text(encoding="utf-8"))
    hashes = {build["sha256"] for build in recorded["builds"]}
    [image_torch] = [r for r in pins.read_lock(ROOT / "images/cpu/requirements.lock") if r.name == "torch"]
    [torch] = pins.read_lock(ROOT / "torch.lock")
    assert image_torch.sha256s == hashes
    assert hashes < torch.sha256s, "torch.lock admits these and the index's builds"
    assert image_torch.version == torch.version == recorded["version"]
    assert all(build["trust"] in ("read", "reported") for build in recorded["builds"])


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_every_pin_says_where_it_comes_from_and_how_far_it_is_trusted(name: str) -> None:
    pinned = pins.load(name)
    for pin in [pinned.base, *pinned.wheels]:
        assert len(pin.provenance) > 20
        assert pin.status in ("verified", "unverified")
    assert SpecifierSet(pinned.python).contains("3.12.0")


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_lock_holds_what_the_image_asks_for(name: str) -> None:
    folder = ROOT / "images" / name
    locked = versions(folder / "requirements.lock")
    for line in (folder / "requirements.in").read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            assert locked[requirement.name] in requirement.specifier


def test_the_locks_are_made_with_the_users_index_and_no_other_setting_of_uv(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in relock.environment() if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    kept = ("UV_DEFAULT_INDEX", "UV_INDEX_MINE_PASSWORD", "UV_EXTRA_INDEX_URL", "UV_HTTP_TIMEOUT")
    for name in (*kept, "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE_NEWER", "UV_FIND_LINKS", "UV_RESOLUTION"):
        monkeypatch.setenv(name, "1")
    assert {name for name in relock.environment() if name.startswith("UV_")} == set(kept)
