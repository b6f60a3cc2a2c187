"""What a folder promises and its code does not do: no code, nothing that trains, empty classes under a
technique's name.

#1732: a script that builds a model, prints that it is ready and returns, with quantisers whose methods do
nothing. R7: the script must run inside the record folder. Not covered: whether code that is there does what
its name says."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.audit.code.reach import Program
from harness.audit.code.shape import calls, quote
from harness.audit.finding import Evidence, Finding, Outcome

WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z][a-z]+")
HIDES = ("exec", "eval", "__import__")
STARTS = {"system": "os.system", "execv": "os.execv", "run": "subprocess.run", "run_path": "runpy.run_path"}
LEARNS = re.compile(
    r"backward\(|\bgrad\(|value_and_grad|\.step\(|opt\w*\.update\(|\.fit\(|add\.at\("
    r"|ctypes|cpp_extension|load_inline"
)
"""Traces of learning: gradients of any framework, counting, code of another language."""
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


def no_code(
    program: Program,
    other_code: Sequence[str],
    logs: Mapping[str, str],
    files: Iterable[str],
    claimed: bool,
    unread: Sequence[str],
) -> Iterator[Finding]:
    """A folder that ships no program at all: a `fail` only where README and submission.json show that it was
    meant to be whole, a score is claimed and nothing is left unread; a program that only a log holds is a
    question."""
    if program.sources or other_code:
        return
    for file, text in logs.items():
        line = next(
            (number for number, line in enumerate(text.splitlines(), 1) if line.startswith("def main(")), None
        )
        if line:
            yield Finding(
                "no-runnable-code",
                None,
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
    yield Finding(
        "no-runnable-code",
        None,
        outcome,
        message,
        tuple(Evidence(name, None, "") for name in unread[:3]),
        "the train script, in the folder",
    )


def nothing_trains(
    program: Program, readme: str, readme_file: str, other_code: Sequence[str] = ()
) -> Iterator[Finding]:
    """No reachable optimizer step and no reachable backward pass anywhere in the program.

    A `fail` only where no source of the folder holds any either, reached or not, and none is imported that is
    not there: functions that a decorator hands to a service (#1254) and modules beside the folder (#1304)
    train too."""
    if not program.live or program.unread or _hidden(program):
        return
    if any(calls(live.node, "backward") or calls(live.node, "step") for live in program.live):
        return
    main = next((live for live in program.live if live.name == "main"), program.live[0])
    if not main.node.body:
        return
    last = main.node.body[-1]
    lines = program.sources[main.file]
    places = (Evidence(main.file, last.lineno, lines[last.lineno - 1].strip()[:200]),)
    elsewhere = _elsewhere(program)
    whole = (
        any("train" in file.rsplit("/", 1)[-1] for file in program.sources)
        and not any(file.endswith(OTHER) for file in other_code)
        and not any(LEARNS.search(line) for lines_of in program.sources.values() for line in lines_of)
        and not elsewhere
    )  # a proposal may ship an evaluator alone: #318
    yield Finding(
        "nothing-trains",
        None,
        "fail" if whole else "question",
        f"nothing that {main.name}() reaches in this folder differentiates a loss or steps an optimizer: "
        + (
            "a module that it imports is not published here"
            if elsewhere
            else "the published program cannot have made the score"
        ),
        places,
        "the script that was run",
    )
    yield from unused_techniques(program, readme, readme_file)


def unused_techniques(program: Program, readme: str, readme_file: str) -> Iterator[Finding]:
    """Classes that bear the name of a technique in the README and that nothing uses, or that do nothing."""
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
        yield Finding(
            "technique-without-code",
            None,
            "question",
            f"the README speaks of what {node.name} is named for, a class that {state}",
            (
                Evidence(readme_file, number, lines[number - 1].strip()[:200]),
                Evidence(file, node.lineno, program.sources[file][node.lineno - 1].strip()[:200]),
            ),
            "the lines that do it, and where they are called",
        )


def _naming(numbers: Mapping[str, set[int]], name: str, words: set[str]) -> set[int]:
    """The lines that hold, as whole words, a class's name or all that it is made of: two words or more, or
    one of capitals (AWQ).

    `byte` or `causal` alone stand in every README (#998). `numbers` are the lines of each word, as written
    and in small letters."""
    made_of = [word if word.isupper() else word.lower() for word in words]
    if len(words) == 1 and not made_of[0].isupper():
        return numbers.get(name, set())
    return numbers.get(name, set()) | set.intersection(*(numbers.get(word, set()) for word in made_of))


def hidden(program: Program) -> Iterator[Finding]:
    """Code run from a text that was not unpacked."""
    for live in program.live:
        if _inside(live.file) in program.sources:
            continue
        for part in live.nodes:
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "exec":
                yield Finding(
                    "unread-code",
                    None,
                    "unknown",
                    f"{live.file} runs code that is not in front of us",
                    quote(program, live, part),
                    "the code it runs, as a file of the folder",
                )
                return


def _inside(file: str) -> str:
    """The name of what was unpacked from a source, or after it from the same wrapper."""
    wrapper, packed, number = file.removesuffix(".py").rpartition("!")
    return f"{wrapper}!{int(number) + 1}.py" if packed and number.isdecimal() else f"{file}!1.py"


def _hidden(program: Program) -> bool:
    """Whether the program runs code that is not in front of us."""
    return any(
        (isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in HIDES)
        or (isinstance(part, ast.Attribute) and part.attr in STARTS and ast.unparse(part) in STARTS.values())
        for live in program.live
        for part in live.nodes
    )


def _elsewhere(program: Program) -> bool:
    """Whether something that runs comes from a module that is neither in the folder nor to be had by the
    image."""
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
