"""Markers that follow from a test's fixtures, the order of the tests, and the list of what a run leaves out.

Hooks of pytest, which tests/conftest.py imports. Under pytest-xdist the workers collect, and each of them
finds the same tests in the same order; only the first process reports.

Not covered: `slow`, which the tests themselves carry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from harness.base import host

OF_FIXTURE = {"engine": "engine", "cpu_image": "engine", "shared": "data"}
GROUPS = {
    "engine": "engine",
    "described": "golf describe",
    "pocket_set": "pocket",
    "run_folder": "golf run",
    "trained": "golf stages",
}
"""Marker or fixture -> the group of tests that one worker runs. A prune by one engine test can remove what
another one needs, and a worker that waits for a fixture which another one makes does nothing."""
LEFT_OUT = pytest.StashKey[Counter[str]]()
WORKER_BYTES = 1 << 30
"""Memory of a worker with torch, and of the contestant that it runs."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker for each core that this process may use, as far as the memory allows."""
    return max(1, min(host.usable_cores() or 1, psutil.virtual_memory().available // WORKER_BYTES))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()


def pytest_make_parametrize_id(val: object) -> str | None:
    """The beginning of a long text: a test's name is printed, and sent between processes."""
    if isinstance(val, str | bytes) and len(val) > 60:
        return f"{val[:40]!r}..."
    return None


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects, and before xdist adds the groups to the names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by fixtures, keep the tests of a group in one worker, and begin with what takes longest."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for marker in {OF_FIXTURE[fixture] for fixture in fixtures & set(OF_FIXTURE)}:
            item.add_marker(marker)
        names = fixtures | {marker.name for marker in item.iter_markers()}
        for group in {GROUPS[name] for name in names & set(GROUPS)}:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        by_marker_alone = item.config.getoption("markexpr") and not item.config.getoption("keyword")
        reasons = [name for name in ("engine", "slow", "data", "gpu") if item.get_closest_marker(name)]
        item.config.stash[LEFT_OUT][reasons[0] if reasons and by_marker_alone else "not selected"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker left out; all workers leave out the same."""
    if output := getattr(node, "workeroutput", None):  # a worker that crashed has none
        node.config.stash[LEFT_OUT] = Counter(output["left_out"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[LEFT_OUT]
    if left_out:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        terminalreporter.write_line(
            f"left out: {left_out.total():,} tests ({counts}); `just test` runs all that can run here",
            yellow=True,
        )
