"""The console script: its help, and how an error becomes a message, a hint and an exit code."""

from __future__ import annotations

import pytest

from harness import cli
from harness.base.errors import MachineFault, UsageError
from tests.harness.fakes.command_line import pgolf


def test_the_help_lists_every_command_with_its_line() -> None:
    printed = " ".join(pgolf("--help").stdout.split())
    for name, line in cli.COMMANDS.items():
        assert f"{name} {line}" in printed


def test_an_unknown_command_is_bad_usage() -> None:
    done = pgolf("rnu")
    assert (done.exit_code, "rnu" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such thing", hint="another one"), 2, "error: no such thing\nhint: another one\n"),
        (MachineFault("the engine went away"), 3, "error: the engine went away\n"),
        (OSError(28, "No space left on device"), 3, "hint: check disk space and permissions"),
        (KeyboardInterrupt(), 130, "interrupted: the same command resumes where this one stopped\n"),
    ],
)
def test_an_error_is_said_without_a_traceback(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli, "app", failing)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest's own handlers stay
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    printed = capsys.readouterr()
    assert (printed.out, said in printed.err, "Traceback" in printed.err) == ("", True, False)
