"""Fixtures that many tests share: the optional folder of real data, the container engine, and folders that
are made once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import docker
import docker.errors
import pytest
import requests

from harness.base.paths import ROOT
from harness.runners.base import SPIN_COUNT
from harness.runners.images import build
from tests.markers import (  # noqa: F401 (hooks of pytest)
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_deselected,
    pytest_make_parametrize_id,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_xdist_auto_num_workers,
)
from tests.once import Once

# Before anything imports torch. One thread: the workers share the cores, small models gain nothing by more
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Folders that are made once a test run, whichever worker needs them first."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    root.mkdir(exist_ok=True)
    return Once(root)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real tokenizers and FineWeb text kept beside the checkout; tests that need it skip where it is
    absent.
    """
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data folder beside the checkout ({folder.name}/ is absent)")
    return folder


def _no_engine(reason: str) -> NoReturn:
    """Skip; fail where PGOLF_REQUIRE_ENGINE says that an engine was set up, so that nothing skips unseen."""
    if os.environ.get("PGOLF_REQUIRE_ENGINE"):
        pytest.fail(f"PGOLF_REQUIRE_ENGINE is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of the container engine; skips where none answers."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException) as error:
        _no_engine(f"no container engine answers ({error})")
    yield client
    client.close()


@pytest.fixture(scope="session")
def cpu_image(engine: docker.DockerClient) -> str:
    """The id of the CPU image for today's lock; skips where it is not built."""
    found = build.find(engine, "cpu")
    return found or _no_engine("the CPU image is not built: pgolf image build cpu")
