"""Cross-checks of a record's numbers: each asks whether the numbers that a folder states can all be true.

One subject a file: denominator (bytes and nats), limits (bytes and clocks), seeds, curves (copies, first
losses, time stamps), agreement (README, JSON, logs), significance, data (shards and counters). A check gives
`fail` only for what the folder's own numbers prove. A number that breaks a rule in one place and not in
another is a question, and what the folder does not state is `unknown` with the reason. Only a run can show
whether the numbers are true.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.audit.finding import Finding
from harness.audit.numbers import agreement, curves, data, denominator, limits, seeds, significance
from harness.audit.record.facts import Record

FILES = (denominator, limits, seeds, curves, agreement, significance, data)
"""In the order of the report."""
RULES = tuple(info for file in FILES for info in file.RULES)
CHECKS = tuple(check for file in FILES for check in file.CHECKS)
MAX_SAME = 3
"""Findings of one check that a folder gets."""


def number_findings(record: Record, texts: Mapping[str, str]) -> list[Finding]:
    """Run all cross-checks. Never raises because of what a file holds."""
    return [finding for check in CHECKS for finding in list(check(record, texts))[:MAX_SAME]]
