"""The console script `pgolf`: the list of commands, and errors as exit codes.

Each command is a file in harness/commands, loaded only when it is used. Results go to stdout, messages to
stderr; exit codes: harness/base/exit_codes.py.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from harness.base.bug import describe_bug
from harness.base.disk import machine_fault
from harness.base.errors import HarnessError
from harness.base.exit_codes import ExitCode
from harness.base.output import protect_streams
from harness.base.paths import ROOT
from harness.base.signals import INTERRUPTED, interrupt_on_ending_signals
from harness.edition import EDITION
from harness.protocol import PROTOCOL_VERSION

COMMANDS = {
    "run": "Train, pack, score and judge a submission.",
    "all": "Run every submission on both runners.",
    "ablate": "Switch each technique of a submission off in turn.",
    "check": "Look at a submission without training it.",
    "rescore": "Score the packed artifacts of a run again.",
    "score": "Judge any program that speaks docs/protocol.md.",
    "list": "List the runs, the newest first.",
    "compare": "Compare two runs document by document.",
    "report": "Show the verdict of a run again.",
    "codecs": "Measure lossless coders on a trained checkpoint.",
    "export": "Write a finished run as a record folder.",
    "audit": "Read published record folders and run nothing.",
    "explain": "Explain a rule or condition, or list them all.",
    "schema": "Print a JSON schema.",
    "data": "Prepare and verify datasets.",
    "image": "Build, lock and verify container images.",
    "doctor": "Say what this machine can do.",
    "clean": "Remove leftovers of dead runs, and cached wheels.",
}
"""Name -> one line of help; harness/commands/<name>.py holds the command."""


class _LazyGroup(TyperGroup):
    """Loads the module of a command when the command is asked for."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. typer itself would exit with 1 for a broken pipe and say nothing of an
        interrupt.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise
        except OSError as error:
            raise machine_fault(error) from error
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return typer.main.get_command(importlib.import_module(f"harness.commands.{cmd_name}").app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def describe_version() -> str:
    """Versions of the package, the protocol and the rules; in a checkout also the commit, and whether files
    differ from it.
    """
    commit = ""
    if (ROOT / ".git").exists() and (git := shutil.which("git")):
        describe = ("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
        words = [git, "--no-optional-locks", "-C", str(ROOT), *describe]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        commit = f", commit {done.stdout.strip()}" if done.returncode == 0 else ""
    try:
        version = importlib.metadata.version("pgolf")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    return f"pgolf {version}, protocol {PROTOCOL_VERSION}, edition {EDITION}{commit}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(describe_version())
        raise typer.Exit


@app.callback()
def pgolf(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Train, pack, score and judge Parameter Golf submissions, under limits enforced from outside."""


def main() -> None:
    """Run the command line."""
    interrupt_on_ending_signals()
    protect_streams()
    sys.exit(exit_code_of(app))


def exit_code_of(command: Callable[[], object]) -> int:
    """Run `command` and say on stderr which error ended it; only a bug is shown with its traceback.

    A SystemExit, which carries its exit code, passes.
    """
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # here, where a failure still gets its exit code
    except HarnessError as error:
        message, code = f"error: {error}", error.exit_code
    except KeyboardInterrupt:
        message, code = INTERRUPTED, ExitCode.INTERRUPTED
    except Exception as error:
        message, code = describe_bug(error), ExitCode.INTERNAL
    else:
        return ExitCode.VALID
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
