"""Check the code of a record folder without running it: what may run, and which rules that breaks.

One subject a file: settings evaluates conditions, prune cuts branches that are switched off, reach keeps what
may run; flow, texts, models, contents, turns and sums follow values, texts, models, files and loops;
cleared and repeats tell what speaks against a finding. Each other file holds the rules on one
kind of fault; traces compares the findings with the logs. A `fail` is given only for lines without an
innocent explanation, in a folder that claims a score on the record track: studies, proposals and folders that
call themselves non-records (#1147, #1000) get questions. C and CUDA sources and values at run time are not
read, and shell scripts only for the shards that they rename.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.audit.code import (
    access,
    counting,
    distribution,
    epochs,
    learning,
    order,
    prefix,
    promises,
    ratio,
    shards,
    traces,
)
from harness.audit.code.program import Program, read_program
from harness.audit.finding import Evidence, Finding

FILES = (order, epochs, learning, distribution, counting, ratio, access)
"""In the order of the report."""
CHECKS = tuple(check for file in FILES for check in file.CHECKS)
RULES = (*(info for file in FILES for info in file.RULES), *prefix.RULES, *promises.RULES)
MAX_SAME = 3
"""Findings of one check that a folder gets; the first ones show a reviewer where to look."""


def code_findings(
    texts: Mapping[str, str],
    *,
    scored: bool = True,
    claimed: bool = True,
    on_track: bool = True,
    unread: Sequence[str] = (),
) -> list[Finding]:
    """What the programs of a folder do that a rule forbids, or that a reviewer must ask about.

    `texts` holds every text file of the folder by its path, with unpacked wrappers. `scored` says whether the
    folder is about a score: only then must its program be able to make one. `claimed` says whether it states
    one. `on_track` is False where the folder itself says that it asks for no place under the ten-minute
    rules. `unread` names files that were not read completely and may hold a program. Never raises because of
    what a file holds.
    """
    sources = {
        file: text
        for file, text in texts.items()
        if file.endswith(".py") and "test" not in file.rsplit("/", 1)[-1]
    }
    readmes = {file: text for file, text in texts.items() if file.lower().endswith(".md")}
    logs = {
        file: text
        for file, text in texts.items()
        if file.lower().endswith((".log", ".txt")) and "require" not in file.lower()
    }
    program = read_program(sources, readmes.values(), logs.values())
    found = [
        Finding.of(
            promises.UNREAD_CODE,
            "unknown",
            f"{file} could not be read: {reason}",
            (Evidence(file, None, ""),),
            "a file that parses",
        )
        for file, reason in program.unread.items()
    ]
    asked: dict[str, Callable[[], Iterable[Finding]]] = {
        **{check.__name__: functools.partial(check, program) for check in CHECKS},
        "paid_prefix": functools.partial(prefix.paid_prefix, program, texts),
        "renamed_shards": functools.partial(shards.renamed_shards, texts),
    }
    for name, check in asked.items():
        try:
            found += list(check())[:MAX_SAME]
        except RecursionError:
            found.append(
                Finding.of(
                    promises.UNREAD_CODE,
                    "unknown",
                    f"{name} was not asked: the code is nested too deeply",
                    (),
                    "code of a usual depth",
                )
            )
    found = traces.compare_with_logs(
        found, program, logs, [text for file, text in texts.items() if file.endswith(".json")]
    )
    if scored:
        first = next(iter(sorted(readmes, key=len)), "")
        other = [file for file in texts if file.endswith((".sh", ".cu", ".cpp", ".c", ".rs", ".ipynb"))]
        found += promises.no_code(program, other, logs, texts, claimed, unread)
        found += promises.hidden(program)
        found += promises.nothing_trains(program, readmes.get(first, ""), first, other)
    return found if claimed and on_track else [_as_question(finding, claimed) for finding in found]


def _as_question(finding: Finding, claimed: bool) -> Finding:
    """The finding, a question instead of a `fail`, for a folder that claims no place."""
    reason = "the folder calls itself no record" if claimed else "the folder claims no score"
    return (
        finding
        if finding.outcome != "fail"
        else finding._replace(outcome="question", message=f"{finding.message}; {reason}")
    )


__all__ = ["Program", "code_findings"]
