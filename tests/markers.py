"""Markers that follow from a test's fixtures, the order of the tests, and the list of what a run leaves out.

Hooks of pytest, which tests/conftest.py imports. Under pytest-xdist the workers collect, and each of them
finds the same tests in the same order; only the first process reports.

Not covered: `slow`, which the tests themselves carry.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

OF_FIXTURE = {"engine": "engine", "cpu_image": "engine", "shared": "data"}
LEFT_OUT = pytest.StashKey[Counter[str]]()
WORKER_BYTES = 1 << 30
"""Memory of a worker with torch, and of the contestant that it runs."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker for each core that this process may use, as far as the memory allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // WORKER_BYTES))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects, and before xdist adds the groups to the names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by fixtures, keep all engine tests in one worker, and begin with what takes longest.

    One worker: a prune by one test can remove a builder stage that another one needs.
    """
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in OF_FIXTURE:
                item.add_marker(OF_FIXTURE[fixture])
        if item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.xdist_group("engine"))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        reasons = [name for name in ("engine", "slow", "data", "gpu") if item.get_closest_marker(name)]
        item.config.stash[LEFT_OUT][reasons[0] if reasons else "not selected"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker left out; all workers leave out the same."""
    node.config.stash[LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[LEFT_OUT]
    if left_out:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        terminalreporter.write_line(
            f"left out: {left_out.total():,} tests ({counts}); `just test` runs all that can run here",
            yellow=True,
        )
