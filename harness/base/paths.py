"""Where things live outside a run folder: the checkout, and the cache for datasets, wheels and owners' locks.

`PGOLF_HOME` moves the cache; its default is the platform's cache folder. Not covered: run folders
(rundir.py)."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parents[2]
"""The checkout that holds submissions/, images/ and golf/."""


def home() -> Path:
    """The folder for caches and datasets."""
    return Path(os.environ.get("PGOLF_HOME") or platformdirs.user_cache_dir("pgolf"))
