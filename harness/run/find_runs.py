"""Find run folders by the name of their submission, and say which one is the newest.

The newest run is the one whose last attempt at a stage began last, by `started_at` in the seeds' run.json: a
copied or unpacked folder has other times of modification. A run without any attempt is older than all others.
Ablations (`ablation-...`) and scored programs (`runs/scored/`) are no runs.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import os
import re
from pathlib import Path

from harness.base.errors import UsageError
from harness.base.text import plain
from harness.edition import PROFILES
from harness.run import records
from harness.run.folder import RunFolder

RUN_NAME = re.compile(rf"({'|'.join(PROFILES)})-[0-9a-f]{{12}}")
"""The name of a run folder: <profile>-<hash12>."""
LATEST = "latest"
NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


def run_folders(of_submission: Path) -> list[RunFolder]:
    """The run folders in runs/SUBMISSION, by name; none where that is no folder."""
    if not of_submission.is_dir():
        return []
    found = sorted(path for path in of_submission.iterdir() if RUN_NAME.fullmatch(path.name))
    return [RunFolder(path) for path in found if path.is_dir()]


def last_attempt(folder: RunFolder) -> datetime.datetime:
    """When the last attempt of any seed began; NEVER where none did.

    Raises UsageError for a damaged record.
    """
    return max(
        (
            _time(folder.seed(seed).record, attempt.started_at)
            for seed in folder.seeds()
            for attempt in records.load(folder.seed(seed).record, seed).attempts
        ),
        default=NEVER,
    )


def _time(path: Path, text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{path}: started_at is no time: '{plain(text[:40])}'",
            hint="the file was changed after the run: restore it",
        ) from None


def find_run(given: Path, runs: Path) -> Path:
    """The run that `given` names.

    A submission's name, its folder (submissions/NAME) or the folder of its runs (runs/NAME) stands for its
    newest run; any other path that exists stands for itself. Raises UsageError for a name without a run, for
    one with two meanings, and for a damaged record, because it may be the newest.
    """
    by_name = runs / (given.resolve().name if _is_submission(given) else given.name)
    places = [given] if run_folders(given) else []
    if (_is_submission(given) or _is_name(given)) and run_folders(by_name):
        places.append(by_name)
    if len({place.resolve() for place in places}) > 1:
        raise UsageError(
            f"{plain(str(given))}: both {plain(str(given.absolute()))} and {plain(str(by_name))} hold runs",
            hint="give the path of one run folder: `pgolf list` shows them",
        )
    if places:
        newest = max(run_folders(places[0]), key=lambda folder: (last_attempt(folder), folder.path.name))
        return newest.path
    if given.exists() and not _is_submission(given):
        return given
    raise _no_run(given, by_name, runs)


def _is_submission(path: Path) -> bool:
    return (path / "manifest.yaml").is_file()


def _is_name(path: Path) -> bool:
    """Whether the path can stand for a submission's name: NAME, submissions/NAME or runs/NAME."""
    return str(path.parent) in (".", "submissions", "runs") and path.name != ""


def _no_run(given: Path, by_name: Path, runs: Path) -> UsageError:
    known = sorted(path.name for path in runs.iterdir() if run_folders(path)) if runs.is_dir() else []
    near = difflib.get_close_matches(by_name.name, known, n=3)
    if near:
        hint = f"did you mean {plain(' or '.join(near))}?"
    elif known:
        hint = f"there are runs of {plain(', '.join(known))}; `pgolf list` shows them"
    else:
        hint = f"{plain(str(runs))} holds no run yet: `pgolf run submissions/NAME` makes one"
    looked = [given] if str(given) == str(by_name) else [given, by_name]
    places = " and ".join(plain(str(path)) for path in looked)
    return UsageError(f"{plain(str(given))}: no such run: looked for {places}", hint=hint)


def point_latest(run_folder: Path) -> None:
    """Let the link runs/SUBMISSION/latest lead to this run folder, in one step.

    The link is for people only: where it cannot be made (a file system without links, a folder of that name)
    everything stays as it is, and the run goes on.
    """
    new = run_folder.parent / f".{LATEST}.{os.getpid()}"
    with contextlib.suppress(OSError):
        new.unlink(missing_ok=True)
        new.symlink_to(run_folder.name)
        os.replace(new, run_folder.parent / LATEST)
    with contextlib.suppress(OSError):
        new.unlink(missing_ok=True)
