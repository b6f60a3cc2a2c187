"""Certificates that `pgolf rescore --witness` added to a seed after its run.

They are listed with their numbers and show nothing that the run's own certificate leaves open: the best of
several draws would no longer hold with 99 % confidence. One that fails a condition leaves it open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.base import files
from harness.base.errors import UsageError
from harness.run.folder import SeedFolder


def read(folder: SeedFolder) -> list[dict[str, Any]]:
    """One entry for each, oldest first: its folder, probes, bound, and the conditions that it shows or fails.

    Raises UsageError for a damaged file.
    """
    found = [
        path for path in folder.path.glob("rescored-*") if path.name.removeprefix("rescored-").isdecimal()
    ]
    return [_entry(path) for path in sorted(found, key=lambda path: int(path.name.removeprefix("rescored-")))]


def _entry(path: Path) -> dict[str, Any]:
    result = path / "rescored.json"
    if result.is_file():
        return {"folder": path.name, **_summary(result, files.read_json(result))}
    unfinished: dict[str, Any] = {"n_probes": None, "G_bpb": None, "shown": [], "failed": []}
    return {"folder": path.name, **unfinished, "unasked": "it was begun and did not finish"}


def _summary(path: Path, stored: Any) -> dict[str, Any]:
    try:
        certificate = stored["certificate"]
        conditions = certificate["conditions"] if certificate else []
        by_outcome = {
            outcome: [each["condition"] for each in conditions if each["outcome"] == outcome]
            for outcome in ("pass", "fail")
        }
        return {
            "n_probes": certificate and certificate["n_probes"],
            "G_bpb": certificate and certificate["G_bpb"],
            "shown": by_outcome["pass"],
            "failed": by_outcome["fail"],
            "unasked": stored["unasked"],
        }
    except (LookupError, TypeError) as error:
        raise UsageError(
            f"{path}: is no certificate ({type(error).__name__}: {error})",
            hint="the file was changed after `pgolf rescore`: restore it, or move its folder away",
        ) from error
