"""A verdict over the files of a run folder: what plan.json says of the image reaches the verdict."""

from __future__ import annotations

from pathlib import Path

from harness.base import files
from harness.verdict.assess import assess
from tests.harness.fakes.run_folders import write_run

STARTED = "2026-01-01T00:00:00+00:00"


def test_what_the_image_lacks_stands_in_the_verdict_and_beside_the_score(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "my-idea", STARTED)
    assert (assess(folder)["image_lacks"], assess(folder)["remarks"]) == ([], [])
    plan = files.read_json(folder.plan)
    plan |= {"image": "sha256:" + "ab" * 32, "image_lacks": ["flash-attn-3"]}
    files.write_json(folder.plan, plan)
    verdict = assess(folder)
    assert verdict["image_lacks"] == ["flash-attn-3"]
    assert "the image lacks flash-attn-3, which its lock pins" in verdict["remarks"][0]
