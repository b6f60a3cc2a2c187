"""Paths outside a run folder: the checkout, and the cache for datasets, wheels and owners' locks.

`PGOLF_HOME` sets the cache folder; the default is the platform's. Run folders: harness/run/folder.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, which holds submissions/, images/ and golf/."""


def home() -> Path:
    """The folder for caches and datasets."""
    return Path(os.environ.get("PGOLF_HOME") or platformdirs.user_cache_dir("pgolf"))
