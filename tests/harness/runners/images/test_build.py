"""Images in a real engine: what the built image can and cannot do, and which bases are refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import docker
import docker.errors
import pytest

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.runners.docker import DockerRunner
from harness.runners.images import build, pins, rootfs, verify
from harness.runners.images.builder import WITHOUT
from harness.runners.images.compile_check import compile_inside
from harness.runners.select import built_image

PROBE = """
import importlib.util, json, os, socket, sys
import torch
answer = {"uid": os.getuid(), "torch": torch.__version__}
answer["product"] = float((torch.ones(3, 2) @ torch.ones(2, 3)).sum())
answer["ours"] = [name for name in ("harness", "golf", "pgolf") if importlib.util.find_spec(name)]
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
    answer["network"] = "open"
except OSError as error:
    answer["network"] = error.strerror
answer["interfaces"] = [name for _, name in socket.if_nameindex()]
print(json.dumps(answer))
"""


def test_the_image_computes_as_nobody_without_network_and_holds_nothing_of_ours(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    output = engine.containers.run(
        cpu_image, ["python3", "-c", PROBE], network_mode="none", read_only=True, remove=True
    )
    answer = json.loads(output)
    assert answer["uid"] != 0
    assert answer["torch"].startswith("2.13.0+cpu")
    assert answer["product"] == 18.0
    assert answer["ours"] == []
    assert answer["interfaces"] == ["lo"]
    assert answer["network"] != "open"


def test_the_wheels_and_the_lock_are_not_left_in_the_image(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    names = "-name '*.whl' -o -name 'requirements.lock' -o -name '*.pyz'"
    script = f"find / -xdev \\( {names} \\) 2>/dev/null; ls -A /tmp"
    found = engine.containers.run(
        cpu_image, ["sh", "-c", script], network_mode="none", user="root", remove=True
    )
    assert found == b""


def test_the_image_verifies_against_its_lock(engine: docker.DockerClient, cpu_image: str) -> None:
    found = build.verify(engine, "cpu")
    assert found.image == cpu_image
    assert {"torch", "numpy", "sentencepiece", "zstandard", "pyyaml"} <= found.versions.keys()


def test_an_image_is_found_only_by_its_lock(
    engine: docker.DockerClient, cpu_image: str, tmp_path: Path
) -> None:
    (tmp_path / "images" / "cpu").mkdir(parents=True)
    for name in (
        "Dockerfile",
        "images/cpu/pins.yaml",
        "images/cpu/requirements.lock",
        "images/cpu/requirements.in",
    ):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    assert build.find(engine, "cpu", tmp_path) == cpu_image
    with (tmp_path / "images/cpu/requirements.lock").open("a", encoding="utf-8") as file:
        file.write("# another lock\n")
    assert build.find(engine, "cpu", tmp_path) is None


def test_an_image_is_found_while_somebody_removes_another_one_of_the_same_lock(
    engine: docker.DockerClient, cpu_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(image: str) -> None:
        raise docker.errors.ImageNotFound(f"No such image: {image}")

    monkeypatch.setattr(engine.api, "inspect_image", removed)
    assert build.find(engine, "cpu") == cpu_image


def tiny_image(
    engine: docker.DockerClient, content: bytes, lock: str | None = None, without: str = ""
) -> str:
    """The id of a new image of one file, without a tag; its labels name `lock` and what it lacks."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    changes = [] if lock is None else [f"LABEL {build.LABEL}={lock}"]
    if without:
        changes.append(f'LABEL {WITHOUT}="{without}"')
    answer = engine.api.import_image_from_data(packed.getvalue(), changes=changes)
    return str(json.loads(answer.splitlines()[-1])["status"])


