"""Certificates that `pgolf rescore --witness` added to a seed after its run.

They are listed with their numbers and show nothing that the run's own certificate leaves open: the best of
several draws would no longer hold with 99 % confidence. One that fails a condition leaves it open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base import files
from harness.base.errors import UsageError
from harness.run.folder import SeedFolder


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Condition(_Stored):
    condition: Literal["C1", "C2", "C3", "C4"]
    outcome: Literal["pass", "fail", "unknown"]


class _Certificate(_Stored):
    n_probes: int
    G_bpb: float
    conditions: list[_Condition]


class _Rescored(_Stored):
    """The parts of rescored.json that a verdict shows."""

    certificate: _Certificate | None = None
    unasked: str | None = None


def read(folder: SeedFolder) -> list[dict[str, Any]]:
    """One entry for each, oldest first: its folder, probes, bound, and the conditions that it shows or fails.

    Raises UsageError for a damaged file.
    """
    return [_entry(path) for path in folder.rescorings()]


def _entry(path: Path) -> dict[str, Any]:
    stored = _read(path / "rescored.json")
    certificate = stored.certificate
    conditions = certificate.conditions if certificate else []
    return {
        "folder": path.name,
        "n_probes": certificate and certificate.n_probes,
        "G_bpb": certificate and certificate.G_bpb,
        "shown": [each.condition for each in conditions if each.outcome == "pass"],
        "failed": [each.condition for each in conditions if each.outcome == "fail"],
        "unasked": stored.unasked,
    }


def _read(path: Path) -> _Rescored:
    if not path.is_file():
        return _Rescored(unasked="it was begun and did not finish")
    try:
        return _Rescored.model_validate(files.read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="the file was changed after `pgolf rescore`: restore it, or move its folder away",
        ) from error
