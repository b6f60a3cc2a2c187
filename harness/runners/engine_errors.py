"""What an error of the container engine means, in words, with what to do about it.

The engine reports most failures as free text. The table below knows the texts of Docker Engine 20.10 to 28;
any other text is shown as it is, with a hint to the engine's own log. Nothing here asks the engine anything.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import ssl
from typing import NamedTuple

import docker.errors
import requests

from harness.base import disk
from harness.base.address import without_secrets
from harness.base.text import cut, plain

MAX_TEXT = 400
REPEAT = "repeat the command: finished stages are kept"
LOG_HINT = f"the engine's own log says more (`journalctl -u docker`); then {REPEAT}"
GONE_HINT = f"the engine stopped or was restarted: start it (dockerd) and {REPEAT}"
OPTION_HINT = (
    "the engine or its kernel does not support an option that every stage needs: use Docker Engine 20.10 or "
    "newer on Linux, or --runner local, which isolates nothing"
)
NO_PROGRAM = (
    "name a program that the image has; where that is python3, `pgolf image build NAME --force` helps"
)
OTHER_FILES = (
    "the engine does not see this machine's files, because it runs on another machine or in a virtual one: "
    "use an engine on this machine, or set TMPDIR to a folder that the engine shares"
)
API_HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("no space left on device", "disk quota exceeded"),
        f"the disk of the engine is full: free some room there (`docker system df`), and {REPEAT}",
    ),
    (("bind source path does not exist", "is not shared from", "mounts denied"), OTHER_FILES),
    (("no such image",), "the image was removed from the engine: `pgolf image build cpu` (or cuda) makes it"),
    (
        ("no such container", "no such volume", "is not running"),
        f"somebody removed or stopped it while the run used it: {REPEAT}",
    ),
    (
        ("could not select device driver", "unknown runtime specified", "nvidia-container-cli", "nvidia-smi"),
        "the engine gives containers no GPU: install the NVIDIA container toolkit, or --profile pocket",
    ),
    (
        ("docker-init",),
        "the engine lacks its init program, which ends a container like a process: install `tini` beside it",
    ),
    (("executable file not found", "exec format error"), NO_PROGRAM),
    (
        (
            "invalid tmpfs option",
            "failed to mount local volume",
            "volume plugin",
            "logging plugin",
            "security-opt",
            "does not support",
            "not supported",
            "unsupported",
            "limit allowed",
            "pids",
            "cgroup",
            "seccomp",
            "invalid argument",
        ),
        OPTION_HINT,
    ),
    (
        ("cannot allocate memory", "out of memory"),
        f"this machine has no memory left: end other programs, and {REPEAT}",
    ),
    (("client version",), "client and engine share no version of the engine's API: use a newer engine"),
    (
        ("permission denied", "operation not permitted", "authorization denied"),
        "the engine was refused this by its machine: a rootless engine, SELinux or AppArmor may forbid it; "
        "the engine's own log says more (`journalctl -u docker`)",
    ),
)
"""Parts of what the engine says, in lower case -> what to do about it. The first match counts."""


class Explanation(NamedTuple):
    """What failed, and what to do about it."""

    message: str
    hint: str


def explain(error: Exception) -> Explanation:
    """An error from a call to the engine, or of this machine's files during one."""
    if isinstance(error, docker.errors.APIError):
        text = str(error.explanation or error)
        return Explanation(f"the container engine says: {_shown(text)}", hint_of(text))
    system = system_error(error)
    if isinstance(error, docker.errors.DockerException | requests.RequestException | ConnectionError):
        text = (system.strerror or str(system)) if system else str(error)
        return Explanation(f"the container engine does not answer: {_shown(text)}", GONE_HINT)
    if system is not None:  # of a file, such as a copy of an input
        fault = disk.machine_fault(system)
        return Explanation(fault.message, fault.hint)
    return Explanation(_shown(str(error) or type(error).__name__), LOG_HINT)


def hint_of(text: str) -> str:
    """What to do about a failure that the engine tells in this text."""
    lower = text.lower()
    return next((hint for parts, hint in API_HINTS if any(part in lower for part in parts)), LOG_HINT)


def explain_connection(error: Exception, url: str, named_by: str) -> Explanation:
    """Why no connection to the engine at `url` came about.

    `named_by`: what names the address, such as DOCKER_HOST; empty for the default socket.
    """
    system, path = system_error(error), url.removeprefix("unix://") if url.startswith("unix://") else None
    place = f"{plain(path) if path else without_secrets(url)}{f' ({named_by})' if named_by else ''}"
    number = system.errno if system else None
    text = _shown((system.strerror or str(system)) if system else str(error) or type(error).__name__)
    check = "start the engine (dockerd, or Docker Desktop)" + (f", or correct {named_by}" if named_by else "")
    if path and number in (errno.EACCES, errno.EPERM):
        return Explanation(f"this user may not use the container engine's socket {place}", _group_hint(path))
    if path and number == errno.ENOENT:
        return Explanation(f"no container engine answers: there is no socket {place}", check)
    if isinstance(system, ssl.SSLError) or isinstance(error, docker.errors.TLSParameterError):
        hint = "look at DOCKER_TLS_VERIFY, and at the certificates in DOCKER_CERT_PATH (default ~/.docker)"
        return Explanation(f"TLS with the container engine at {place} failed: {text}", hint)
    if system is None and not isinstance(error.__cause__, requests.RequestException | ValueError):
        hint = "write it as unix:///PATH or tcp://HOST:PORT"
        why = "" if "@" in url else f": {text}"  # the text may repeat the address with its password
        return Explanation(f"the address of the container engine, {place}, cannot be used{why}", hint)
    if isinstance(system, socket.gaierror):
        return Explanation(f"the host of the container engine at {place} is not known: {text}", check)
    return Explanation(f"the container engine at {place} does not answer: {text}", check)


def system_error(error: BaseException) -> OSError | None:
    """The error of the operating system or of TLS inside an error of docker-py, requests or urllib3, which
    keep it as a cause, an argument or a reason.
    """
    pending, seen = [error], set[int]()
    for each in pending:
        if isinstance(each, ssl.SSLError | TimeoutError) or (isinstance(each, OSError) and each.errno):
            return each
        seen.add(id(each))
        inner = (*each.args, each.__cause__, getattr(each, "reason", None))
        pending += [found for found in inner if isinstance(found, BaseException) and id(found) not in seen]
    return None


def _group_hint(path: str) -> str:
    """Which group may use the socket, and how a user gets into it."""
    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return "ask for permission to use it, or use an account that has it"
    if group == "root":
        return f"only root may use it: `sudo chgrp docker {plain(path)}`, or use an account that may"
    return f"its group is {group}: `sudo usermod -aG {group} $USER`, then log in again"


def _shown(text: str) -> str:
    return cut(plain(text), MAX_TEXT)