def test_an_image_that_was_saved_by_its_id_and_loaded_has_no_tag_and_is_found(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    image, plan = tiny_image(engine, os.urandom(16), "ab" * 32), tmp_path / "plan.json"
    lock = "sha256:" + "ab" * 32
    try:
        saved = b"".join(engine.images.get(image).save())
        engine.images.remove(image)
        with pytest.raises(UsageError, match=f"image {image}, which this engine does not have") as caught:
            build.require_image(engine, image, lock, plan)
        assert f"`docker save {image} > image.tar`; here: `docker load < image.tar`" in caught.value.hint
        engine.images.load(saved)
        assert engine.images.get(image).tags == []
        assert build.require_image(engine, image, lock, plan) == image
        with pytest.raises(UsageError, match="but that image was built from lock sha256:abab"):
            build.require_image(engine, image, "sha256:" + "cd" * 32, plan)
    finally:
        engine.images.remove(image, force=True)


def test_where_the_image_is_here_without_a_tag_the_hint_is_to_give_it_one(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = os.urandom(32).hex()
    image = tiny_image(engine, os.urandom(16), lock)
    monkeypatch.setattr(build, "lock_sha256", lambda name, root=None: lock)
    try:
        assert build.find(engine, "cpu") is None
        with pytest.raises(UsageError, match="image cpu is not built") as caught:
            built_image(engine, "cpu")
        assert f"`docker tag {image} pgolf-cpu:loaded`" in caught.value.hint
        engine.images.get(image).tag("pgolf-test-untagged", "loaded")
        assert built_image(engine, "cpu") == image
    finally:
        engine.images.remove(image, force=True)


def test_an_image_without_the_label_of_a_lock_is_no_image_of_a_recorded_lock(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    image = tiny_image(engine, os.urandom(16))
    try:
        with pytest.raises(UsageError, match="but that image was built from no lock"):
            build.require_image(engine, image, "sha256:" + "ab" * 32, tmp_path)
        with pytest.raises(UsageError, match="and no lock, but that image was built from no lock"):
            build.require_image(engine, image, None, tmp_path)
    finally:
        engine.images.remove(image, force=True)


@pytest.mark.parametrize("named", ["", "pgolf-cpu:latest", "sha256:12", "SHA256:" + "0" * 64, "\x1b[2J"])
def test_a_record_that_names_an_image_by_anything_but_its_id_is_refused(named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no image id") as caught:
        build.require_image(docker.DockerClient(), named, None, tmp_path)
    assert "\x1b" not in caught.value.message


def test_an_image_that_lacks_a_locked_package_does_not_verify(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    without = engine.containers.create(
        cpu_image,
        ["sh", "-c", "rm -r /usr/local/lib/python3*/*-packages/zstandard*"],
        user="root",
        network_mode="none",
    )
    try:
        without.start()
        without.wait()
        changed = without.commit(changes="LABEL pgolf.lock=forged")
    finally:
        without.remove(force=True)
    try:
        with pytest.raises(UsageError, match="zstandard") as caught:
            build.verify(engine, "cpu", changed.id)
        assert "pgolf image build cpu" in caught.value.hint
    finally:
        engine.images.remove(changed.id, force=True)


def test_a_base_without_python_and_without_apt_is_refused_with_the_command_to_make_one(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    path = tmp_path / "base.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("etc/hostname")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UsageError, match="no python3") as caught:
        rootfs.import_base(engine, path, print)
    assert "debootstrap --variant=minbase --include=python3 bookworm" in caught.value.hint
    assert not engine.containers.list(all=True, filters={"label": "pgolf.purpose=image"}), (
        "no container is left"
    )


def test_a_base_that_is_no_root_filesystem_is_refused(engine: docker.DockerClient, tmp_path: Path) -> None:
    path = tmp_path / "base.tar"
    path.write_bytes(b"\x1f\x8b not a tar")
    with pytest.raises(UsageError, match="cannot import"):
        rootfs.import_base(engine, path, print)
    with pytest.raises(UsageError, match="neither a folder nor a tar"):
        rootfs.import_base(engine, tmp_path / "absent", print)


def test_a_root_filesystem_is_packed_without_what_the_engine_mounts(tmp_path: Path) -> None:
    for name in ("etc/hostname", "proc/1/status", "var/cache/apt/archives/a.deb", "usr/bin/python3"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
    packed = io.BytesIO()
    rootfs.pack(tmp_path / "root", packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        names = set(tar.getnames())
    assert {"./etc/hostname", "./usr/bin/python3", "./proc", "./var/cache/apt"} <= names
    assert not {"./proc/1/status", "./var/cache/apt/archives/a.deb"} & names


@pytest.fixture
def incomplete_and_whole(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two tagged images of one lock: first one that was built without a wheel, then a whole one."""
    lock = os.urandom(32).hex()
    monkeypatch.setattr(build, "lock_sha256", lambda name, root=None: lock)
    images = []
    for without in ("flash-attn-3", ""):
        images.append(tiny_image(engine, os.urandom(16), lock, without))
        engine.images.get(images[-1]).tag("pgolf-test-lacking", without or "whole")
    yield images
    for image in images:
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.images.remove(image, force=True)


def test_a_whole_image_is_preferred_to_one_that_lacks_a_wheel_and_a_runner_knows_what_its_image_lacks(
    engine: docker.DockerClient, incomplete_and_whole: list[str]
) -> None:
    incomplete, whole = incomplete_and_whole
    assert build.find(engine, "cuda") == whole
    engine.images.remove(whole, force=True)
    assert build.find(engine, "cuda") == incomplete
    runner = DockerRunner(engine, incomplete)
    assert runner.image_lacks == ("flash-attn-3",)
    runner.close()


def test_building_finds_the_very_image_that_lacks_what_was_left_out(
    engine: docker.DockerClient, incomplete_and_whole: list[str], home: Path
) -> None:
    incomplete, whole = incomplete_and_whole
    logged = list[str]()
    built = [
        build.build("cuda", without=without, client=engine, log=logged.append)
        for without in (["flash-attn-3"], [])
    ]
    assert built == [incomplete, whole]
    assert all("built already" in line for line in logged)


def test_an_image_without_a_compiler_is_no_base_of_the_cuda_image(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    cuda = pins.load("cuda")
    missing = rootfs.missing_of_compiler(engine, cpu_image)
    assert missing.startswith("cc, g++")
    assert missing.endswith("/Python.h")
    with pytest.raises(UsageError, match=r"torch\.compile works, and this one lacks cc, g\+\+") as caught:
        build._base_interpreter(engine, "cuda", cuda, cpu_image)
    assert "--include=python3,python3-dev,g++,openssl bookworm" in caught.value.hint


@pytest.mark.slow
def test_a_wheel_that_was_left_out_must_not_come_from_the_base(
    engine: docker.DockerClient, cpu_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify.modules_there(engine, cpu_image, ["flash_attn_interface", "yaml"]) == ["yaml"]
    pinned = pins.load("cuda")
    changed = pinned.model_copy(
        update={"wheels": [pinned.wheels[0].model_copy(update={"imports": ["yaml"]})], "imports": []}
    )
    monkeypatch.setattr(pins, "load", lambda name, root=ROOT: changed)
    with pytest.raises(UsageError, match="without flash-attn-3, and yaml is there: its base has it"):
        verify.verify_image(engine, "cuda", cpu_image, ["flash-attn-3"])


def test_an_image_in_which_nothing_compiles_does_not_verify(
    engine: docker.DockerClient, cpu_image: str
) -> None:
    with pytest.raises(UsageError, match=r"compiles nothing: (.|\n)*triton") as caught:
        compile_inside(engine, "cpu", cpu_image)
    assert "--include=python3,python3-dev,g++" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "packages"), [("cpu", "=python3 "), ("cuda", "=python3,python3-dev,g++,openssl ")]
)
def test_where_the_base_cannot_be_pulled_the_hint_names_the_packages_of_this_image(
    name: str, packages: str
) -> None:
    class Offline:
        def get(self, image: str) -> None:
            raise docker.errors.ImageNotFound(image)

        def pull(self, image: str) -> None:
            raise docker.errors.APIError("no such host")

    daemon = SimpleNamespace(images=Offline())
    with pytest.raises(MachineFault) as caught:
        build._pull(cast(docker.DockerClient, daemon), pins.load(name), lambda line: None)
    assert f"--include{packages}bookworm" in str(caught.value.hint)
