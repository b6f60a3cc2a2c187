"""The kernel's counters of a container, from made-up control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runners import control_group
from harness.runners.control_group import ControlGroup, Counts

ID = "f00d" * 16
MB = 1_000_000
PROCESSES = {"pids.events": "max 3\n", "pids.max": "513\n", "pids.peak": "513\n", "pids.current": "4\n"}


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
    files(tmp_path / "cgroups" / "pids" / "docker" / ID, PROCESSES)
    return tmp_path


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    """The same with version 2, by systemd's names."""
    files(tmp_path / "proc" / "7", {"cgroup": f"0::/system.slice/docker-{ID}.scope\n"})
    contents = {
        "memory.events": "low 0\nhigh 0\nmax 51\noom 1\noom_kill 2\noom_group_kill 0\n",
        "memory.peak": f"{63 * MB}\n",
        **PROCESSES,
    }
    files(tmp_path / "cgroups" / "system.slice" / f"docker-{ID}.scope", contents)
    return tmp_path


def counts(machine: Path) -> Counts | None:
    group = control_group.of_container(7, ID, machine / "proc", machine / "cgroups")
    return group and group.counts()


@pytest.mark.parametrize(("version", "reached"), [("version_1", None), ("version_2", True)])
def test_kills_peak_and_refused_processes_are_read_in_both_versions(
    version: str, reached: bool | None, request: pytest.FixtureRequest
) -> None:
    assert counts(request.getfixturevalue(version)) == Counts(2, reached, 63 * MB, 3, True)


def test_in_version_1_a_full_group_above_may_have_caused_the_kills(version_1: Path) -> None:
    above = version_1 / "cgroups" / "memory" / "docker"
    files(above, {"memory.max_usage_in_bytes": f"{100 * MB}\n", "memory.limit_in_bytes": f"{1 << 62}\n"})
    assert counts(version_1) == Counts(2, None, 63 * MB, 3, True)
    files(above, {"memory.limit_in_bytes": f"{101 * MB}\n"})
    assert counts(version_1) == Counts(2, False, 63 * MB, 3, True)


def test_version_2_says_itself_whether_the_group_reached_its_limit(version_2: Path) -> None:
    folder = version_2 / "cgroups" / "system.slice" / f"docker-{ID}.scope"
    (folder / "memory.events").write_text("max 0\noom 0\noom_kill 2\n")
    (folder / "memory.peak").unlink()  # before Linux 5.19
    assert counts(version_2) == Counts(2, False, None, 3, True)


def test_a_group_that_stayed_below_its_limit_of_processes_did_not_reach_it(version_1: Path) -> None:
    files(version_1 / "cgroups" / "pids" / "docker" / ID, {"pids.peak": "12\n"})
    assert counts(version_1) == Counts(2, None, 63 * MB, 3, False)


def refused_without_peak(machine: Path, above: str) -> ControlGroup:
    """A group that was refused processes by a kernel that keeps no peak, below one with this pids.max."""
    slice = machine / "cgroups" / "system.slice"
    (slice / f"docker-{ID}.scope" / "pids.peak").unlink()
    files(slice, {"pids.max": above, "cgroup.procs": ""})
    group = control_group.of_container(7, ID, machine / "proc", machine / "cgroups")
    assert group is not None
    return group


def test_where_the_kernel_keeps_no_peak_of_processes_the_most_that_were_seen_count(version_2: Path) -> None:
    group = refused_without_peak(version_2, above="1000\n")
    for now, reached in ((12, False), (500, True), (3, True)):
        (group.pids / "pids.current").write_text(f"{now}\n")
        assert group.counts() == Counts(2, True, 63 * MB, 3, reached)


def test_where_no_group_above_limits_processes_the_group_itself_refused_them(version_2: Path) -> None:
    group = refused_without_peak(version_2, above="max\n")
    hidden = group.counts()
    files(version_2 / "cgroups", {"cgroup.procs": ""})
    seen = group.counts()
    (group.pids / "pids.events").write_text("max 0\n")
    none = group.counts()
    assert hidden and seen and none
    assert not hidden.reached_process_limit, "the topmost that is seen is not the machine's"
    assert seen.reached_process_limit
    assert not none.reached_process_limit


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
