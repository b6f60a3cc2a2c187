"""Find validation shards that are given the name of training shards outside the train script.

#44: links named `fineweb_train_*.bin` that lead to the validation shard; the script itself is unchanged. The
commands stand in a README or a shell script, or another program makes them; a README may also tell it in a
sentence, which is never more than a question. Shards that are renamed and not told of show only in the logs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.audit.code.access import TRAINS_ON_VALIDATION
from harness.audit.code.shape import called
from harness.audit.code.tree import parsed, walk
from harness.audit.finding import MAX_TEXT, Evidence, Finding

COMMAND = re.compile(r"(?:^|[\s;&|(`$])(?:mv|cp|ln|rsync|install|rename|link)\s+([^;&|#`\n]+)")
VALIDATION = re.compile(r"(^|[/_.\-{\"'])val(id|idation)?([/_.\-*\d\"']|$)", re.I)
TRAINING = re.compile(r"(^|[/_.\-{\"'])train(ing)?([/_.\-*\d\"']|$)", re.I)
SUBSTITUTION = re.compile(r"/(fineweb_)?val(idation)?_?/(fineweb_)?train(ing)?_?[/}]", re.I)
SHARD = re.compile(r"\.bin\b|fineweb_|shard", re.I)
"""What the name of a file of tokens holds."""
NO_DATA = re.compile(r"\.(py|sh|md|log|txt|json|ya?ml|ipynb|toml|csv|png)\b", re.I)
"""Endings of files that hold no shards."""
CALLS = re.compile(r"\b(os\.(rename|replace|symlink|link)|shutil\.(copy\w*|move)|symlink_to|hardlink_to)\(")
NAMES = {"rename", "replace", "symlink", "link", "copy", "copy2", "copyfile", "move"}
REVERSED = {"symlink_to", "hardlink_to"}
"""Methods of the new name, with the old one as argument."""
VAL = (
    r"(?:`?[\w./*-]*fineweb_val\w*|\bval(?:idation)? (?:shard|file|split|set|tokens?|text)s?\b"
    r"(?! (?:check|load|log|loss|code|class|step|score|metric)))"
)
TRAIN = (
    r"(?:`?[\w./*-]*fineweb_train\w*|\btrain_?\*|\btrain(?:ing)?[ _-]"
    r"(?:shard|file|split|name|filename|glob|pattern|director|folder|loader)\w*)"
)
VERB = (
    r"\b(?:renam|symlink|symbolic|alias|link|cop(?:y|ied|ies)|mov(?:e|ed|ing)\b|relabel|disguis|masquerad"
    r"|pointed)\w*"
)
AS = r"(?:(?<!next )\b(?:as|to|into|under|so that|match\w*|picks?|picked)\b|->|→|=>)"
BACK = (
    r"(?:point(?:s|ed)? (?:to|at)|resolves? to|links? to|linked to|symlink(?:s|ed)? to"
    r"|aliase?[sd]? (?:of|for|to)|(?:a |an )?(?:copy|copies|symlink|alias|link|renamed copy) (?:of|to)"
    r"|renamed from|copied from)"
)
TOLD = re.compile(
    rf"{VERB}[^,;]{{0,60}}?{VAL}[^;]{{0,50}}?{AS}[^;,]{{0,60}}?{TRAIN}"
    rf"|{VAL}[^,;]{{0,60}}?{VERB}[^;,]{{0,40}}?{AS}[^;,]{{0,60}}?{TRAIN}",
    re.I,
)
TOLD_BACK = re.compile(rf"{TRAIN}[^,;]{{0,80}}?\b{BACK}[^,;]{{0,40}}?{VAL}", re.I)
EACH = re.compile(r"\b(both|the rest|remaining|respectively)\b", re.I)
"""Words of sentences that tell of two kinds of shards, each under its own name."""
ELSEWHERE = re.compile(r"#\d+|\b(earlier|previous\w*|fixed|fixes|undo\w*|by mistake)\b", re.I)
"""Words of sentences about other records and about what was corrected."""
SENTENCE = re.compile(r"(?:[^.!?;|]|[.!?](?!\s|$)){1,600}", re.S)
DENIES = re.compile(
    r"\b(not|never|no|none|without|nor|cannot|avoid\w*|wrong|instead|rather|unlike)\b|n't\b", re.I
)
TRIAL = re.compile(r"smoke|debug|dry.?run|sanity|unit test|quick ?test|local test", re.I)
TRAINED = re.compile(
    r"\btrain(?:s|ed|ing)?\b[^.;,]{0,40}?\b(?:up)?on\b(?:(?!\band\b)[^.;,]){0,30}?\bval(?:idation)?\b(?!-free)"
    r"|\bval(?:idation)?[ -]only\b",
    re.I,
)
DATASET = re.compile(r"train_loader:dataset:\w")
"""What a log prints of the folder that the run reads."""
MAX_README = 200_000
"""Characters of a text that are searched."""
AROUND = 3
"""Lines before a command in which a README may say that it is for a trial or wrong."""


class Renamed(NamedTuple):
    """A place where a validation shard gets the name of a training shard."""

    file: str
    line: int
    text: str
    folder: str
    """The folder of the new name; empty where it has none."""
    told: bool
    """Whether a sentence says it, and no command does it."""


def renamed_shards(texts: Mapping[str, str]) -> Iterator[Finding]:
    """Report validation shards that commands, programs or sentences give the name of training shards.

    `fail` where a command does it and the folder's settings, logs or README say that the run read the result.
    """
    found = [renamed for file, text in texts.items() for renamed in _renamed(file, text[:MAX_README])]
    found.sort(key=lambda renamed: renamed.told)
    for renamed in found[:1]:
        use = None if renamed.told else _use(texts, renamed)
        lines = [Evidence(each.file, each.line, each.text[:MAX_TEXT]) for each in found[:3]]
        yield Finding.of(
            TRAINS_ON_VALIDATION,
            "fail" if use else "question",
            f"{renamed.file} {'says' if renamed.told else 'shows'} that validation shards get the names of "
            "training shards, outside the train script"
            + ("" if use else "; whether the reported run read them there cannot be read"),
            (*lines, *([use] if use else [])),
            "a run that read training shards under those names",
        )


def _renamed(file: str, text: str) -> Iterator[Renamed]:
    name = file.lower()
    if "test" in name.rsplit("/", 1)[-1]:
        return
    if name.endswith(".py"):
        yield from _by_program(file, text)
    if name.endswith((".md", ".sh")):
        yield from _by_command(file, text)
    if name.endswith(".md"):
        yield from _told(file, text)


def _by_command(file: str, text: str) -> Iterator[Renamed]:
    """Shell commands; lines that end in a backslash go on in the next one."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        first, line = number, lines[number]
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = line[:-1] + " " + lines[number].strip()
        number += 1
        for command in COMMAND.finditer(line):
            words = [word.strip("\"'") for word in command.group(1).split() if not word.startswith("-")]
            before = " ".join(lines[max(0, first - AROUND) : first + 1])
            if DENIES.search(before) or TRIAL.search(before):
                continue
            if SUBSTITUTION.search(command.group(1)):
                yield Renamed(file, first + 1, lines[first].strip(), "", False)
            elif (
                len(words) > 1
                and any(_is_val(word) and SHARD.search(_name(word)) for word in words[:-1])
                and _is_train(words[-1])
                and SHARD.search(_name(words[-1]))
            ):
                yield Renamed(file, first + 1, lines[first].strip(), _folder(words[-1]), False)


