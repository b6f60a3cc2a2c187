"""Connecting to the engine: which address is taken, and why none answers."""

from __future__ import annotations

import grp
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import docker
import pytest

from harness.base.errors import MachineFault
from harness.base.paths import ROOT
from harness.runners import docker_engine
from harness.runners.docker_engine import NoEngine, connect, require_limits

AS_ANOTHER_USER = """
import os, sys
import docker, requests, urllib3.util.ssltransport
from harness.runners import docker_engine
docker_engine.DEFAULT_SOCKET = sys.argv[1]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    docker_engine.connect()
except docker_engine.NoEngine as error:
    print(error, error.required, error.absent, sep="\\n")
"""


def refusal() -> NoEngine:
    with pytest.raises(NoEngine) as caught:
        connect()
    return caught.value


def write_context(folder: Path, name: str, url: str) -> Path:
    """Writes docker's configuration, whose current context names an engine at `url`; returns the context's
    file.
    """
    place = folder / "contexts" / "meta" / docker.context.config.get_context_id(name)
    place.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"currentContext": name}))
    endpoints = {"docker": {"Host": url, "SkipTLSVerify": False}}
    (place / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
    return place / "meta.json"


@pytest.fixture
def dead_socket(tmp_path: Path) -> Path:
    """A socket that nothing listens on, as a stopped engine may leave it."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    return path


def test_a_machine_without_an_engine_has_none_and_nothing_requires_one(no_engine: None) -> None:
    error = refusal()
    assert (error.absent, error.required) == (True, False)
    assert "there is no socket" in error.message


def test_a_default_socket_that_refuses_is_no_missing_engine(
    no_engine: None, dead_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "DEFAULT_SOCKET", str(dead_socket))
    error = refusal()
    assert (error.absent, error.required) == (False, False)
    assert error.message == f"the container engine at {dead_socket} does not answer: Connection refused"
    assert error.hint == "start the engine (dockerd, or Docker Desktop)"


def test_a_socket_without_permission_is_told_with_its_group_and_the_command(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pgolf-test-"))  # not in tmp_path, where another user sees nothing
    try:
        folder.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as served:
            served.bind(str(folder / "s"))
            served.listen()
            group = grp.getgrgid(1 if os.geteuid() == 0 else os.getegid()).gr_name
            shutil.chown(folder / "s", group=group)
            (folder / "s").chmod(0)
            done = subprocess.run(
                [sys.executable, "-c", AS_ANOTHER_USER, str(folder / "s")],
                cwd=ROOT,
                env={"PATH": os.defpath, "DOCKER_CONFIG": str(folder)},
                capture_output=True,
                text=True,
                check=True,
            )
    finally:
        shutil.rmtree(folder)
    assert done.stdout.splitlines() == [
        f"this user may not use the container engine's socket {folder}/s",
        f"hint: its group is {group}: `sudo usermod -aG {group} $USER`, then log in again",
        "False",
        "False",
    ]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("unix:///nowhere/s", "no container engine answers: there is no socket /nowhere/s (DOCKER_HOST)"),
        (
            "tcp://127.0.0.1:1",
            "the container engine at tcp://127.0.0.1:1 (DOCKER_HOST) does not answer: Connection refused",
        ),
        ("bogus://x", "the address of the container engine, bogus://x (DOCKER_HOST), cannot be used"),
        ("npipe://x", "the address of the container engine, npipe://x (DOCKER_HOST), cannot be used: named"),
        (
            "tcp://127.0.0.1:1:2",
            "the address of the container engine, tcp://127.0.0.1:1:2 (DOCKER_HOST), cannot",
        ),
    ],
)
def test_docker_host_that_does_not_answer_is_required_and_named(
    host: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    error = refusal()
    assert error.message.startswith(message)
    assert (error.required, error.absent, error.exit_code) == (True, False, 3)
    assert "DOCKER_HOST" in error.hint or error.hint == "write it as unix:///PATH or tcp://HOST:PORT"


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({"MemoryLimit": False, "PidsLimit": True}, "the memory of a container"),
        ({"MemoryLimit": False, "PidsLimit": False}, "the memory and the number of processes of a container"),
    ],
)
def test_an_engine_that_drops_a_limit_with_a_warning_is_refused(facts: dict[str, bool], missing: str) -> None:
    client: Any = types.SimpleNamespace(info=lambda: facts)
    with pytest.raises(MachineFault, match=f"does not limit {missing}"):
        require_limits(client)


def test_an_engine_that_enforces_the_limits_or_does_not_say_is_taken(engine: docker.DockerClient) -> None:
    require_limits(engine)
    silent: Any = types.SimpleNamespace(info=dict)
    require_limits(silent)


def test_an_empty_docker_host_names_nothing(no_engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "")
    assert refusal().absent


def test_certificates_that_are_missing_are_a_failure_of_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    error = refusal()
    assert error.message.startswith("TLS with the container engine at tcp://127.0.0.1:1 (DOCKER_HOST) failed")
    assert "DOCKER_CERT_PATH" in error.hint


def test_the_current_context_of_docker_is_followed_and_named(
    no_engine: None, dead_socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    write_context(tmp_path / "config", "desktop-linux", f"unix://{dead_socket}")
    error = refusal()
    assert f"{dead_socket} (docker context desktop-linux) does not answer" in error.message
    assert (error.required, error.absent) == (False, False)


@pytest.mark.parametrize(
    "content",
    [
        "{ bad",
        "[" * 100_000,
        "[]",
        "5",
        "null",
        '{"currentContext": 5}',
        '{"auths": 5}',
        '{"proxies": 5}',
        '{"HttpHeaders": 5}',
        '{"detachKeys": 5}',
    ],
)
def test_a_configuration_of_docker_that_cannot_be_read_or_holds_other_values_is_named(
    content: str, no_engine: None, dead_socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "DEFAULT_SOCKET", str(dead_socket))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(content)
    error = refusal()
    assert error.message.startswith(f"docker's configuration {tmp_path}/config.json cannot be used")
    assert (error.required, error.absent) == (False, False)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "device", "large"])
def test_a_configuration_of_docker_without_an_end_is_named_and_not_read(
    kind: str,
    named: bool,
    no_engine: None,
    dead_socket: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "config.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b" " * (docker_engine.MAX_CONFIGURATION_BYTES + 1))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if named:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{dead_socket}")
    error = refusal()
    assert error.message.startswith(f"docker's configuration {path} cannot be used: expected a regular file")
    assert (error.required, error.absent) == (named, False)


def test_a_link_to_a_configuration_of_docker_is_followed(
    no_engine: None, dead_socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    write_context(tmp_path / "config", "mine", f"unix://{dead_socket}")
    (tmp_path / "config" / "config.json").rename(tmp_path / "elsewhere")
    (tmp_path / "config" / "config.json").symlink_to(tmp_path / "elsewhere")
    assert "(docker context mine) does not answer" in refusal().message


@pytest.mark.parametrize(
    "content", ['{"currentContext": ""}', '{"currentContext": null, "detachKeys": null}', "{}", "", " \n"]
)
def test_a_configuration_that_names_no_context_means_the_default_socket(
    content: str, no_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(content)
    assert "there is no socket" in refusal().message


@pytest.mark.parametrize(
    "address",
    [
        "tcp://me:secret@127.0.0.1:1",
        "bogus://me:secret@x",
        "me:secret@x:1",
        "tcp://me:sec/secret@x:1",
        "https://me:secret@x:1/?token=secret",
    ],
)
def test_no_message_shows_the_password_of_docker_host(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    error = refusal()
    assert "...@" in error.message and "cannot be used" in error.message
    assert "secret" not in str(error)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_context_that_the_environment_names_must_exist(
    damaged: bool, no_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    if damaged:
        write_context(tmp_path / "config", "mine", "unix:///s").write_text("{")
    error = refusal()
    assert error.required
    assert f"docker context mine {'cannot be read' if damaged else 'does not exist'}" in error.message
    assert "docker context ls" in error.hint
