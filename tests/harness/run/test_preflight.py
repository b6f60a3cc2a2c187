"""What a run stands on: dataset, runner and image are chosen as said, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from harness.base.errors import MachineFault, UsageError
from harness.base.progress import ProgressDisplay
from harness.data import pocket
from harness.data.dataset import Dataset
from harness.edition import PROFILES
from harness.run import preflight
from harness.run.submission import Manifest, load
from harness.runners import docker_engine
from harness.runners.docker import DockerRunner
from harness.runners.images import build
from harness.runners.local import LocalRunner
from tests.harness.fakes.sandbox import Sandbox

POCKET = PROFILES["pocket"]


def manifest_with(cpu_lock: str, folder: Path, dataset: Dataset) -> Manifest:
    """A manifest that names this lock of the CPU image."""
    submission = Sandbox(folder, dataset).submission
    path = submission / "manifest.yaml"
    path.write_text(path.read_text().replace("cpu: 'sha256:" + "0" * 64, f"cpu: '{cpu_lock}"))
    return load(submission).manifest


def chosen_dataset(data: Path | None, profile: str = "pocket", variant: str = "sp1024") -> Dataset:
    with ProgressDisplay() as display:
        return preflight.choose_dataset(data, profile, variant, display)


def chosen_runner(
    wanted: preflight.RunnerName | None, manifest: Manifest, gpus: int = 0
) -> preflight.Preflight:
    with ProgressDisplay() as display:
        return preflight.choose_runner(wanted, manifest, replace(POCKET, gpus=gpus), display)


# --- dataset


def test_the_given_dataset_is_used_and_verified(tiny: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny.folder, copy)
    assert chosen_dataset(copy).sha256 == tiny.sha256
    shard = copy / "val_000000.bin"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UsageError, match=r"val_000000\.bin"):
        chosen_dataset(copy)


def test_the_pocket_profile_takes_the_prepared_pocket_dataset(home: Path, tiny: Dataset) -> None:
    shutil.copytree(tiny.folder, home / "datasets" / "pocket")
    assert chosen_dataset(None).folder == home / "datasets" / "pocket"


def test_other_profiles_take_fineweb_in_the_variant_of_the_manifest_or_say_how_to_get_it(
    home: Path, tiny: Dataset
) -> None:
    with pytest.raises(UsageError, match="profile record is scored on FineWeb") as caught:
        chosen_dataset(None, "record", "sp8192")
    assert "pgolf data prepare fineweb --variant sp8192" in caught.value.hint
    shutil.copytree(tiny.folder, home / "datasets" / "fineweb-sp8192")
    assert chosen_dataset(None, "record", "sp8192").folder.name == "fineweb-sp8192"


def test_a_dataset_without_train_shards_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny.folder, copy)
    path = copy / "dataset.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "train": []}))
    with pytest.raises(UsageError, match="has no train shards") as caught:
        chosen_dataset(copy)
    assert "--train" in caught.value.hint


# --- runner


def test_without_an_engine_the_local_runner_is_taken_and_says_that_it_isolates_nothing(
    no_engine: None, tiny: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = chosen_runner(None, manifest_with("sha256:" + "1" * 64, tmp_path, tiny))
    assert (type(found.runner), found.image_lock) == (LocalRunner, None)
    said = " ".join(capfd.readouterr().err.split())
    assert "no container engine: the local runner limits the contestant but does not isolate it" in said


def test_docker_that_was_asked_for_is_never_replaced(no_engine: None, tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="no container engine answers") as caught:
        chosen_runner("docker", manifest_with("sha256:" + "1" * 64, tmp_path, tiny))
    assert "start the engine" in caught.value.hint


def test_the_local_runner_can_be_asked_for_and_then_no_engine_is(
    tiny: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "connect", lambda: pytest.fail("it asked for an engine"))
    found = chosen_runner("local", manifest_with("sha256:" + "1" * 64, tmp_path, tiny))
    assert isinstance(found.runner, LocalRunner)
    assert "isolation none, as asked" in capfd.readouterr().err


def test_a_profile_that_needs_more_gpus_than_there_are_is_refused_first(
    tiny: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="this profile needs 10000 GPUs, found") as caught:
        chosen_runner("local", manifest_with("sha256:" + "1" * 64, tmp_path, tiny), gpus=10_000)
    assert "--profile pocket" in caught.value.hint


def test_an_engine_and_the_locked_image_give_the_docker_runner(
    cpu_image: str, tiny: Dataset, tmp_path: Path
) -> None:
    lock = f"sha256:{build.lock_sha256('cpu')}"
    found = chosen_runner(None, manifest_with(lock, tmp_path, tiny))
    try:
        assert isinstance(found.runner, DockerRunner)
        assert (found.runner.image, found.image_lock) == (cpu_image, lock)
    finally:
        found.runner.close()


def test_a_run_that_was_begun_goes_on_in_its_own_image_or_not_at_all(
    cpu_image: str, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, begun = "1" * 64, "sha256:" + "a" * 64
    (tmp_path / "plan.json").write_text(json.dumps({"image": begun}))
    monkeypatch.setattr(build, "lock_sha256", lambda name, root=None: lock)
    monkeypatch.setattr(build, "find", lambda client, name: cpu_image)
    manifest = manifest_with(f"sha256:{lock}", tmp_path, tiny)
    with ProgressDisplay() as display:
        with pytest.raises(UsageError, match=f"image {begun}, which this engine does not have"):
            preflight.choose_runner("docker", manifest, POCKET, display, lambda _: tmp_path / "plan.json")
        found = preflight.choose_runner("docker", manifest, POCKET, display, lambda _: tmp_path / "none.json")
    found.runner.close()
    assert found.runner.image == cpu_image, "a run that was not begun takes the newest"


def test_another_image_than_the_manifests_is_refused(
    engine: docker.DockerClient, tiny: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="names image lock sha256:1111") as caught:
        chosen_runner(None, manifest_with("sha256:" + "1" * 64, tmp_path, tiny))
    assert "another environment is another submission" in caught.value.hint


def test_a_missing_image_is_built_before_the_run(
    cpu_image: str, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, built = "1" * 64, list[str]()
    monkeypatch.setattr(build, "lock_sha256", lambda name, root=None: lock)
    monkeypatch.setattr(build, "build", lambda name, log: built.append(name) or cpu_image)
    found = chosen_runner(None, manifest_with(f"sha256:{lock}", tmp_path, tiny))
    try:
        assert isinstance(found.runner, DockerRunner)
        assert (built, found.runner.image) == (["cpu"], cpu_image)
    finally:
        found.runner.close()


def test_a_missing_pocket_dataset_is_prepared(
    home: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(folder: Path, progress: object) -> None:
        shutil.copytree(tiny.folder, folder)

    monkeypatch.setattr(pocket, "prepare", prepare)
    assert chosen_dataset(None).folder == home / "datasets" / "pocket"
