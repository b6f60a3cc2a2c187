"""Run pip with the user's choice of package index, and with no other setting of the user's.

Settings that move packages or choose others (PIP_TARGET, PIP_USER, PIP_CONSTRAINT, `prefix =` in pip.conf,
PYTHONPATH, ...) would break what is installed or downloaded here. pip's own --isolated drops those of the
index too. So pip's files are read by `pip config list`, the settings in KEPT are passed on as variables, and
pip itself reads no file.

The Justfile's set-up runs this file, before anything is installed: python -P pip_settings.py install ...
It imports nothing but the standard library.

Not covered: passwords of an index in ~/.netrc or a keyring, which pip reads as always.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

PIP = (sys.executable, "-P", "-m", "pip")
KEPT = frozenset(
    {
        *("index-url", "pypi-url", "extra-index-url", "find-links", "no-index", "trusted-host"),
        *("cert", "client-cert", "proxy", "keyring-provider", "use-feature", "use-deprecated"),
        *("cache-dir", "no-cache-dir", "timeout", "default-timeout", "retries", "resume-retries"),
    }
)
"""pip's options that say where packages come from and how they are reached."""
LINE = re.compile(r"(?P<section>[\w-]+)\.(?P<key>[\w-]+)=(?P<value>'.*'|\".*\")")


def _without_settings() -> dict[str, str]:
    """The environment without pip's variables and without those of Python's start, such as PYTHONPATH."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIP_") and not re.fullmatch(r"PYTHON[A-Z0-9]+", name)
    }


def _run(
    arguments: list[str], variables: dict[str, str], seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pip without a terminal, for at most `seconds`."""
    return subprocess.run(
        [*PIP, *arguments],
        env=variables,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _configured(command: str) -> dict[str, str]:
    """The settings that pip's files make for `pip <command>`, by option."""
    variables = _without_settings()
    if "PIP_CONFIG_FILE" in os.environ:
        variables["PIP_CONFIG_FILE"] = os.environ["PIP_CONFIG_FILE"]
    # -vvv: a `quiet` in the file would silence the list
    done = _run(["config", "list", "-vvv"], variables)
    if done.returncode:
        # Without pip's own words: they quote the line that it stopped at, which may hold a password
        print(
            "pip cannot read its configuration files, going on without them; `pip config debug` names them",
            file=sys.stderr,
        )
    found: dict[str, dict[str, str]] = {"global": {}, command: {}}
    for match in map(LINE.fullmatch, done.stdout.splitlines()):
        if match and match["section"] in found:
            found[match["section"]][match["key"]] = str(ast.literal_eval(match["value"]))
    return {**found["global"], **found[command]}


def environment(command: str) -> dict[str, str]:
    """The environment to run `pip <command>` in, e.g. `download`."""
    set_by_variables = {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("PIP_") and value
    }
    chosen = {**_configured(command), **set_by_variables}
    return {
        **_without_settings(),
        **{f"PIP_{key.upper().replace('-', '_')}": value for key, value in chosen.items() if key in KEPT},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def download(
    requirement: str, folder: Path, *options: str, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `pip download` for one wheel, whose hash pip checks; the caller looks at the exit code.

    `requirement`: a line of a lock, with `--hash`; it is left in `folder`, beside the wheel. Raises
    subprocess.TimeoutExpired after `seconds`.
    """
    listing = folder / "requirement.txt"
    listing.write_text(requirement, encoding="utf-8")
    flags = ("-qq", "--no-deps", "--only-binary=:all:", "--require-hashes")
    arguments = ["download", *flags, *options, "--dest", str(folder), "--requirement", str(listing)]
    return _run(arguments, {**environment("download"), "PYTHONWARNINGS": "ignore"}, seconds)


def main(arguments: list[str]) -> None:
    """Become `pip <arguments>`; the first one is pip's command."""
    os.execve(sys.executable, [*PIP, *arguments], environment(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
