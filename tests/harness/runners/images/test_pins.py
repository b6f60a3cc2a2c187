"""An image's lock: one hash of everything that determines the image, and no build while a hash is unknown."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

import pytest

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.runners.images import pins, wheels
from tests.harness.fakes.hub import Hub


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the files that the lock's hash covers."""
    shutil.copytree(ROOT / "images", tmp_path / "images")
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_hash_is_the_same_in_every_copy_of_the_checkout(root: Path, name: str) -> None:
    assert pins.lock_sha256(name, root) == pins.lock_sha256(name)


def test_the_two_images_have_different_locks() -> None:
    assert pins.lock_sha256("cpu") != pins.lock_sha256("cuda")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("images/cpu/requirements.lock", "--hash=sha256:6746", "--hash=sha256:6747"),
        ("images/cpu/pins.yaml", "sha256:5282", "sha256:5283"),
        ("Dockerfile", "--require-hashes ", ""),
        ("Dockerfile", "FROM runtime AS cpu", "FROM runtime AS cpu\nRUN true"),
    ],
)
def test_any_change_that_matters_changes_the_hash(root: Path, file: str, old: str, new: str) -> None:
    edit(root / file, old, new)
    assert pins.lock_sha256("cpu", root) != pins.lock_sha256("cpu")


def test_a_new_file_changes_the_hash(root: Path) -> None:
    (root / "images" / "cpu" / "more.txt").write_text("x", encoding="utf-8")
    assert pins.lock_sha256("cpu", root) != pins.lock_sha256("cpu")


def test_the_other_images_files_stages_and_comments_do_not_count(root: Path) -> None:
    edit(root / "images" / "cuda" / "pins.yaml", "unverified", "verified")
    edit(root / "Dockerfile", "ENV NVIDIA_VISIBLE_DEVICES=all", "ENV NVIDIA_VISIBLE_DEVICES=none")
    edit(root / "Dockerfile", "# The two images", "# Two images")
    assert pins.lock_sha256("cpu", root) == pins.lock_sha256("cpu")
    assert pins.lock_sha256("cuda", root) != pins.lock_sha256("cuda")


def test_an_unknown_image_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="cpu, cuda"):
        pins.lock_sha256("tpu")


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.4.6",
        "numpy>=2 --hash=sha256:" + "0" * 64,
        "numpy==2 --hash=md5:00",
        "--index-url somewhere",
        "numpy==2 --hash=sha256:12",
    ],
)
def test_a_lock_line_without_version_or_hash_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "requirements.lock"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="expected"):
        pins.read_lock(path)


def test_a_mistyped_key_in_pins_is_refused(root: Path) -> None:
    edit(root / "images" / "cpu" / "pins.yaml", "\npython:", "\npyton:")
    with pytest.raises(UsageError, match="pyton"):
        pins.load("cpu", root)


def pin_without_hash(root: Path, url: str) -> pins.Wheel:
    """Takes the hash from the one pinned wheel and points it to a URL; returns its pin."""
    [wheel] = pins.load("cuda", root).wheels
    edit(root / "images" / "cuda" / "pins.yaml", wheel.url, url)
    edit(root / "images" / "cuda" / "pins.yaml", f"sha256: {wheel.sha256}", "sha256: null")
    return pins.load("cuda", root).wheels[0]


def test_an_image_can_do_without_a_pinned_wheel_and_its_modules_and_without_nothing_else() -> None:
    whole = pins.load("cuda")
    [wheel] = whole.wheels
    left = whole.without([wheel.name])
    assert set(whole.modules) - set(left.modules) == set(wheel.imports) == {"flash_attn_interface"}
    needed = [requirement.name for requirement in pins.requirements("cuda")]
    assert needed[0] == wheel.name, "the wheel that is hardest to get is asked for first"
    assert needed[1:] == [each.name for each in pins.requirements("cuda", without=[wheel.name])]
    with pytest.raises(UsageError, match="--without torch: no wheel of the pins") as caught:
        whole.without(["torch"])
    assert wheel.name in caught.value.hint


def test_an_image_with_a_pin_without_hash_is_not_built(root: Path) -> None:
    wheel = pin_without_hash(root, "file:///nowhere")
    with pytest.raises(UsageError, match=f"{wheel.name}.*no sha256") as caught:
        pins.requirements("cuda", root)
    assert "pgolf image lock cuda" in caught.value.hint


def test_filling_in_a_hash_downloads_the_wheel_and_leaves_its_trust_alone(root: Path) -> None:
    content = b"a wheel, as far as a hash can tell"
    with contextlib.closing(Hub({"far.whl": content})) as server:
        wheel = pin_without_hash(root, server.url("far.whl"))
        wheels.fill_in(root / "images" / "cuda" / "pins.yaml", wheel)
    [filled] = pins.load("cuda", root).wheels
    assert filled.sha256 == hashlib.sha256(content).hexdigest()
    assert filled.status == "unverified"
    assert filled.sha256 in {digest for r in pins.requirements("cuda", root) for digest in r.sha256s}


def test_a_download_that_fails_leaves_the_pins_as_they_are(root: Path) -> None:
    path = root / "images" / "cuda" / "pins.yaml"
    with contextlib.closing(Hub({})) as server:
        wheel = pin_without_hash(root, server.url("absent.whl"))
        before = path.read_bytes()
        with pytest.raises(MachineFault, match=r"absent\.whl"):
            wheels.fill_in(path, wheel)
    assert path.read_bytes() == before
