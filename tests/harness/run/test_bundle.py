"""code.pyz: exactly the import closure without docstrings and comments, reproducible bytes, clear errors."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.run import bundle
from harness.run.bundle_archive import MAX_BYTES, Contents, unpack

FILES = {
    "__init__.py": '"""A contestant."""\n',
    "__main__.py": """
        import golf.train
        from golf.model import layers
        def main():
            from golf.late import inside_a_function
            print("ran", golf.train.STEPS, layers.WIDTH, inside_a_function)
            return 7
        """,
    "train.py": "import json\nimport golf.optim.muon as muon\nSTEPS = muon.STEPS\n",
    "late.py": "inside_a_function = True\n",
    "unused.py": "raise RuntimeError('never imported')\n",
    "model/__init__.py": "",
    "model/layers.py": "from golf.config import WIDTH\n",
    "model/orphan.py": "",
    "config.py": "WIDTH = 64\n",
    "optim/__init__.py": "",
    "optim/muon.py": "STEPS = 3\n",
}
CLOSURE = {
    "golf/__init__.py",
    "golf/__main__.py",
    "golf/train.py",
    "golf/late.py",
    "golf/model/__init__.py",
    "golf/model/layers.py",
    "golf/config.py",
    "golf/optim/__init__.py",
    "golf/optim/muon.py",
}


def package(folder: Path, **changes: str | None) -> Path:
    """A package `golf` in `folder`; `changes` replaces files (path with ___ for /) or removes them."""
    files = FILES | {f"{name.replace('___', '/')}.py": text for name, text in changes.items()}
    for name, text in files.items():
        path = folder / "golf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(textwrap.dedent(text))
    return folder / "golf"


def test_the_bundle_is_the_import_closure_of_the_entry_point_and_nothing_else(tmp_path: Path) -> None:
    built = bundle.build(package(tmp_path))
    assert set(built.modules) == set(unpack(built.pyz).sources) == CLOSURE


def test_docstrings_and_comments_are_not_counted_and_are_kept_beside_the_bundle(tmp_path: Path) -> None:
    folder = package(tmp_path, config='"""Sizes."""\n\nWIDTH = 64  # not counted\n')
    built = bundle.build(folder)
    counted, plain = unpack(built.pyz).sources, bundle.build(package(tmp_path / "plain"))
    assert counted["golf/config.py"] == b"\n\nWIDTH = 64\n"
    with zipfile.ZipFile(io.BytesIO(built.source_zip)) as kept:
        assert {name: kept.read(name) for name in kept.namelist()} == {
            name: (tmp_path / name).read_bytes() for name in CLOSURE
        }
    assert len(built.pyz) <= len(plain.pyz) + 8, "only two blank lines count"


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Contents]:
    """source.zip of a run, and the contents of its code.pyz."""
    built = bundle.build(package(tmp_path))
    path = tmp_path / "source.zip"
    path.write_bytes(built.source_zip)
    return path, unpack(built.pyz)


def test_the_counted_form_comes_from_the_kept_sources(kept: tuple[Path, Contents]) -> None:
    bundle.require_source(*kept)


@pytest.mark.slow
def test_the_contestants_counted_form_comes_from_its_sources_and_is_less_than_half(tmp_path: Path) -> None:
    built = bundle.build(ROOT / "golf")
    (tmp_path / "source.zip").write_bytes(built.source_zip)
    bundle.require_source(tmp_path / "source.zip", unpack(built.pyz))
    assert len(built.pyz) < 0.45 * len(built.source_zip)


def rewritten(
    source: Path, change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_DEFLATED
) -> None:
    """Change the members of an archive in place."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(source, "w", compression) as archive:
        for name, text in members.items():
            archive.writestr(name, text)


NAME = "golf/model/layers.py"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.update({NAME: members[NAME] + b"x = 1\n"}), "layers.py without docstrings"),
        (lambda members: members.update({NAME: b"\n" + members[NAME]}), "layers.py without docstrings"),
        (lambda members: members.update({NAME: b"x = (\n"}), "was never closed"),
        (lambda members: members.update({NAME: b"x = " + b"-" * 100_000 + b"1\n"}), "source.zip"),
        (lambda members: members.pop(NAME), "names are not those"),
        (lambda members: members.update({"../x.py": b""}), "names are not those"),
        (lambda members: members.update({NAME: b"#" * (MAX_BYTES + 1)}), "sources are more than"),
    ],
)
def test_sources_that_the_counted_form_does_not_come_from_are_refused(
    kept: tuple[Path, Contents], change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    rewritten(kept[0], change)
    with pytest.raises(UsageError, match=message):
        bundle.require_source(*kept)


def test_kept_sources_by_another_compressor_are_refused(kept: tuple[Path, Contents]) -> None:
    rewritten(kept[0], lambda members: None, zipfile.ZIP_LZMA)
    with pytest.raises(UsageError, match="not deflated"):
        bundle.require_source(*kept)


def test_a_comment_is_part_of_the_identity_only_by_its_number_of_lines(tmp_path: Path) -> None:
    texts = ("# one\nSTEPS = 3\n", "# another\nSTEPS = 3\n", "# two\n# lines\nSTEPS = 3\n")
    first, reworded, longer = (
        bundle.build(package(tmp_path / str(n), optim___muon=text)) for n, text in enumerate(texts)
    )
    assert (first.sha256, first.pyz) == (reworded.sha256, reworded.pyz)
    assert first.source_zip != reworded.source_zip and first.sha256 != longer.sha256


def test_comments_of_the_kept_sources_may_differ(kept: tuple[Path, Contents]) -> None:
    rewritten(kept[0], lambda members: members.update({NAME: members[NAME] + b"# a remark\n"}))
    bundle.require_source(*kept)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + bytes(18)])
