"""The size of the running program, which counts towards the byte limit."""

from __future__ import annotations

import sys
from pathlib import Path


def code_bytes() -> int:
    """Size of the bundle; when run from source, of all of golf's sources, which is more than would count."""
    program = Path(sys.argv[0])
    if program.suffix == ".pyz":
        return program.stat().st_size
    return sum(path.stat().st_size for path in Path(__file__).parents[1].rglob("*.py"))
