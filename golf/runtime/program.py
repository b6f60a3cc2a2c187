"""The program that runs: how many bytes of it are counted."""

from __future__ import annotations

import sys
from pathlib import Path


def code_bytes() -> int:
    """Size of the program that runs: the bundle itself, or the sources where it runs unbundled (then too
    large)."""
    program = Path(sys.argv[0])
    if program.suffix == ".pyz":
        return program.stat().st_size
    return sum(path.stat().st_size for path in Path(__file__).parents[1].rglob("*.py"))
