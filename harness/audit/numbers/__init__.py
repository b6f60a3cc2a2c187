"""Cross-checks of a record's numbers: each asks whether what a folder states can be true together.

One idea a file: denominator (bytes and nats), limits (bytes and clocks), seeds, curves (copies, first losses,
time stamps), agreement (README, JSON, logs), significance, data (shards and counters). `fail` only for what
the folder's own numbers prove; a number that breaks a rule in one place and not in another is a question;
what cannot be told is `unknown` with its reason. Not covered: whether the numbers are true; only a run can
show that."""

from __future__ import annotations

from collections.abc import Mapping

from harness.audit.finding import Finding
from harness.audit.numbers import agreement, curves, data, denominator, limits, seeds, significance
from harness.audit.record.facts import Record

CHECKS = (
    denominator.validation_bytes,
    denominator.fingerprint,
    denominator.one_ratio,
    denominator.floor,
    limits.artifact,
    limits.code,
    limits.train_clock,
    limits.eval_clock,
    seeds.mean_or_best,
    seeds.one_log_twice,
    seeds.mislabelled,
    curves.copies,
    curves.first_loss,
    curves.stamps,
    curves.step_times,
    agreement.claim_and_logs,
    agreement.readme,
    significance.recomputed,
    data.overlap,
    data.gates,
)
MAX_SAME = 3
"""Findings of one check that a folder gets."""


def number_findings(record: Record, texts: Mapping[str, str]) -> list[Finding]:
    """What the numbers of a record say together. Never raises for what a file holds."""
    return [finding for check in CHECKS for finding in list(check(record, texts))[:MAX_SAME]]
