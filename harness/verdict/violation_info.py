"""The ids under which run.json records what ended a stage, and the finding that each becomes in verdict.json.

The same list is a table in docs/protocol.md, What ends a stage.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ViolationInfo:
    """The description of one id that `rule` of an attempt in run.json may have."""

    id: str
    title: str
    """What the contestant did."""
    finding: str
    """The rule of a run whose finding reports it."""
    exit_code: str
    source: str = "docs/protocol.md, What ends a stage"

    def public(self) -> dict[str, Any]:
        """The violation as `pgolf explain --json` prints it."""
        return asdict(self)


_LIMIT = "4, a limit was exceeded"
_RULE = "1, a rule is violated"
VIOLATIONS = (
    ViolationInfo(
        "protocol", "A frame or a number was malformed, unexpected or out of turn", "conduct", _RULE
    ),
    ViolationInfo("contestant", "The process ended before its last frame", "conduct", _RULE),
    *(
        ViolationInfo(f"{stage}-clock", f"The {stage} clock ran out", f"{stage}-clock", _LIMIT)
        for stage in ("setup", "train", "pack", "score")
    ),
    ViolationInfo("size", "Code, recipe and the artifact that was packed are over the cap", "size", _LIMIT),
    ViolationInfo("memory", "A stage used more memory than its limit", "resources", _LIMIT),
    ViolationInfo(
        "processes", "A stage had, or wanted, more processes and threads than its limit", "resources", _LIMIT
    ),
    ViolationInfo("log", "A stage printed more than its log may hold", "resources", _LIMIT),
    ViolationInfo(
        "output",
        "A stage left too much, too little, a link, a special file or an invalid name",
        "resources",
        f"{_LIMIT}, for too much; otherwise {_RULE}",
    ),
    ViolationInfo("track", "A submission of track A announced that it adapts", "score-first", _RULE),
)
