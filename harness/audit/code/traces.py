"""What the logs say of code that may run: whether it printed what it prints, and which scores stand before
that.

Settings are told in prose and on command lines that no audit sees; a log of the run is better evidence. #379
and #181 publish code that is on, and logs of a run in which it was off; #406 took its number back to the
score before the adaptation. Not covered: functions that print nothing, and logs that hold no score: nothing
is taken back for those."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence

from harness.audit.code.reach import Program
from harness.audit.code.shape import called, own
from harness.audit.code.tree import parsed, walk
from harness.audit.finding import Finding

MADE_BY_CODE = {"val-before-score", "last-epoch-scored", "slot", "target-in-key", "minimum-over-passes"}
"""Rules whose fault a run commits only where the code in question ran."""
WRITES = re.compile(r"print|log|info|write")
PRINT = re.compile(r"^print$")
KEPT = re.compile(r"print.|.print|log|info|write")
MAIN = re.compile(r"^_?(main|run|train\w*|<module>)$")
SOURCE = re.compile(r"""\(f?["']|^\s*f["']""")
"""A line of a program: many logs begin with the script that ran."""
SCORE = re.compile(r"bpb\w*[\s:=]{1,3}(\d\.\d{4,12})")
STATED = re.compile(r'"val_bpb\w*"\s*:\s*(\d\.\d{3,16})')
MIN_TEXT = 5
"""Characters of a printed text that tell one function from another."""
DEPTH = 2
"""Callers asked for what they print: a cache is printed of by the evaluation that holds it."""


def weighed(
    found: Iterable[Finding], program: Program, logs: Mapping[str, str], claims: Iterable[str]
) -> list[Finding]:
    """The findings, as questions where the logs do not show the code at work on the score that `claims` (JSON
    texts) state."""
    written = [[line for line in text.splitlines() if not SOURCE.search(line)] for text in logs.values()]
    written = [lines for lines in written if any(SCORE.search(line) for line in lines)]
    stated = [float(number) for text in claims for number in STATED.findall(text)]
    return [
        _weighed(one, program, written, stated) if one.rule in MADE_BY_CODE and one.outcome == "fail" else one
        for one in found
    ]


def _weighed(found: Finding, program: Program, written: list[list[str]], stated: list[float]) -> Finding:
    if not written:
        return found
    texts = _printed(program, found, _prints_are_kept(program, written))
    if not texts:
        return found
    first = [
        next((at for at, line in enumerate(lines) if any(text in line for text in texts)), None)
        for lines in written
    ]
    if all(at is None for at in first):
        return found._replace(
            outcome="question",
            message=f"{found.message}; no log prints what this code prints, such as "
            f"`{sorted(texts)[0][:40]}`",
        )
    before = [line for lines, at in zip(written, first, strict=True) if at is not None for line in lines[:at]]
    after = [line for lines, at in zip(written, first, strict=True) for line in lines[at or 0 :]]
    if _states(before, stated) and not _states(after, stated):
        return found._replace(
            outcome="question", message=f"{found.message}; the stated score stands in the log before that"
        )
    return found


def _states(lines: list[str], stated: list[float]) -> bool:
    """Whether a line prints one of the stated scores, to its own digits."""
    return any(
        abs(float(number) - score) <= 0.51 * 10 ** -len(number.partition(".")[2])
        for line in lines
        for number in SCORE.findall(line)
        for score in stated
    )


def _prints_are_kept(program: Program, written: list[list[str]]) -> bool:
    """Whether what bare print() writes is in the logs at all: many programs keep only what their own function
    for it writes."""
    texts = {text for live in program.live for text in _texts(live.nodes, PRINT)}
    return any(text in line for lines in written for line in lines for text in texts)


def _printed(program: Program, found: Finding, prints: bool) -> set[str]:
    """Texts that begin the lines printed by the functions in which the evidence stands, by those that call
    them, and by the main program under the condition that calls them."""
    held = [
        live
        for live in program.live
        if not MAIN.match(live.name)
        and any(
            place.file == live.file
            and place.line
            and live.node.lineno <= place.line <= (live.node.end_lineno or 0)
            for place in found.evidence
            if not isinstance(live.node, ast.Module)
        )
    ]
    for _ in range(DEPTH):
        wanted = {live.name for live in held if "." not in live.name}
        held += [
            live
            for live in program.live
            if not any(live is one for one in held)
            and not MAIN.match(live.name)
            and any(
                isinstance(part, ast.Name | ast.Attribute)
                and (getattr(part, "id", "") or getattr(part, "attr", "")) in wanted
                for part in live.nodes
            )
        ]
    wanted = {live.name for live in held}
    places = [
        (live.file, part.lineno)
        for live in program.live
        if MAIN.match(live.name)
        for part in live.nodes
        if isinstance(part, ast.Name) and part.id in wanted
    ]
    switched = [
        (file, guard)
        for file in {file for file, _ in places}
        for guard in _guards(program.sources[file], [line for other, line in places if other == file])
    ]
    writes = WRITES if prints else KEPT
    spans: list[tuple[str, ast.stmt]] = [
        (live.file, live.node) for live in held if not isinstance(live.node, ast.Module)
    ]
    spans += switched
    texts = {
        text
        for nodes in (*(live.nodes for live in held), *(own(guard) for _, guard in switched))
        for text in _texts(nodes, writes)
    }
    beside = [
        line
        for file in {file for file, _ in spans}
        for number, line in enumerate(program.sources[file], 1)
        if not any(other == file and node.lineno <= number <= (node.end_lineno or 0) for other, node in spans)
    ]
    return {
        text for text in texts if not any(text in line for line in beside)
    } or texts  # what other code prints too: #181


def _guards(lines: Sequence[str], places: Sequence[int]) -> list[ast.If]:
    """The innermost condition around each line, of the source as it was written: those that the settings
    decide are cut from the live program."""
    try:
        conditions = [part for part in walk(parsed("\n".join(lines))) if isinstance(part, ast.If)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    around = [
        [part for part in conditions if part.lineno <= place <= (part.end_lineno or 0)] for place in places
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
