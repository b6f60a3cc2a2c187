"""Decide `valid`, `invalid` or `inconclusive` from the findings, and assemble verdict.json and the exit code.

A failed rule makes a run invalid. It is inconclusive while any of C1 to C4, or a declared seed, is not shown,
in every profile and whatever the reason; in profile `record` more rules must be known (`Rule.decides`). The
significance test is reported and does not change the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from harness.base.exit_codes import ExitCode
from harness.edition import EDITION, SIGNIFICANCE
from harness.run.records import SeedRecord
from harness.run.submission import Baseline
from harness.scoring import significance
from harness.verdict.condition_info import CONDITIONS
from harness.verdict.rules import RULES, Evidence, Rule, finding
from harness.verdict.rules.limits import counted_bytes

SCHEMA = 1
Decision = Literal["valid", "invalid", "inconclusive"]


class Judgement(NamedTuple):
    """A decision with its reasons; the fields are keys of verdict.json."""

    verdict: Decision
    decided_by: list[str]
    """Ids of the rules that failed, or of those that leave it inconclusive; empty for `valid`."""
    shown: list[str]
    """The conditions of #1017 that the run shows."""
    not_shown: dict[str, str]
    """The others, each with the reason in a few words."""
    findings: list[dict[str, Any]]


def judge(evidence: Evidence, rules: Sequence[Rule] = RULES) -> Judgement:
    """Check every rule, and decide."""
    findings = [finding(rule, evidence) for rule in rules]
    ids = [info.id for info in CONDITIONS]
    not_shown = {
        condition: why for condition in ids if (why := _why_not_shown(condition, findings)) is not None
    }
    shown = [condition for condition in ids if condition not in not_shown]
    failed = [found["rule"] for found in findings if found["outcome"] == "fail"]
    if failed:
        return Judgement("invalid", failed, shown, not_shown, findings)
    deciding = {
        rule.id
        for rule in rules
        if rule.decides == "always" or (rule.decides == "record" and evidence.profile == "record")
    }
    unknown = [f["rule"] for f in findings if f["outcome"] == "unknown" and f["rule"] in deciding]
    verdict: Decision = "inconclusive" if unknown else "valid"
    return Judgement(verdict, unknown, shown, not_shown, findings)


def _why_not_shown(condition: str, findings: list[dict[str, Any]]) -> str | None:
    """Why a condition is not shown, in a few words; None where every finding about it passes."""
    about = [found for found in findings if found["condition"] == condition]
    missing = [found for found in about if found["outcome"] != "pass"]
    if about and not missing:
        return None
    whys = (found["why"] or f"{found['rule']} {found['outcome']}" for found in missing)
    return ", ".join(dict.fromkeys(whys)) or "not checked"


def exit_code(verdict: dict[str, Any], allow_open: bool = False, stopped: str | None = None) -> ExitCode:
    """The first that applies: machine fault, interrupted, over a limit, rule broken, inconclusive, valid.

    `allow_open` accepts an inconclusive verdict as if it were valid, and changes nothing else. `stopped`:
    whether a `machine` fault ended this very command, or it was `interrupted`; None for neither.
    """
    failed = [found for found in verdict["findings"] if found["outcome"] == "fail"]
    ended = {stopped, *(row["outcome"] for row in verdict.get("seeds", []))}
    if "machine" in ended:
        return ExitCode.MACHINE
    if "interrupted" in ended:
        return ExitCode.INTERRUPTED
    if any(found["limit"] for found in failed):
        return ExitCode.LIMIT
    if failed:
        return ExitCode.VIOLATION
    decided = verdict["verdict"] == "valid" or allow_open
    return ExitCode.VALID if decided else ExitCode.INCONCLUSIVE


def seed_row(evidence: Evidence, record: SeedRecord, run_dir: str) -> dict[str, Any]:
    """One seed as verdict.json lists it; null for what is unknown."""
    train, scored, packed = record.done("train"), record.done("score"), record.packed()
    done = (train, packed, scored)
    facts = scored.facts if scored else {}
    witnessed = record.done("witness")
    ended = record.violation() or (record.attempts[-1] if record.attempts else None)
    return {
        "seed": record.seed,
        "outcome": record.outcome(),
        **{key: facts.get(key) for key in ("bpb", "nats_per_token", "scored_tokens", "scored_bytes")},
        "setup_seconds": max(
            (a.setup_seconds for a in done if a and a.setup_seconds is not None), default=None
        ),
        "train_seconds": train and train.seconds,
        "pack_seconds": packed and packed.seconds,
        "score_seconds": scored and scored.seconds,
        "claims": train.claims if train else {},
        "artifact_bytes": packed and packed.facts["artifact_bytes"],
        "code_bytes": evidence.code_bytes,
        "config_bytes": evidence.config_bytes,
        "counted_bytes": counted_bytes(evidence, record),
        "artifact_sha256": packed and packed.facts["artifact_sha256"],
        "ledger_sha256": facts.get("ledger_sha256"),
        "run_dir": run_dir,
        "documents": facts.get("documents"),
        "witness_seconds": witnessed and witnessed.seconds,
        "certificate": witnessed and witnessed.facts["certificate"],
        "unasked": witnessed and witnessed.facts["unasked"],
        "attempts": record.attempts_by_stage(),
        **cpu_shares(record),
        "reason": None if scored or ended is None else ended.message,
    }