def _by_program(file: str, text: str) -> Iterator[Renamed]:
    """Calls in Python that rename, copy or link files."""
    if not CALLS.search(text) or "val" not in text:
        return
    try:
        tree = parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.splitlines()
    for node in walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        if called(node) in REVERSED:
            old, new = node.args[0], node.func.value
        elif called(node) in NAMES and len(node.args) > 1:
            old, new = node.args[0], node.args[1]
        else:
            continue
        if not CALLS.search(ast.unparse(node.func) + "("):
            continue
        before, after = ast.unparse(old), ast.unparse(new)
        if SUBSTITUTION.search(after.replace("', '", "/").replace("'", "/")) or (
            _is_val(before) and _is_train(after) and SHARD.search(before + after)
        ):
            yield Renamed(
                file, node.lineno, lines[node.lineno - 1].strip(), _folder(after.strip("'\"")), False
            )


def _told(file: str, text: str) -> Iterator[Renamed]:
    """Sentences of a README, outside its blocks of code."""
    plain = re.sub(r"```.*?(```|\Z)", lambda block: "\n" * block.group().count("\n"), text, flags=re.S)
    for sentence in SENTENCE.finditer(plain):
        words = " ".join(sentence.group().split())
        if not (TOLD_BACK.search(words) or (TOLD.search(words) and not EACH.search(words))):
            continue
        if not any(excuse.search(words) for excuse in (DENIES, TRIAL, ELSEWHERE)):
            at = sentence.start() + len(sentence.group()) - len(sentence.group().lstrip())
            yield Renamed(file, plain.count("\n", 0, at) + 1, words, "", True)


def _is_val(word: str) -> bool:
    """Whether a path is of validation data: by its last two parts."""
    return (
        not NO_DATA.search(word) and bool(VALIDATION.search(_last(word))) and not TRAINING.search(_name(word))
    )


def _is_train(word: str) -> bool:
    """Whether the name of a file is that of training data: files that a folder gets keep their names."""
    name = _name(word)
    return (
        not word.endswith("/")
        and not NO_DATA.search(name)
        and bool(TRAINING.search(name))
        and not VALIDATION.search(name)
    )


def _last(word: str) -> str:
    return "/".join(word.rstrip("/").split("/")[-2:])


def _name(word: str) -> str:
    return word.rstrip("/").rsplit("/", 1)[-1]


def _folder(word: str) -> str:
    """The last part of the folder of a path; empty where it has none that is plain."""
    parts = word.split("/")
    folder = parts[-2] if len(parts) > 1 else ""
    return folder if re.fullmatch(r"[\w.-]{4,}", folder) else ""


def _use(texts: Mapping[str, str], renamed: Renamed) -> Evidence | None:
    """The line that says that the run read the folder of the new names, or trained on validation text.

    Where logs name the folder that was read, no other text counts: a README may tell of a trial too.
    """
    reads = re.compile(
        rf"(DATA_PATH=|data_path|train_loader:dataset:|--data\S*[ =])\S*{re.escape(renamed.folder)}"
    )
    shown = {
        file: text[:MAX_README]
        for file, text in sorted(texts.items(), key=lambda item: item[0] != renamed.file)
        if file.lower().endswith((".md", ".sh", ".log", ".txt"))
    }
    logs = {file: text for file, text in shown.items() if file.lower().endswith((".log", ".txt"))}
    if any(DATASET.search(text) for text in logs.values()):
        shown = logs
    for file, text in shown.items():
        for number, line in enumerate(text.splitlines(), 1):
            if (renamed.folder and reads.search(line)) or (
                file == renamed.file and TRAINED.search(line) and not DENIES.search(line)
            ):
                return Evidence(file, number, line.strip()[:MAX_TEXT])
    return None
