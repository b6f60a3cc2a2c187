"""Reading the code of a record folder without running it: what it may run, and which rules that touches.

One idea a file: settings fold conditions, reach keeps what may run, and learning, distribution, counting,
access and promises each ask one kind of question of it; traces weighs the answers by what the logs show. A
`fail` needs lines that leave no other reading, and a folder that claims a score for a place: studies,
proposals and folders that call themselves no record (#1147, #1000) are asked. What cannot be told is a
question. Not covered: C and CUDA sources, shell scripts, values at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.audit.code import access, counting, distribution, learning, promises, traces
from harness.audit.code.reach import Program, understand
from harness.audit.finding import Evidence, Finding

CHECKS = (
    learning.before_scoring,
    learning.pass_then_score,
    learning.last_epoch,
    learning.fitted_positions,
    distribution.target_in_key,
    distribution.smallest_of_passes,
    distribution.second_pass,
    counting.space_twice,
    counting.fallback_bytes,
    counting.fixed_ratio,
    access.trains_on_validation,
    access.network,
    access.runs_other_code,
)
MAX_SAME = 3
"""Findings of one rule that a folder gets; the first lines tell a reviewer where to look."""


def code_findings(
    texts: Mapping[str, str],
    *,
    scored: bool = True,
    claimed: bool = True,
    on_track: bool = True,
    unread: Sequence[str] = (),
) -> list[Finding]:
    """What the programs of a folder do that a rule forbids, or that a reviewer must ask about.

    `texts` holds every text file of the folder by its path, unpacked wrappers among them; `scored` says
    whether the folder is about a score, since only then must its program be able to make one; `claimed`
    whether it states one; `on_track` is False where it says itself that it asks for no place under the
    ten-minute rules; `unread` names files that were not read, or not whole, and may hold a program. Never
    raises for what a file holds."""
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
    program = understand(sources, readmes.values(), logs.values())
    found = [
        Finding(
            "unread-code",
            None,
            "unknown",
            f"{file} could not be read: {reason}",
            (Evidence(file, None, ""),),
            "a file that parses",
        )
        for file, reason in program.unread.items()
    ]
    for check in CHECKS:
        try:
            found += list(check(program))[:MAX_SAME]
        except RecursionError:
            found.append(
                Finding(
                    "unread-code",
                    None,
                    "unknown",
                    f"{check.__name__} was not asked: the code is nested too deeply",
                    (),
                    "code of a usual depth",
                )
            )
    found = traces.weighed(
        found, program, logs, [text for file, text in texts.items() if file.endswith(".json")]
    )
    if scored:
        first = next(iter(sorted(readmes, key=len)), "")
        other = [file for file in texts if file.endswith((".sh", ".cu", ".cpp", ".c", ".rs", ".ipynb"))]
        found += promises.no_code(program, other, logs, texts, claimed, unread)
        found += promises.hidden(program)
        found += promises.nothing_trains(program, readmes.get(first, ""), first, other)
    return found if claimed and on_track else [_asked(finding, claimed) for finding in found]


def _asked(finding: Finding, claimed: bool) -> Finding:
    """The finding as a question, where the folder claims nothing that it could take from anybody."""
    why = "the folder calls itself no record" if claimed else "the folder claims no score"
    return (
        finding
        if finding.outcome != "fail"
        else finding._replace(outcome="question", message=f"{finding.message}; {why}")
    )


__all__ = ["Program", "code_findings"]
