"""What errors of the engine mean: real texts of Docker Engine 20.10, and errors of this machine."""

from __future__ import annotations

import errno
import ssl
import types
from pathlib import Path

import docker.errors
import pytest
import requests
import urllib3

from harness.runners.engine_errors import MAX_TEXT, explain, explain_connection, system_error

TEXTS = {
    'invalid mount config for type "bind": bind source path does not exist: /tmp/pgolf-x/in': "TMPDIR",
    "write /var/lib/docker/tmp/GetImageBlob1: no space left on device": "docker system df",
    "No such image: sha256:1111111111111111": "pgolf image build",
    "No such container: 3a6c": "repeat the command",
    "get pgolf-0a1b: no such volume": "repeat the command",
    'could not select device driver "" with capabilities: [[gpu]]': "NVIDIA container toolkit",
    "Unknown runtime specified nvidia": "NVIDIA container toolkit",
    'invalid tmpfs option ["bogus" "3"]': "does not support an option",
    "error while mounting volume '/var/lib/docker/volumes/v/_data': failed to mount local volume: mount "
    "tmpfs:/var/lib/docker/volumes/v/_data, data: size=1m,bogus=9: invalid argument": (
        "does not support an option"
    ),
    'invalid --security-opt 2: "bogus=3"': "does not support an option",
    "Minimum memory limit allowed is 6MB": "does not support an option",
    "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler": (
        "does not support an option"
    ),
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
    'process: exec: "python3": executable file not found in $PATH: unknown': "pgolf image build NAME --force",
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
    'process: exec: "/etc/passwd": permission denied: unknown': "SELinux",
    "client version 1.99 is too new. Maximum supported API version is 1.41": "newer engine",
    "something that nobody has seen yet": "journalctl -u docker",
}


def api_error(text: str, status: int = 500) -> docker.errors.APIError:
    response = types.SimpleNamespace(status_code=status, url="http+docker://localhost/v1.41", reason="r")
    return docker.errors.APIError("error", response=response, explanation=text)


@pytest.mark.parametrize("text", TEXTS)
def test_each_text_of_the_engine_is_shown_with_the_hint_that_fits_it(text: str) -> None:
    message, hint = explain(api_error(text))
    assert message == f"the container engine says: {text}"
    assert TEXTS[text] in hint


def test_a_long_or_hostile_text_is_cut_and_escaped() -> None:
    message, _ = explain(api_error("\x1b[31m" + "x" * 1000))
    assert "\x1b" not in message
    assert len(message) < MAX_TEXT + 50


def test_an_engine_that_goes_away_is_told_apart_from_a_full_disk_of_this_machine(tmp_path: Path) -> None:
    gone = requests.ConnectionError(
        urllib3.exceptions.ProtocolError(
            "Connection aborted.", ConnectionResetError(errno.ECONNRESET, "reset")
        )
    )
    assert explain(gone).message == "the container engine does not answer: reset"
    assert "start it (dockerd)" in explain(gone).hint
    full = explain(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "in")))
    assert f"the disk of {tmp_path}/in" in full.message
    assert "free some room" in full.hint
    missing = explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/code.pyz"))
    assert missing.message == "/nowhere/code.pyz: No such file or directory"
    assert "no such file or folder exists" in missing.hint
    refused = explain(PermissionError(errno.EACCES, "Permission denied", "/secret"))
    assert "change its permissions" in refused.hint


def test_a_time_out_is_named_as_one() -> None:
    slow = requests.ReadTimeout(urllib3.exceptions.ReadTimeoutError(None, "/", "Read timed out."))  # type: ignore[arg-type]
    assert "timed out" in explain(slow).message.lower()


def test_a_certificate_that_does_not_match_is_a_failure_of_tls() -> None:
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")
    error = requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", inner))  # type: ignore[arg-type]
    assert system_error(error) is inner
    message, hint = explain_connection(error, "tcp://10.0.0.1:2376", "DOCKER_HOST")
    assert message.startswith("TLS with the container engine at tcp://10.0.0.1:2376 (DOCKER_HOST) failed")
    assert "DOCKER_CERT_PATH" in hint
