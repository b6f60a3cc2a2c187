"""Find forbidden reads: validation shards as training files, the network, code files that nothing counts.

R1, R4 of the README: no network and no training text at evaluation, no validation text during training, and
all code counted. Programs that a script starts are not followed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.audit.code.program import Program
from harness.audit.code.shape import called, quote, root
from harness.audit.finding import Finding
from harness.verdict.rule_info import RuleInfo

TRAIN_NAME = re.compile(r"^train_(files|pattern|glob|shards|path|data)$")
DOWNLOADS = {
    "hf_hub_download",
    "snapshot_download",
    "urlopen",
    "urlretrieve",
    "load_dataset",
    "create_connection",
}
SHELL = re.compile(r"['\"\s/](curl|wget|git clone|pip install|aws s3|gsutil) ?")


TRAINS_ON_VALIDATION = RuleInfo(
    id="trains-on-validation",
    title="The training files are the validation files",
    condition="C1",
    source="README R4, #44",
    checks="train_files (or the like) bound to the pattern of the validation shards by the settings of the "
    "run; commands or sentences that give validation shards the names of training shards",
    example="#675: train_files = '.../fineweb_val_*.bin' if train_on_val; #44: ln -s "
    ".../fineweb_val_000000.bin .../fineweb_train_000000.bin",
    not_covered="files linked or renamed that nothing in the folder tells of; a question where only a "
    "sentence tells it, or nothing says that the run read them",
)


def trains_on_validation(program: Program) -> Iterator[Finding]:
    """Find the name of the training files bound to the pattern of the validation files."""
    for live in program.live:
        for part in live.nodes:
            if not isinstance(part, ast.Assign):
                continue
            target = part.targets[0]
            name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            if TRAIN_NAME.match(name) and "fineweb_val" in ast.unparse(part.value):
                yield Finding.of(
                    TRAINS_ON_VALIDATION,
                    "fail",
                    f"`{name}` names the validation shards",
                    quote(program, live, part),
                    "training shards under that name in the run that is reported",
                )


NETWORK = RuleInfo(
    id="network",
    title="The program reaches the network",
    condition=None,
    source="README R1",
    checks="reachable downloads, requests, or shells that fetch",
    example="hf_hub_download(...) in the train script",
    not_covered="when the call runs; it is allowed in setup, so it is always a question",
)


def network(program: Program) -> Iterator[Finding]:
    """Find the first call that reaches the network."""
    for live in program.live:
        for part in live.nodes:
            if not isinstance(part, ast.Call):
                continue
            module = root(part.func)
            fetches = module in ("subprocess", "os") and SHELL.search(ast.unparse(part))
            if called(part) in DOWNLOADS or module == "requests" or fetches:
                yield Finding.of(
                    NETWORK,
                    "question",
                    f"{live.name}() calls {ast.unparse(part.func)}, which reaches the network",
                    quote(program, live, part),
                    "that it runs in setup only, before either clock and not at evaluation",
                )
                return


EXEC_OF_FILE = RuleInfo(
    id="exec-of-file",
    title="The text of another file is run",
    condition=None,
    source="README R1, #1412",
    checks="exec over open(...).read()",
    example="#1412: a stub of 74 bytes that runs an 80,055-byte file",
    not_covered="whether that file was counted; the size checks tell",
)


def runs_other_code(program: Program) -> Iterator[Finding]:
    """Find `exec` of a file's text."""
    for live in program.live:
        for part in live.nodes:
            if (
                isinstance(part, ast.Call)
                and isinstance(part.func, ast.Name)
                and part.func.id == "exec"
                and any(called(inner) in ("open", "read_text", "read_bytes") for inner in ast.walk(part))
            ):
                yield Finding.of(
                    EXEC_OF_FILE,
                    "question",
                    f"{live.name}() runs the text of another file",
                    quote(program, live, part),
                    "that file counted in the artifact's code bytes",
                )


RULES = (TRAINS_ON_VALIDATION, NETWORK, EXEC_OF_FILE)
CHECKS = (trains_on_validation, network, runs_other_code)
