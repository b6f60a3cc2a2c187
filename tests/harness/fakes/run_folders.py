"""Run folders written by hand: a plan, an attempt at a given time, and perhaps a verdict."""

from __future__ import annotations

import json
from pathlib import Path

from harness.edition import PROFILES
from harness.run import records
from harness.run.folder import RunFolder
from harness.run.records import SeedRecord
from tests.harness.fakes.verdicts import attempt, manifest

DIGIT = iter(range(16**12))


def write_run(
    runs: Path,
    submission: str,
    started_at: str | None = None,
    train_seconds: float = 45.0,
    *,
    isolated: bool = False,
    seed: SeedRecord | None = None,
) -> RunFolder:
    """A run folder of profile pocket with one seed, whose attempts began at `started_at`.

    `seed`: its record; a training alone if there is none.
    """
    folder = RunFolder(runs / submission / f"pocket-{next(DIGIT):012x}")
    folder.path.mkdir(parents=True)
    limits = PROFILES["pocket"].public() | {"train_seconds": train_seconds}
    identity = {"code": "c", "config": "c", "runner": "local", "dataset": "d", "profile": "pocket"}
    plan = {"submission": submission, "track": "A", "identity": identity | {"limits": limits}}
    located = {"name": "pocket", "folder": "/data"}
    judged = {
        "manifest": manifest(seeds=[1]).model_dump(mode="json", by_alias=True),
        "isolated": isolated,
        "isolation": "container: no network" if isolated else "none",
        "code_bytes": 1,
        "config_bytes": 1,
    }
    folder.plan.write_text(json.dumps({"schema": 1, **plan, **judged, "image": None, "dataset": located}))
    if started_at is not None:
        record = seed or SeedRecord(seed=1, attempts=[attempt("train")])
        for each in record.attempts:
            each.started_at = started_at
        records.save(folder.seed(1).record, record)
    return folder