def test_kept_sources_that_cannot_be_read_are_refused(kept: tuple[Path, Contents], content: bytes) -> None:
    kept[0].write_bytes(content)
    with pytest.raises(UsageError, match=r"source\.zip"):
        bundle.require_source(*kept)


def test_the_bundle_runs_its_entry_point_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "code.pyz").write_bytes(bundle.build(package(tmp_path / "source")).pyz)
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "code.pyz"], cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("ran 3 64 True\n", 7), done.stderr


def test_location_times_and_permissions_of_the_sources_do_not_change_the_bytes(tmp_path: Path) -> None:
    first = package(tmp_path / "here")
    second = package(tmp_path / "elsewhere" / "deeper")
    for path in second.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"\0")
    assert bundle.build(first) == bundle.build(second)


def test_another_process_in_another_folder_builds_the_same_bytes(tmp_path: Path) -> None:
    folder = package(tmp_path)
    code = (
        "import hashlib, sys; from pathlib import Path; from harness.run import bundle;"
        "print(hashlib.sha256(bundle.build(Path(sys.argv[1])).pyz).hexdigest())"
    )
    here = hashlib.sha256(bundle.build(folder).pyz).hexdigest()
    for seed, cwd, path in (("1", "/", folder), ("2", tmp_path, Path("golf"))):
        done = subprocess.run(
            [sys.executable, "-c", code, path],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        )
        assert done.stdout.strip() == here


def test_the_digest_changes_with_the_sources_in_the_closure_and_with_nothing_else(tmp_path: Path) -> None:
    plain = bundle.build(package(tmp_path / "a")).sha256
    assert bundle.build(package(tmp_path / "b", unused="changed = 1\n")).sha256 == plain
    assert bundle.build(package(tmp_path / "c", config="WIDTH = 64  # remark\n")).sha256 == plain
    changed = {
        bundle.build(
            package(tmp_path / name, **{name: FILES[f"{name.replace('___', '/')}.py"] + "MORE = 1\n"})
        ).sha256
        for name in ("late", "config", "optim___muon")
    }
    assert len(changed | {plain}) == 4


def test_moving_text_from_one_file_to_the_next_changes_the_digest(tmp_path: Path) -> None:
    one = bundle.build(
        package(tmp_path / "a", config="WIDTH = 64\nA = 1\n", late="inside_a_function = True\n")
    )
    two = bundle.build(
        package(tmp_path / "b", config="WIDTH = 64\n", late="A = 1\ninside_a_function = True\n")
    )
    assert one.sha256 != two.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": "WIDTH = (\n"}, r"config.py:1: '\(' was never closed"),
        ({"config": "WIDTH = 64\n  oops\n"}, "config.py:2: unexpected indent"),
        ({"train": "import golf.missing\n"}, "train.py: imports golf.missing, which does not exist"),
        (
            {"train": "from golf.model.missing import x\n"},
            "train.py: imports golf.model.missing, which does not exist",
        ),
        (
            {"train": "import golf.model.missing\n"},
            "train.py: imports golf.model.missing, which does not exist",
        ),
        ({"train": "from golf.nowhere import x\n"}, "imports golf.nowhere"),
        ({"config": None}, "layers.py: imports golf.config, which does not exist"),
        ({"train": "from . import config\n"}, "train.py:1: relative import"),
        ({"train": "from .config import WIDTH\n"}, "train.py:1: relative import"),
        ({"__main__": None}, "no module golf.__main__"),
        ({"__init__": None}, "no module golf"),
    ],
)
def test_what_cannot_be_bundled_is_refused_with_file_and_line(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        bundle.build(package(tmp_path, **changes))
    assert caught.value.hint


def test_importing_a_name_from_a_module_does_not_need_a_file_of_that_name(tmp_path: Path) -> None:
    folder = package(tmp_path, train="from golf.config import WIDTH as STEPS\nfrom golf import config\n")
    assert "golf/config.py" in bundle.build(folder).modules


def test_of_a_package_and_a_module_of_one_name_the_bundle_takes_the_package_as_python_does(
    tmp_path: Path,
) -> None:
    folder = package(tmp_path, model="raise RuntimeError('never run')\n")
    assert set(bundle.build(folder).modules) == CLOSURE


def test_the_real_bundle_holds_only_the_contestants_package_and_no_tests_and_no_judge() -> None:
    built = bundle.build(ROOT / "golf")
    assert all(name.startswith("golf/") and name.endswith(".py") for name in built.modules)
    assert not [name for name in built.modules if "test" in name or "harness" in name]
    program, counted = unpack(built.pyz)
    imported = program + b"".join(counted.values())
    assert b"import harness" not in imported
    assert b"from harness" not in imported
    assert "golf/stages/train.py" in built.modules
