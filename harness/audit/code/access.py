"""What a program reaches for: validation shards to train on, the network, files of code that nothing counts.

R1, R4 of the README: no network and no training text at evaluation, no validation text during training, and
all code counted. Not covered: what other programs do that a script starts; files of data read at evaluation
(the size checks list those)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.audit.code.reach import Program
from harness.audit.code.shape import called, quote, root
from harness.audit.finding import Finding

TRAIN_NAME = re.compile(r"^train_(files|pattern|glob|shards|path|data)$")
NETWORK = {
    "hf_hub_download",
    "snapshot_download",
    "urlopen",
    "urlretrieve",
    "load_dataset",
    "create_connection",
}
SHELL = re.compile(r"['\"\s/](curl|wget|git clone|pip install|aws s3|gsutil) ?")


def trains_on_validation(program: Program) -> Iterator[Finding]:
    """The name of the training files bound to the pattern of the validation files."""
    for live in program.live:
        for part in live.nodes:
            if not isinstance(part, ast.Assign):
                continue
            target = part.targets[0]
            name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            if TRAIN_NAME.match(name) and "fineweb_val" in ast.unparse(part.value):
                yield Finding(
                    "trains-on-validation",
                    "C1",
                    "fail",
                    f"`{name}` names the validation shards",
                    quote(program, live, part),
                    "training shards under that name in the run that is reported",
                )


def network(program: Program) -> Iterator[Finding]:
    """Calls that reach the network."""
    for live in program.live:
        for part in live.nodes:
            if not isinstance(part, ast.Call):
                continue
            module = root(part.func)
            fetches = module in ("subprocess", "os") and SHELL.search(ast.unparse(part))
            if called(part) in NETWORK or module == "requests" or fetches:
                yield Finding(
                    "network",
                    None,
                    "question",
                    f"{live.name}() calls {ast.unparse(part.func)}, which reaches the network",
                    quote(program, live, part),
                    "that it runs in setup only, before either clock and not at evaluation",
                )
                return


def runs_other_code(program: Program) -> Iterator[Finding]:
    """`exec` of a file's text."""
    for live in program.live:
        for part in live.nodes:
            if (
                isinstance(part, ast.Call)
                and isinstance(part.func, ast.Name)
                and part.func.id == "exec"
                and any(called(inner) in ("open", "read_text", "read_bytes") for inner in ast.walk(part))
            ):
                yield Finding(
                    "exec-of-file",
                    None,
                    "question",
                    f"{live.name}() runs the text of another file",
                    quote(program, live, part),
                    "that file counted in the artifact's code bytes",
                )
