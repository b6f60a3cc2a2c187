"""The kernel's counters of a container, from made-up control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runners import control_group
from harness.runners.control_group import Counts

ID = "f00d" * 16
MB = 1_000_000


def files(folder: Path, contents: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content)


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """Folders proc/ and cgroups/ of a machine with version 1, where process 7 is the container's first."""
    lines = f"8:pids:/docker/{ID}\n4:memory:/docker/{ID}\n1:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n"
    files(tmp_path / "proc" / "7", {"cgroup": lines})
    memory = {
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory.max_usage_in_bytes": f"{63 * MB}\n",
        "memory.limit_in_bytes": f"{64 * MB}\n",
    }
    files(tmp_path / "cgroups" / "memory" / "docker" / ID, memory)
    files(tmp_path / "cgroups" / "pids" / "docker" / ID, {"pids.events": "max 3\n"})
    return tmp_path


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    """The same with version 2, by systemd's names."""
    files(tmp_path / "proc" / "7", {"cgroup": f"0::/system.slice/docker-{ID}.scope\n"})
    contents = {
        "memory.events": "low 0\nhigh 0\nmax 51\noom 1\noom_kill 2\noom_group_kill 0\n",
        "memory.peak": f"{63 * MB}\n",
        "pids.events": "max 3\n",
    }
    files(tmp_path / "cgroups" / "system.slice" / f"docker-{ID}.scope", contents)
    return tmp_path


def counts(machine: Path) -> Counts | None:
    group = control_group.of_container(7, ID, machine / "proc", machine / "cgroups")
    return group and group.counts()


@pytest.mark.parametrize("version", ["version_1", "version_2"])
def test_kills_peak_and_refused_processes_are_read_in_both_versions(
    version: str, request: pytest.FixtureRequest
) -> None:
    assert counts(request.getfixturevalue(version)) == Counts(2, True, 63 * MB, 3)


def test_a_group_far_below_its_limit_did_not_reach_it(version_1: Path) -> None:
    memory = version_1 / "cgroups" / "memory" / "docker" / ID
    (memory / "memory.max_usage_in_bytes").write_text(f"{20 * MB}\n")
    assert counts(version_1) == Counts(2, False, 20 * MB, 3)


def test_version_2_says_itself_whether_the_group_reached_its_limit(version_2: Path) -> None:
    folder = version_2 / "cgroups" / "system.slice" / f"docker-{ID}.scope"
    (folder / "memory.events").write_text("max 0\noom 0\noom_kill 2\n")
    (folder / "memory.peak").unlink()  # before Linux 5.19
    assert counts(version_2) == Counts(2, False, None, 3)


def test_the_group_of_another_process_with_the_same_pid_is_not_read(version_1: Path) -> None:
    (version_1 / "proc" / "7" / "cgroup").write_text("8:pids:/user\n4:memory:/user\n")
    assert counts(version_1) is None


def test_a_group_that_is_not_on_this_machine_is_not_read(tmp_path: Path) -> None:
    assert counts(tmp_path) is None
    files(tmp_path / "proc" / "7", {"cgroup": f"0::/docker/{ID}\n"})
    assert counts(tmp_path) is None


def test_a_group_that_has_gone_has_no_counts(version_1: Path) -> None:
    group = control_group.of_container(7, ID, version_1 / "proc", version_1 / "cgroups")
    assert group is not None
    (group.memory / "memory.oom_control").unlink()
    assert group.counts() is None
