"""Fixtures that many tests share: the optional folder of real data, and the container engine."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real tokenizers and FineWeb text kept beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data folder beside the checkout ({folder.name}/ is absent)")
    return folder
