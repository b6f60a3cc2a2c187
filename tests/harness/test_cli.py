"""The console script: its help, and how an error becomes a message, a hint and an exit code."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import re
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from harness import cli
from harness.audit import rulebook
from harness.base.errors import MachineFault, UsageError
from harness.base.exit_codes import ExitCode, first_that_applies
from harness.edition import EDITION
from harness.protocol import PROTOCOL_VERSION
from harness.protocol.frames import Hello
from tests.harness.fakes.command_line import pgolf


def test_the_help_lists_every_command_with_its_line() -> None:
    printed = " ".join(pgolf("--help").stdout.split())
    for name, line in cli.COMMANDS.items():
        assert f"{name} {line}" in printed


def test_the_version_is_that_of_package_protocol_edition_and_commit() -> None:
    done = pgolf("--version")
    assert (done.exit_code, done.stderr) == (0, "")
    version = importlib.metadata.version("pgolf")
    commit = r"(, commit [0-9a-f]{12,}(-dirty)?)?"
    expected = f"pgolf {version}, protocol {PROTOCOL_VERSION}, edition {EDITION}{commit}\n"
    assert re.fullmatch(expected, done.stdout)


def test_the_version_of_the_protocol_is_the_one_that_contestants_must_send() -> None:
    hello = {"op": "hello", "stage": "train"}
    assert Hello.model_validate(hello | {"protocol": PROTOCOL_VERSION})
    with pytest.raises(ValidationError):
        Hello.model_validate(hello | {"protocol": PROTOCOL_VERSION + 1})


def test_an_unknown_command_is_bad_usage() -> None:
    done = pgolf("rnu")
    assert (done.exit_code, "rnu" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such thing", hint="another one"), 2, "error: no such thing\nhint: another one\n"),
        (MachineFault("the engine went away"), 3, "error: the engine went away\n"),
        (KeyboardInterrupt(), 130, "interrupted: the same command does what is left\n"),
    ],
)
def test_an_error_is_said_without_a_traceback(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> None:
        raise error

    assert cli.exit_code_of(failing) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", said)


def test_an_exception_without_a_message_of_its_own_is_a_bug_with_a_traceback_and_where_to_report_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing() -> None:
        raise KeyError("what a contestant \x1b[31mwrote")

    assert cli.exit_code_of(failing) == ExitCode.INTERNAL == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2].startswith("error: this is a bug of pgolf, not of the submission: KeyError: ")
    assert lines[-1].startswith("hint: report it where you got pgolf")
    assert not any("\x1b" in line for line in lines)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Lets `pgolf explain` raise an error."""

    def raise_in_explain(error: BaseException) -> None:
        def failing() -> None:
            raise error

        monkeypatch.setattr(rulebook, "entries", failing)

    return raise_in_explain


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EMFILE])
def test_an_error_of_the_operating_system_is_the_machines(
    number: int, raising: Callable[[BaseException], None]
) -> None:
    raising(OSError(number, os.strerror(number)))
    assert isinstance(pgolf("explain").exception, MachineFault)


def test_an_interrupt_is_said_and_has_its_exit_code(raising: Callable[[BaseException], None]) -> None:
    raising(KeyboardInterrupt())
    done = pgolf("explain")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted: the same command does what is left\n"


def test_a_bug_comes_before_every_other_exit_code() -> None:
    assert first_that_applies([2, 3, 130, 70, 0]) == ExitCode.INTERNAL
