"""`pgolf check`: what it prints, how it exits, and what it refuses before a contestant is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.base.exit_codes import ExitCode
from harness.commands import check
from harness.data.dataset import Dataset
from harness.runners.images import build
from tests.harness.fakes.command_line import pgolf
from tests.harness.fakes.sandbox import ZERO, Sandbox

DESCRIBE = """
def describe(wire, setup):
    wire.send(op="ready")
    wire.send(op="description", parameters=1234567, techniques=["softcap"], estimated_bytes={estimated},
              remarks=["profile pocket overrides model.layers (9 -> 4)"])
"""


def submission(folder: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch, estimated: int) -> Path:
    """A submission whose contestant estimates `estimated` bytes, and whose manifest names both locks."""
    sandbox = Sandbox(folder, tiny, override=DESCRIBE.replace("{estimated}", str(estimated)))
    monkeypatch.setattr(check, "ROOT", sandbox.folder)
    manifest = sandbox.submission / "manifest.yaml"
    text = manifest.read_text()
    for image in ("cpu", "cuda"):
        text = text.replace(f"{image}: '{ZERO}'", f"{image}: sha256:{build.lock_sha256(image)}")
    manifest.write_text(text)
    return sandbox.submission


@pytest.mark.parametrize(
    ("estimated", "code"),
    [(15_760_000, ExitCode.VALID), (16_400_000, 0), (17_000_000, 0), (25_000_000, ExitCode.LIMIT)],
)
def test_an_estimate_near_the_cap_is_no_reason_to_fail(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch, estimated: int, code: int
) -> None:
    place = submission(tmp_path, tiny, monkeypatch, estimated)
    result = pgolf("check", place, "--runner", "local", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["estimate"].startswith(f"{estimated / 1e6:.2f} MB")


def test_each_fact_has_a_line_and_remarks_come_last(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = submission(tmp_path, tiny, monkeypatch, 15_760_000)
    (place / "train.py").write_text("")
    lines = pgolf("check", place, "--runner", "local").stdout.splitlines()
    assert "profile         pocket" in lines
    assert "parameters      1,234,567, as the contestant counts them" in lines
    assert "estimated size  15.76 MB of 16.00 MB, give or take 3 %: only a run decides" in lines
    assert [line.split("  ")[0] for line in lines[-2:]] == ["remark", "remark"]
    assert "train.py is ignored" in lines[-2]
    assert "the contestant says: profile pocket overrides model.layers (9 -> 4)" in lines[-1]


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_the_lock_of_an_image_that_is_not_used_is_checked_too(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    place = submission(tmp_path, tiny, monkeypatch, 0)
    manifest = place / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace(build.lock_sha256(image), "0" * 64))
    result = pgolf("check", place, "--runner", "local")
    assert f"names image lock {ZERO} for {image}" in str(result.exception)
