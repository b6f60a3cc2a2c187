"""Compare findings on code with the logs: whether the code printed its lines, and which scores precede them.

The settings of a run may be stated only in prose or in a command that was not published; its log is better
evidence. #379 and #181 publish code with a technique switched on, and logs of runs with it switched off; #406
now claims the score from before the adaptation. A finding does not change if its code prints nothing or no
log holds a score.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence

from harness.audit.code.learning import MAIN
from harness.audit.code.program import Program
from harness.audit.code.shape import called, own
from harness.audit.code.tree import parsed, walk
from harness.audit.finding import Finding

MADE_BY_CODE = {
    "val-before-score",
    "last-epoch-scored",
    "slot",
    "target-in-key",
    "minimum-over-passes",
    "paid-prefix",
}
"""Rules that a run breaks only where the quoted code ran."""
UNDECIDED = "; whether the stated score is the later one cannot be read"
"""How a question ends that a log may decide."""
UNREAD = "cannot be read"
NEARER = 4
"""How many times nearer the claim must be to the scores after the learning than to those before it."""
BY_RATIO = "fixed-bytes-per-token"
"""A rule that the claimed score breaks only where the program printed it."""
WRITERS = re.compile(r"print|log|info|write")
PRINT = re.compile(r"^print$")
LOGGERS = re.compile(r"print.|.print|log|info|write")
SOURCE = re.compile(r"""\(f?["']|^\s*f["']""")
"""A line of source code: many logs begin with the script that ran."""
SCORE = re.compile(r"bpb\w*[\s:=]{1,3}(\d\.\d{4,12})")
STATED = re.compile(r'"val_bpb\w*"\s*:\s*(\d\.\d{3,16})')
CLAIMED = re.compile(r'"val_bpb"\s*:\s*(\d\.\d{3,16})')
PRINTED_SCORE = re.compile(r"bpb[^\d\n]{0,40}?(\d\.\d{3,12})", re.I)
FINAL_SCORE = re.compile(r"final[^\n]{0,60}?bpb[^\d\n]{0,40}?(\d\.\d{3,12})", re.I)
CLAIM_DIGITS = 1e-4
MIN_TEXT = 5
"""Characters of a printed text that can identify a function."""
DEPTH = 2
"""Levels of callers whose printed texts count too: the evaluation that holds a cache prints about it."""


def compare_with_logs(
    found: Iterable[Finding], program: Program, logs: Mapping[str, str], claims: Iterable[str]
) -> list[Finding]:
    """Turn each `fail` into a question where the logs do not show that the quoted code made the score, and a
    question into a `fail` where they decide what it leaves open.

    `claims` are the JSON texts that state scores. Only findings of MADE_BY_CODE and BY_RATIO change.
    """
    logged = [[line for line in text.splitlines() if not SOURCE.search(line)] for text in logs.values()]
    logged = [lines for lines in logged if any(SCORE.search(line) for line in lines)]
    claims = list(claims)
    stated = [float(number) for text in claims for number in STATED.findall(text)]
    claimed = [float(number) for text in claims for number in CLAIMED.findall(text)]
    compared = []
    for one in found:
        if one.rule in MADE_BY_CODE and one.outcome == "question":
            compared.append(_asked(one, program, logged, claimed))
        elif one.rule in MADE_BY_CODE and one.outcome == "fail":
            compared.append(_compared(one, program, logged, stated))
        elif one.rule == BY_RATIO and one.outcome == "fail":
            compared.append(_as_claimed(one, logs.values(), claimed))
        else:
            compared.append(one)
    return compared


def _asked(found: Finding, program: Program, logged: list[list[str]], claimed: list[float]) -> Finding:
    """A question of what cannot be read, with what the logs say of it: nothing, or which score is claimed."""
    if UNREAD not in found.message or not logged:
        return found
    texts = _printed(program, found, _prints_are_logged(program, logged))
    if texts and not any(text in line for lines in logged for line in lines for text in texts):
        return found._replace(message=f"{found.message}; {_not_printed(texts)}")
    return _decided(found, texts, logged, claimed) if found.message.endswith(UNDECIDED) and claimed else found


def _not_printed(texts: set[str]) -> str:
    return f"no log prints what this code prints, such as `{sorted(texts)[0][:40]}`"


def _decided(found: Finding, texts: set[str], logged: list[list[str]], claimed: list[float]) -> Finding:
    """A question whether the later score is the stated one, as a `fail` where each log with the lines of the
    quoted code has scores before and after them, and the claim is nearer to the last ones after them.
    """
    before, after = [], []
    for lines in logged:
        at = next((at for at, line in enumerate(lines) if any(text in line for text in texts)), None)
        if at is not None:
            before += [float(number) for line in lines[:at] for number in SCORE.findall(line)][-1:]
            after += [float(number) for line in lines[at:] for number in SCORE.findall(line)][-1:]
    if not before or len(before) != len(after):
        return found
    distance = [abs(sum(scores) / len(scores) - claimed[0]) for scores in (before, after)]
    if distance[1] * NEARER > distance[0]:
        return found
    return found._replace(
        outcome="fail",
        message=f"{found.message.removesuffix(UNDECIDED)}; in the logs the claimed score stands after that",
    )


def _as_claimed(found: Finding, logs: Iterable[str], claimed: list[float]) -> Finding:
    """The finding, a question where logs print scores and neither the claim nor a mean that is the claim.

    #1558 claims a score that it corrected by hand.
    """
    printed = [PRINTED_SCORE.findall(text) for text in logs]
    numbers = [number for found_here in printed for number in found_here]
    means = [
        sum(map(float, group)) / len(group)
        for group in (
            [number for text in logs for number in FINAL_SCORE.findall(text)],
            [found_here[-1] for found_here in printed if found_here],
        )
        if group
    ]
    if (
        not numbers
        or not claimed
        or any(_rounds_to(number, score) for number in numbers for score in claimed)
        or any(abs(mean - score) < CLAIM_DIGITS for mean in means for score in claimed)
    ):
        return found
    return found._replace(outcome="question", message=f"{found.message}; no log prints the claimed score")


def _compared(found: Finding, program: Program, logged: list[list[str]], stated: list[float]) -> Finding:
    if not logged:
        return found
    texts = _printed(program, found, _prints_are_logged(program, logged))
    if not texts:
        return found
    first = [
        next((at for at, line in enumerate(lines) if any(text in line for text in texts)), None)
        for lines in logged
    ]
    if all(at is None for at in first):
        return found._replace(outcome="question", message=f"{found.message}; {_not_printed(texts)}")
    lines_before = [
        line for lines, at in zip(logged, first, strict=True) if at is not None for line in lines[:at]
    ]
    lines_after = [line for lines, at in zip(logged, first, strict=True) for line in lines[at or 0 :]]
    if _states(lines_before, stated) and not _states(lines_after, stated):
        return found._replace(
            outcome="question", message=f"{found.message}; the stated score stands in the log before that"
        )
    return found


def _states(lines: list[str], stated: list[float]) -> bool:
    """Whether a line prints one of the stated scores, to its own digits."""
    return any(
        _rounds_to(number, score) for line in lines for number in SCORE.findall(line) for score in stated
    )


def _rounds_to(number: str, score: float) -> bool:
    """Whether a printed number is a score, to its own digits."""
    digits = len(number.partition(".")[2])
    return abs(float(number) - score) <= 0.51 * 0.1**digits


def _prints_are_logged(program: Program, logged: list[list[str]]) -> bool:
    """Whether the logs hold what bare print() writes: many programs log through their own function."""
    texts = {text for live in program.live for text in _texts(live.nodes, PRINT)}
    return any(text in line for lines in logged for line in lines for text in texts)


def _printed(program: Program, found: Finding, prints: bool) -> set[str]:
    """Texts that begin the lines which the code of a finding prints.

    That is the functions in which the evidence stands, those that call them, and of the main program what
    stands under the condition that calls them, or in a loop with two lines of the evidence. `prints` says
    whether the logs hold what bare print() writes.
    """
    functions = [
        live
        for live in program.live
        if not MAIN.match(live.name)
        and any(
            quoted.file == live.file
            and quoted.line
            and live.node.lineno <= quoted.line <= (live.node.end_lineno or 0)
            for quoted in found.evidence
            if not isinstance(live.node, ast.Module)
        )
    ]
    for _ in range(DEPTH):
        wanted = {live.name for live in functions if "." not in live.name}
        functions += [
            live
            for live in program.live
            if not any(live is one for one in functions)
            and not MAIN.match(live.name)
            and any(
                isinstance(part, ast.Name | ast.Attribute)
                and (getattr(part, "id", "") or getattr(part, "attr", "")) in wanted
                for part in live.nodes
            )
        ]
    wanted = {live.name for live in functions}
    calls = [
        (live.file, part.lineno)
        for live in program.live
        if MAIN.match(live.name)
        for part in live.nodes
        if isinstance(part, ast.Name) and part.id in wanted
    ]
    guards: list[tuple[str, ast.stmt]] = [
        (file, guard)
        for file in {file for file, _ in calls}
        for guard in _guards(program.sources[file], [line for other, line in calls if other == file])
    ]
    guards += [
        (live.file, loop)
        for live in program.live
        if MAIN.match(live.name)
        for loop in live.nodes
        if isinstance(loop, ast.For | ast.While)
        and sum(_quotes(found, live.file, line) for line in range(loop.lineno, (loop.end_lineno or 0) + 1))
        > 1
    ]
    writes = WRITERS if prints else LOGGERS
    spans: list[tuple[str, ast.stmt]] = [
        (live.file, live.node) for live in functions if not isinstance(live.node, ast.Module)
    ]
    spans += guards
    texts = {
        text
        for nodes in (*(live.nodes for live in functions), *(own(guard) for _, guard in guards))
        for text in _texts(nodes, writes)
    }
    other_lines = [
        line
        for file in {file for file, _ in spans}
        for number, line in enumerate(program.sources[file], 1)
        if not any(other == file and node.lineno <= number <= (node.end_lineno or 0) for other, node in spans)
    ]
    # texts that other code prints too identify nothing: #181
    return {text for text in texts if not any(text in line for line in other_lines)} or texts


def _quotes(found: Finding, file: str, line: int) -> bool:
    return any(quoted.file == file and quoted.line == line for quoted in found.evidence)


def _guards(lines: Sequence[str], numbers: Sequence[int]) -> list[ast.If]:
    """The innermost `if` around each of the `numbers`, in the source as written.

    The pruned program lacks the conditions that the settings decide.
    """
    try:
        conditions = [part for part in walk(parsed("\n".join(lines))) if isinstance(part, ast.If)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    around = [
        [part for part in conditions if part.lineno <= number <= (part.end_lineno or 0)] for number in numbers
    ]
    return [max(found, key=lambda part: part.lineno) for found in around if found]


def _texts(nodes: Iterable[ast.AST], writes: re.Pattern[str]) -> set[str]:
    found = set()
    for part in nodes:
        if isinstance(part, ast.Call) and writes.search(called(part)) and part.args:
            first = part.args[0]
            start = first.values[0] if isinstance(first, ast.JoinedStr) and first.values else first
            if (
                isinstance(start, ast.Constant)
                and isinstance(start.value, str)
                and len(text := start.value.strip()) >= MIN_TEXT
            ):
                found.add(text.splitlines()[0])
    return found