def cpu_shares(record: SeedRecord) -> dict[str, dict[str, float | None]]:
    """What other processes and a hypervisor took of the cores in each stage that was begun, 0 to 1.

    null for what is not known. It decides nothing.
    """
    used = record.cpu_use()
    return {
        "others_cpu_share": {stage: None if use is None else use.others_share for stage, use in used.items()},
        "stolen_cpu_share": {stage: None if use is None else use.stolen_share for stage, use in used.items()},
    }


def baseline_of(evidence: Evidence, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The significance test against the manifest's baseline; `tests` is null, with a reason, if none applies.

    `tests_with_G` is the same test with each score raised by its certificate's bound G. None without a
    baseline.
    """
    baseline = evidence.manifest.baseline
    if baseline is None:
        return None
    facts: dict[str, Any] = {
        "name": baseline.name,
        "source": baseline.source,
        "dataset": baseline.dataset,
        "profile": baseline.profile,
        "bpb": {str(s): v for s, v in baseline.bpb.items()},
        "tests": None,
        "tests_with_G": None,
        "reason": None,
    }
    scored = [row for row in rows if row["bpb"] is not None]
    if (baseline.dataset, baseline.profile) != (evidence.dataset, evidence.profile):
        facts["reason"] = (
            f"measured on {baseline.dataset}, profile {baseline.profile}: not comparable with "
            f"{evidence.dataset}, profile {evidence.profile}"
        )
    elif evidence.shortened is not None:
        facts["reason"] = f"trained under a clock of {evidence.shortened:g} s: not comparable"
    elif len(scored) < 2:
        facts["reason"] = "fewer than two seeds were scored"
    elif not significance.has_spread([row["bpb"] for row in scored], list(baseline.bpb.values())):
        facts["reason"] = (
            "no seed differs from another, in this run or in the baseline: the test is undefined"
        )
    else:
        bytes_per_token = scored[0]["scored_bytes"] / scored[0]["scored_tokens"]
        facts["tests"] = _tests([row["bpb"] for row in scored], baseline, bytes_per_token)
        if all(row["certificate"] for row in scored):
            worst_case = [row["bpb"] + row["certificate"]["G_bpb"] for row in scored]
            facts["tests_with_G"] = _tests(worst_case, baseline, bytes_per_token)
    return facts


def _tests(values_bpb: list[float], baseline: Baseline, bytes_per_token: float) -> list[dict[str, Any]]:
    return [
        significance.welch(values_bpb, list(baseline.bpb.values()), rule, bytes_per_token)._asdict()
        for rule in SIGNIFICANCE
    ]


def assemble(
    evidence: Evidence, rows: list[dict[str, Any]], host: dict[str, Any], extra: dict[str, Any]
) -> dict[str, Any]:
    """The content of verdict.json; `extra` holds further keys."""
    judgement = judge(evidence)
    values = [row["bpb"] for row in rows if row["bpb"] is not None]
    summary = significance.summarise(values) if values else None
    return {
        "schema": SCHEMA,
        "submission": evidence.manifest.name,
        "edition": EDITION,
        "profile": evidence.profile,
        "runner": evidence.runner,
        "isolation": evidence.isolation,
        "track": evidence.manifest.track,
        "limits": evidence.limits.public(),
        "shortened_train_seconds": evidence.shortened,
        "dataset": {"name": evidence.dataset, "sha256": evidence.dataset_sha256},
        "image": evidence.image,
        "image_lock": evidence.image_lock,
        "image_lacks": list(evidence.image_lacks),
        "host": host,
        "seeds": rows,
        "mean_bpb": summary and summary.mean,
        "sd_bpb": summary and summary.sd,
        "ci95_bpb": summary and summary.ci95 and list(summary.ci95),
        "baseline": baseline_of(evidence, rows),
        **judgement._asdict(),
        **extra,
    }
