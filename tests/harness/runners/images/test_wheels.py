"""Wheels for an image: selected by name, Python, platform and hash; a wrong one is reported and not used."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.runners.images import wheels
from harness.runners.images.pins import Requirement, Wheel
from harness.runners.images.wheels import Interpreter, downloaded, from_folder

BOOKWORM = Interpreter((3, 11), "x86_64", (2, 36))


def wheel(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any") -> Path:
    """An empty wheel that pip accepts."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def pinned(path: Path, version: str = "1.0") -> Requirement:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Requirement(path.name.split("-")[0], version, "", frozenset([digest]))


def test_a_folder_gives_the_wheels_that_the_lock_names_and_no_others(tmp_path: Path) -> None:
    wanted, _ = wheel(tmp_path, "wanted"), wheel(tmp_path, "other")
    assert from_folder(tmp_path, [pinned(wanted)], BOOKWORM) == [wanted]


def test_a_wheel_with_a_wrong_hash_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = wheel(tmp_path, "wanted")
    requirement = pinned(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UsageError) as caught:
        from_folder(tmp_path, [requirement], BOOKWORM)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in str(caught.value)
    assert next(iter(requirement.sha256s)) in str(caught.value)
    assert path.name in str(caught.value)


def test_all_missing_wheels_are_named_at_once_with_a_command(tmp_path: Path) -> None:
    present = wheel(tmp_path, "present")
    absent = [Requirement(name, "2.0", "", frozenset(["0" * 64])) for name in ("one", "two")]
    with pytest.raises(UsageError, match=r"one==2\.0, two==2\.0") as caught:
        from_folder(tmp_path, [pinned(present), *absent], BOOKWORM)
    assert "--python-version 3.11" in caught.value.hint


@pytest.mark.parametrize(
    "tag",
    [
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_28_aarch64",
        "cp311-cp311-manylinux_2_39_x86_64",
        "cp311-cp311-macosx_14_0_arm64",
    ],
)
def test_a_wheel_for_another_machine_counts_as_missing(tmp_path: Path, tag: str) -> None:
    path = wheel(tmp_path, "wanted", tag=tag)
    with pytest.raises(UsageError, match=r"no wheel for Python 3\.11 on x86_64"):
        from_folder(tmp_path, [pinned(path)], BOOKWORM)


def test_the_cpu_build_of_a_version_satisfies_the_pin_of_that_version(tmp_path: Path) -> None:
    path = wheel(tmp_path, "torch", "2.13.0+cpu", "cp311-cp311-manylinux_2_28_x86_64")
    assert from_folder(tmp_path, [pinned(path, "2.13.0")], BOOKWORM) == [path]


def test_a_pre_release_that_is_pinned_is_found(tmp_path: Path) -> None:
    version = "3.0.0b1+20251229.cu128torch291cxx11abitrue.58fe37"
    path = wheel(tmp_path, "flash_attn_3", version, "cp39-abi3-linux_x86_64")
    requirement = pinned(path, version)._replace(name="flash-attn-3")
    assert from_folder(tmp_path, [requirement], BOOKWORM) == [path]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses instead of a package index; the wheel cache is a temporary folder too."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.slow
def test_an_interrupted_download_continues_and_downloads_nothing_twice(index: Path) -> None:
    first, second = wheel(index, "first"), wheel(index, "second")
    needed, logged = [pinned(first), pinned(second)], list[str]()
    second = second.rename(index / "hidden")
    with pytest.raises(MachineFault, match=r"second==1\.0"):
        downloaded("cpu", "f" * 64, needed, BOOKWORM, [], logged.append)
    second.rename(index / "second-1.0-py3-none-any.whl")
    first.unlink()  # it is in the cache already
    files = downloaded("cpu", "f" * 64, needed, BOOKWORM, [], logged.append)
    assert [path.name.split("-")[0] for path in files] == ["first", "second"]
    assert [line.split(":")[0] for line in logged] == ["wheel 1/2", "wheel 2/2", "wheel 2/2"]


FLASH = Wheel(
    name="flash-attn-3",
    version="3.0.0",
    file="flash_attn_3-3.0.0-cp39-abi3-manylinux_2_28_x86_64.whl",
    url="http://127.0.0.1:9/flash.whl",
    sha256="0" * 64,
    status="unverified",
    provenance="a test",
)
NEEDED = [Requirement("flash-attn-3", "3.0.0", "", frozenset(["0" * 64]))]


def test_a_pinned_wheel_that_cannot_be_reached_comes_with_the_option_that_leaves_it_out(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str, path: Path) -> None:
        raise MachineFault(f"{url}: no answer", hint="is the network up?")

    monkeypatch.setattr(wheels, "fetch", unreachable)
    with pytest.raises(MachineFault, match="no answer") as caught:
        downloaded("cuda", "f" * 64, NEEDED, BOOKWORM, [FLASH], print)
    assert "is the network up?" in caught.value.hint
    assert "`--without flash-attn-3` builds another image" in caught.value.hint


def test_a_pinned_wheel_that_a_folder_lacks_is_named_with_its_address(tmp_path: Path) -> None:
    absent = Requirement("torch", "2.9.1", "", frozenset(["0" * 64]))
    with pytest.raises(UsageError, match=r"flash-attn-3==3\.0\.0, torch==2\.9\.1") as caught:
        from_folder(tmp_path, [*NEEDED, absent], BOOKWORM, [FLASH])
    assert f"flash-attn-3 is at {FLASH.url}; `--without flash-attn-3`" in caught.value.hint
    assert caught.value.hint.endswith(f"--dest {tmp_path} torch==2.9.1")


def test_a_wheel_for_an_old_glibc_fits(tmp_path: Path) -> None:
    old = wheel(tmp_path, "nvrtc", tag="py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64")
    assert from_folder(tmp_path, [pinned(old)], BOOKWORM) == [old]


def test_a_download_with_a_wrong_hash_never_reaches_the_cache(index: Path, tmp_path: Path) -> None:
    path = wheel(index, "wanted")
    requirement = pinned(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MachineFault, match="wanted"):
        downloaded("cpu", "f" * 64, [requirement], BOOKWORM, [], print)
    assert not list((tmp_path / "home").rglob("*.whl"))


COLLECT = """
import sys
from pathlib import Path
from harness.runners.images import wheels
from tests.harness.runners.images.test_wheels import BOOKWORM, pinned
needed = [pinned(path) for path in sorted(Path(sys.argv[1]).glob("*.whl"))]
with wheels.cache_locked():
    print(len(wheels.downloaded("cpu", "f" * 64, needed, BOOKWORM, [], lambda line: None)))
"""


@pytest.mark.slow
def test_two_builds_at_once_collect_each_wheel_once(index: Path, home: Path) -> None:
    for name in ("first", "second", "third"):
        wheel(index, name)
    words = [sys.executable, "-c", COLLECT, index]
    both = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == ["3\n", "3\n"]
    assert len(list(wheels.cache().rglob("*.whl"))) == 3
    assert [path.name for path in home.iterdir()] == ["wheels"]


@pytest.mark.slow
def test_clean_waits_for_a_build_that_uses_the_wheels(home: Path, no_engine: None) -> None:
    cached = wheels.cache() / "cpu" / "a.whl"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(bytes(2_000_000))
    with wheels.cache_locked():
        cleaning = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "clean"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert cleaning.stderr is not None
        assert "another process is at work there: waiting for it" in cleaning.stderr.readline()
        assert cached.exists()
    assert "2 MB of cached wheels" in cleaning.communicate(timeout=120)[0]
    assert list(home.iterdir()) == []
