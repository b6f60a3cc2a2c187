"""`pgolf image`: results on stdout, talk on stderr, and every failure with what to do next."""

from __future__ import annotations

import docker
import pytest

from harness.base.errors import MachineFault, UsageError
from harness.base.paths import ROOT
from harness.runners.images import build, pins
from tests.harness.fakes.command_line import pgolf


def test_lock_prints_the_hash_that_the_manifests_name() -> None:
    done = pgolf("image", "lock", "cpu")
    assert done.exit_code == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("lock ")]
    lock = line.split()[1]
    assert lock == f"sha256:{pins.lock_sha256('cpu')}"
    for submission in (ROOT / "submissions").iterdir():
        assert f"cpu: {lock}" in (submission / "manifest.yaml").read_text()
    assert "another lock is another environment" in done.stderr


@pytest.mark.parametrize("command", ["build", "verify", "lock"])
def test_an_image_of_another_name_is_refused_with_the_names_there_are(command: str) -> None:
    refused = pgolf("image", command, "cqu").exception
    assert isinstance(refused, UsageError)
    assert ("'cqu'" in refused.message, refused.hint) == (True, "the images are: cpu, cuda")


@pytest.mark.parametrize("command", ["build", "verify"])
def test_without_an_engine_building_and_verifying_are_the_machines_fault(
    command: str, no_engine: None
) -> None:
    assert isinstance(pgolf("image", command, "cpu").exception, MachineFault)


def test_a_wheel_whose_hash_nobody_knows_is_refused_before_an_engine_is_asked(
    no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pins.load("cuda")
    unknown = [wheel.model_copy(update={"sha256": None}) for wheel in known.wheels]
    monkeypatch.setattr(pins, "load", lambda name, root=None: known.model_copy(update={"wheels": unknown}))
    refused = pgolf("image", "build", "cuda").exception
    assert isinstance(refused, UsageError)
    assert "pgolf image lock cuda" in refused.hint


def test_a_package_that_no_image_can_do_without_is_refused_before_an_engine_is_asked(no_engine: None) -> None:
    refused = pgolf("image", "build", "cuda", "--without", "torch").exception
    assert isinstance(refused, UsageError)
    assert refused.hint == "what an image can do without: flash-attn-3"


def test_an_image_that_is_there_is_not_built_again(cpu_image: str) -> None:
    done = pgolf("image", "build", "cpu")
    assert (done.exit_code, done.stdout) == (0, f"{cpu_image}\n")
    assert "built already" in done.stderr


def test_verify_prints_every_locked_package_with_its_version(cpu_image: str) -> None:
    done = pgolf("image", "verify", "cpu")
    assert done.exit_code == 0
    first, *packages = done.stdout.splitlines()
    assert first.startswith(f"{cpu_image}  Python 3.")
    assert len(packages) >= 10
    assert any(line.strip().startswith("torch 2.") for line in packages)


def test_verifying_an_image_that_is_not_built_names_the_command_that_builds_it(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "lock_sha256", lambda name, root=None: "0" * 64)
    refused = pgolf("image", "verify", "cpu").exception
    assert isinstance(refused, UsageError)
    assert "pgolf image build cpu" in refused.hint
