"""Find folders whose code does not do what they say: no code, nothing trains, empty classes for techniques.

#1732: a script that builds a model, prints that it is ready and returns, with quantisers whose methods do
nothing. R7: the script must run inside the record folder. Whether code does what its name says is not
checked.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.audit.code.program import Program
from harness.audit.code.shape import calls, quote
from harness.audit.finding import Evidence, Finding, Outcome
from harness.verdict.rule_info import RuleInfo

WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z][a-z]+")
HIDES = ("exec", "eval", "__import__")
STARTS = {"system": "os.system", "execv": "os.execv", "run": "subprocess.run", "run_path": "runpy.run_path"}
LEARNS = re.compile(
    r"backward\(|\bgrad\(|value_and_grad|\.step\(|opt\w*\.update\(|\.fit\(|add\.at\("
    r"|ctypes|cpp_extension|load_inline"
)
"""Traces of learning: gradients in any framework, counting, code in another language."""
OTHER = (".cu", ".cpp", ".c", ".rs", ".ipynb")
LIBRARIES = {
    "torch",
    "numpy",
    "sentencepiece",
    "tqdm",
    "huggingface_hub",
    "datasets",
    "tiktoken",
    "kernels",
    "triton",
    "zstandard",
    "brotli",
    "flash_attn",
    "flash_attn_interface",
    "scipy",
    "einops",
}
"""Modules that no record folder ships and that train nothing by themselves."""
COMMON = {
    "Model",
    "Block",
    "Linear",
    "Module",
    "Layer",
    "Data",
    "Loader",
    "Token",
    "Base",
    "Test",
    "Wise",
    "Aware",
    "Quantizer",
    "Hyperparameters",
}


NO_RUNNABLE_CODE = RuleInfo(
    id="no-runnable-code",
    title="No program is published",
    condition=None,
    source="README R7, #561, #1731",
    checks="a folder with README and submission.json that claims a score and holds no source and no script",
    example="#1731: README, submission.json and logs",
    not_covered="programs outside the folder; a program printed in a log, a folder that claims no score and "
    "unread files make it a question, and without a README, where the folder may be part of what was "
    "published, it is unknown",
)


def no_code(
    program: Program,
    other_code: Sequence[str],
    logs: Mapping[str, str],
    files: Iterable[str],
    claimed: bool,
    unread: Sequence[str],
) -> Iterator[Finding]:
    """Report a folder that ships no program.

    A `fail` only where README and submission.json show that the folder was meant to be complete, it claims a
    score, and no file is left unread. A program that only a log holds is a question.
    """
    if program.sources or other_code:
        return
    for file, text in logs.items():
        line = next(
            (number for number, line in enumerate(text.splitlines(), 1) if line.startswith("def main(")), None
        )
        if line:
            yield Finding.of(
                NO_RUNNABLE_CODE,
                "question",
                f"the program is only to be found inside {file}",
                (Evidence(file, line, "def main("),),
                "the train script, as a file of the folder",
            )
            return
    names = [file.rsplit("/", 1)[-1].lower() for file in files]
    readme = any(name.startswith("readme") for name in names)
    claims = any(name.startswith("submission") and name.endswith(".json") for name in names)
    outcome: Outcome
    if unread:
        outcome, message = (
            "question",
            f"no program was read; {unread[0]} and {len(unread) - 1} other files may hold one",
        )
    elif readme and claims and claimed:
        outcome, message = "fail", "the folder ships no program that could have made its score"
    elif readme:
        outcome, message = (
            "question",
            "the folder has a README, claims no score in a submission.json and ships no program",
        )
    else:
        outcome, message = (
            "unknown",
            "no program and no README lie here: whether the published folder had them cannot be told",
        )
    yield Finding.of(
        NO_RUNNABLE_CODE,
        outcome,
        message,
        tuple(Evidence(name, None, "") for name in unread[:3]),
        "the train script, in the folder",
    )


NOTHING_TRAINS = RuleInfo(
    id="nothing-trains",
    title="The published program trains nothing",
    condition=None,
    source="README R7, #1732",
    checks="no backward pass and no optimizer step is reachable from the program's entry",
    example="#1732: main() builds a model, prints its size and returns",
    not_covered="programs that run hidden code; a question where any source holds a trace of learning, or "
    "imports a module that is not in the folder",
)


def nothing_trains(
    program: Program, readme: str, readme_file: str, other_code: Sequence[str] = ()
) -> Iterator[Finding]:
    """Report a program that reaches no optimizer step and no backward pass.

    A `fail` only where no source of the folder holds either, reached or not, and every imported module is
    there: functions that a decorator hands to a service (#1254) and modules beside the folder (#1304) train
    too.
    """
    if not program.live or program.unread or _runs_hidden_code(program):
        return
    if any(calls(live.node, "backward") or calls(live.node, "step") for live in program.live):
        return
    main = next((live for live in program.live if live.name == "main"), program.live[0])
    if not main.node.body:
        return
    last = main.node.body[-1]
    lines = program.sources[main.file]
    evidence = (Evidence(main.file, last.lineno, lines[last.lineno - 1].strip()[:200]),)
    missing_module = _imports_missing_module(program)
    certain = (
        any("train" in file.rsplit("/", 1)[-1] for file in program.sources)
        and not any(file.endswith(OTHER) for file in other_code)
        and not any(LEARNS.search(line) for lines_of in program.sources.values() for line in lines_of)
        and not missing_module
    )  # a proposal may ship an evaluator alone: #318
    yield Finding.of(
        NOTHING_TRAINS,
        "fail" if certain else "question",
        f"nothing that {main.name}() reaches in this folder differentiates a loss or steps an optimizer: "
        + (
            "a module that it imports is not published here"
            if missing_module
            else "the published program cannot have made the score"
        ),
        evidence,
        "the script that was run",
    )
    yield from unused_techniques(program, readme, readme_file)


TECHNIQUE_WITHOUT_CODE = RuleInfo(
    id="technique-without-code",
    title="A technique is named and its class is empty or unused",
    condition=None,
    source="#1732",
    checks="classes whose name a README mentions, in a program that trains nothing",
    example="#1732: HadamardRotation is defined and never used",
    not_covered="programs that train: there an unused class may be a technique that a setting switches off "
    "(#1458)",
)


def unused_techniques(program: Program, readme: str, readme_file: str) -> Iterator[Finding]:
    """Find classes with the name of a technique in the README that nothing uses or that do nothing."""
    used = {name.split(".")[0] for live in program.live for name in [live.name]}
    lines = readme.splitlines()
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for number, line in enumerate(lines, 1):
        for word in re.findall(r"\w+", line):
            numbers[word].add(number)
            numbers[word.lower()].add(number)
    for file, node in program.all_names:
        if not isinstance(node, ast.ClassDef):
            continue
        words = {word for word in WORD.findall(node.name) if len(word) > 2 and word not in COMMON}
        found = _naming(numbers, node.name, words) if words else set()
        empty = all(
            _does_nothing(part)
            for part in node.body
            if isinstance(part, ast.FunctionDef) and part.name != "__init__"
        )
        if not found or not (empty or node.name not in used):
            continue
        number = min(found)
        state = "is never used" if node.name not in used else "does nothing"
        yield Finding.of(
            TECHNIQUE_WITHOUT_CODE,
            "question",
            f"the README speaks of what {node.name} is named for, a class that {state}",
            (
                Evidence(readme_file, number, lines[number - 1].strip()[:200]),
                Evidence(file, node.lineno, program.sources[file][node.lineno - 1].strip()[:200]),
            ),
            "the lines that do it, and where they are called",
        )


def _naming(numbers: Mapping[str, set[int]], name: str, words: set[str]) -> set[int]:
    """The numbers of the lines with a class's name, or with all words of it, as whole words.

    The words count where they are two or more, or one in capitals (AWQ): every README has `byte` or `causal`
    (#998). `numbers` are the lines of each word, as written and in lower case.
    """
    made_of = [word if word.isupper() else word.lower() for word in words]
    if len(words) == 1 and not made_of[0].isupper():
        return numbers.get(name, set())
    return numbers.get(name, set()) | set.intersection(*(numbers.get(word, set()) for word in made_of))


UNREAD_CODE = RuleInfo(
    id="unread-code",
    title="A source could not be read",
    condition=None,
    source="docs/audit.md",
    checks="a file that is no Python, or too large or deep",
    example="a script of Python 2",
    not_covered="everything in such a file",
)


def hidden(program: Program) -> Iterator[Finding]:
    """Find code that runs from a text that was not unpacked."""
    for live in program.live:
        if _unpacked_name(live.file) in program.sources:
            continue
        for part in live.nodes:
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "exec":
                yield Finding.of(
                    UNREAD_CODE,
                    "unknown",
                    f"{live.file} runs code that is not in front of us",
                    quote(program, live, part),
                    "the code it runs, as a file of the folder",
                )
                return


def _unpacked_name(file: str) -> str:
    """The name of the source that was unpacked from `file`, or next after it from the same wrapper."""
    wrapper, packed, number = file.removesuffix(".py").rpartition("!")
    return f"{wrapper}!{int(number) + 1}.py" if packed and number.isdecimal() else f"{file}!1.py"


def _runs_hidden_code(program: Program) -> bool:
    """Whether the program runs code that is not among its sources."""
    return any(
        (isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in HIDES)
        or (isinstance(part, ast.Attribute) and part.attr in STARTS and ast.unparse(part) in STARTS.values())
        for live in program.live
        for part in live.nodes
    )


def _imports_missing_module(program: Program) -> bool:
    """Whether something that runs comes from a module that neither the folder nor the image has."""
    known = (
        {file.rsplit("/", 1)[-1].removesuffix(".py") for file in program.sources}
        | set(sys.stdlib_module_names)
        | LIBRARIES
    )
    return any(
        (getattr(part, "level", 0) or 0) > 0 or module.split(".")[0] not in known
        for live in program.live
        for part in live.nodes
        if isinstance(part, ast.Import | ast.ImportFrom)
        for module in (
            [part.module or ""] if isinstance(part, ast.ImportFrom) else [alias.name for alias in part.names]
        )
    )


def _does_nothing(function: ast.FunctionDef) -> bool:
    return all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        or (
            isinstance(part, ast.Return)
            and (part.value is None or isinstance(part.value, ast.Name | ast.Constant))
        )
        for part in function.body
    )


RULES = (NOTHING_TRAINS, NO_RUNNABLE_CODE, TECHNIQUE_WITHOUT_CODE, UNREAD_CODE)
