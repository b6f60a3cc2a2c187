"""The contestant of a command line (`pgolf score --contestant CMD`): a program, its arguments and its
files.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from harness.base.errors import UsageError
from harness.base.text import quote
from harness.run.stages import Contestant

PYTHONS = ("python", "python3")
"""Words that mean the runner's own Python."""
RESERVED = ("artifact.bin", "config.yaml", "tokenizer.model")
"""Names under /in that the judge uses."""


def parse(text: str, contained: bool) -> Contestant:
    """Split a command line; words that name files of this machine become inputs.

    `contained`: the program is looked up in the image, not on this machine. Raises UsageError for a command
    that cannot be started.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--contestant {text!r:.80}: {error}", hint="quotes come in pairs") from error
    if not words:
        raise UsageError("--contestant is empty", hint='--contestant "python docs/examples/order2.py"')
    if scripts := [word for word in words if word.endswith(".py") and not Path(word).is_file()]:
        raise UsageError(f"--contestant: {quote(scripts[0])}: no such file", hint="give its path")
    inputs: dict[str, Path] = {}
    for path in map(Path, words):
        if (
            path.is_file()
            and (path.parent != Path() or path.name not in PYTHONS)
            and not _is_interpreter(path, contained)
        ):
            if path.name in RESERVED or inputs.get(path.name, path) != path:
                raise UsageError(f"{path}: its name is taken under /in", hint="rename the file")
            inputs[path.name] = path
    program, *command = [
        Path(word).name if inputs.get(Path(word).name) == Path(word) else word for word in words
    ]
    if program in PYTHONS:
        return Contestant(None, tuple(command), inputs)
    if program in inputs and not os.access(inputs[program], os.X_OK):
        raise UsageError(
            f"{inputs[program]}: cannot be executed", hint="chmod +x, or name the interpreter before it"
        )
    if program not in inputs and not contained:
        found = shutil.which(program)
        if found is None:
            raise UsageError(f"--contestant: no program {program!r} here", hint="give its path")
        program = str(Path(found).absolute())
    return Contestant(program, tuple(command), inputs)


def _is_interpreter(path: Path, contained: bool) -> bool:
    """A Python of this machine, such as .venv/bin/python, is started where it is and not copied."""
    return not contained and path.name.startswith("python") and os.access(path, os.X_OK)
