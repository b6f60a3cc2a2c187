"""A rule of a run: its description, and a check from evidence to a finding.

A check looks only at what the judge measured. A finding says pass, fail or unknown, the numbers and places
that decide it, and what it does not cover. See `harness/verdict/decide.py` for the verdict over all findings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from harness.base.text import count
from harness.edition import PROFILES, Limits
from harness.run.records import SeedRecord, StageName
from harness.run.submission import Manifest
from harness.verdict.rule_info import RuleInfo

Outcome = Literal["pass", "fail", "unknown"]
Decides = Literal["always", "record", "never"]
"""Where an `unknown` leaves a verdict inconclusive: in every profile, in profile `record`, or nowhere."""


class Submitted(NamedTuple):
    """What a submission adds to the program that was judged."""

    manifest: Manifest
    code_bytes: int
    config_bytes: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that checks may look at."""

    track: str
    profile: str
    limits: Limits
    seeds: list[SeedRecord]
    """One record for each seed that the folder holds or its manifest declared."""
    runner: str
    isolated: bool
    isolation: str
    image: str | None
    image_lock: str | None = None
    image_lacks: tuple[str, ...] = ()
    """The wheels that the lock pins and the image was built without."""
    dataset: str = ""
    dataset_sha256: str = ""
    archived: tuple[SeedRecord, ...] = ()
    """Earlier runs of seeds, which `--again` archived."""
    later: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """By seed: the certificates that rescorings added (later_certificates.py)."""
    submission: Submitted | None = None
    """None where a program is judged without one (`pgolf score`): then only the rules about scoring apply."""

    @property
    def submitted(self) -> Submitted:
        """The submission, for the rules that are about one."""
        assert self.submission is not None, "this rule is about a submission, and there is none"
        return self.submission

    @property
    def manifest(self) -> Manifest:
        return self.submitted.manifest

    @property
    def code_bytes(self) -> int:
        return self.submitted.code_bytes

    @property
    def config_bytes(self) -> int:
        return self.submitted.config_bytes

    def later_failures(self, condition: str) -> list[dict[str, Any]]:
        """The later certificates that fail a condition, each with its seed."""
        return [
            {**certificate, "seed": seed}
            for seed, certificates in self.later.items()
            for certificate in certificates
            if condition in certificate["failed"]
        ]

    @property
    def shortened(self) -> float | None:
        """The train clock in seconds if it is shorter than the profile's, else None."""
        seconds = self.limits.train_seconds
        return seconds if seconds < PROFILES[self.profile].train_seconds else None


class CheckResult(NamedTuple):
    """What a check found."""

    outcome: Outcome
    evidence: str
    limit: bool = False
    """Whether a limit was exceeded: decides between exit codes 4 and 1."""
    why: str = ""
    """Why it is unknown, in two or three words for the headline."""


class Rule(NamedTuple):
    """One rule of the edition."""

    info: RuleInfo
    check: Callable[[Evidence], CheckResult]
    decides: Decides = "never"

    @property
    def id(self) -> str:
        return self.info.id


def finding(rule: Rule, evidence: Evidence) -> dict[str, Any]:
    """The rule's finding as verdict.json holds it."""
    result = rule.check(evidence)
    return {
        "rule": rule.info.id,
        "condition": rule.info.condition,
        "outcome": result.outcome,
        "evidence": result.evidence,
        "not_covered": rule.info.not_covered,
        "source": rule.info.source,
        "limit": result.limit,
        "why": result.why,
    }


def any_stage_done(evidence: Evidence) -> bool:
    """Whether any stage of any seed came to its end."""
    return any(attempt.outcome == "done" for record in evidence.seeds for attempt in record.attempts)


def violated(evidence: Evidence, rule_ids: tuple[str, ...]) -> CheckResult | None:
    """All violations that the judge recorded under `rule_ids`, as one result; None where there are none."""
    found = [
        (record.seed, attempt)
        for record in evidence.seeds
        for attempt in record.attempts
        if attempt.outcome in ("failed", "over_limit") and attempt.rule in rule_ids
    ]
    if not found:
        return None
    lines = []
    for seed, attempt in found:
        first_line = (attempt.message or "").partition("\n")[0]
        lines.append(f"seed {seed}, {attempt.stage}: {first_line}")
    return CheckResult("fail", "; ".join(lines), any(attempt.outcome == "over_limit" for _, attempt in found))


def ended_early(evidence: Evidence, stage: StageName, what: str) -> str:
    """How many attempts at a stage were interrupted or ended by the machine, as the end of a sentence.

    `what` names one such attempt. Empty where there were none.
    """
    n_ended = sum(
        attempt.stage == stage and attempt.outcome in ("interrupted", "machine")
        for record in evidence.seeds
        for attempt in record.attempts
    )
    return (
        f"; {count(n_ended, what)} interrupted or ended by a machine fault (listed in run.json)"
        if n_ended
        else ""
    )
