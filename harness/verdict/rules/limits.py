"""Limits: bytes and clocks, measured from outside (R1 to R3; docs/rules.md, Clocks and limits)."""

from __future__ import annotations

from harness.edition import PROFILES
from harness.run.records import Attempt, SeedRecord, StageName
from harness.verdict.rules.base import CheckResult, Evidence, Rule, violated


def counted_bytes(evidence: Evidence, record: SeedRecord) -> int | None:
    """code.pyz + config.yaml + artifact.bin of one seed; None before it is packed."""
    packed = record.done("pack")
    return (
        None
        if packed is None
        else evidence.code_bytes + evidence.config_bytes + packed.facts["artifact_bytes"]
    )


def _size(evidence: Evidence) -> CheckResult:
    sizes = {
        record.seed: n for record in evidence.seeds if (n := counted_bytes(evidence, record)) is not None
    }
    cap = evidence.limits.counted_bytes
    if not sizes:
        return CheckResult("unknown", "no seed was packed")
    over = {seed: n for seed, n in sizes.items() if n > cap}
    if over:
        return CheckResult(
            "fail",
            "; ".join(f"seed {s}: {n:,} bytes counted, {n - cap:,} over {cap:,}" for s, n in over.items()),
            limit=True,
        )
    return CheckResult(
        "pass",
        f"at most {max(sizes.values()):,} of {cap:,} bytes: code {evidence.code_bytes:,} + config "
        f"{evidence.config_bytes:,} + artifact, over {len(sizes)} seeds",
    )


def _clock(stage: StageName, limit_of: str) -> Rule:
    rule_id = f"{stage}-clock"

    def check(evidence: Evidence) -> CheckResult:
        limit = float(getattr(evidence.limits, limit_of))
        if (failed := violated(evidence, (rule_id,))) is not None:
            return failed
        done = [attempt for record in evidence.seeds if (attempt := record.done(stage)) is not None]
        if not done:
            return CheckResult("unknown", f"no seed finished {stage}")
        kept = f"{_range(done)} of {limit:g} s, over {len(done)} seeds"
        if stage == "train" and evidence.shortened is not None:
            return CheckResult(
                "unknown",
                f"{kept}; the clock was shortened (`--train-seconds`), so what the submission does with "
                f"its {PROFILES[evidence.profile].train_seconds:g} s was not seen",
            )
        return CheckResult("pass", kept)

    not_covered = {
        "train": "work before the first training byte is seen (setup, reported apart)",
        "pack": "what is searched for in this time; it sees no data and no GPU",
        "score": "the time of setup, reported apart",
    }[stage]
    return Rule(
        rule_id,
        None,
        {"train": "R2, #1017 V", "pack": "#1868", "score": "R3"}[stage],
        not_covered,
        check,
        decides_records=stage == "train",
    )


def _range(done: list[Attempt]) -> str:
    seconds = sorted(attempt.seconds or 0.0 for attempt in done)
    return f"{seconds[0]:.3f}" if seconds[0] == seconds[-1] else f"{seconds[0]:.3f} to {seconds[-1]:.3f}"


def _setup(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("setup-clock",))) is not None:
        return failed
    seconds = [a.setup_seconds for r in evidence.seeds for a in r.attempts if a.setup_seconds is not None]
    if not seconds:
        return CheckResult("unknown", "no stage became ready")
    return CheckResult("pass", f"at most {max(seconds):.1f} of {evidence.limits.setup_seconds:g} s")


def _resources(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("memory", "output", "log"))) is not None:
        return failed
    if not any(record.done("train") for record in evidence.seeds):
        return CheckResult("unknown", "no stage finished")
    limits = evidence.limits
    return CheckResult(
        "pass",
        f"memory {limits.memory_bytes:,}, checkpoint {limits.checkpoint_bytes:,}, log "
        f"{limits.log_bytes:,} bytes: none exceeded",
    )


RULES = (
    Rule(
        "size",
        None,
        "R1, #1412, #1514, #1835",
        "packages of the image and the tokenizer, which the rules do not count",
        _size,
    ),
    _clock("train", "train_seconds"),
    _clock("pack", "pack_seconds"),
    _clock("score", "score_seconds"),
    Rule(
        "setup-clock",
        None,
        "design of this harness",
        "what is done in it; it sees no data of its stage",
        _setup,
    ),
    Rule("resources", None, "design of this harness", "GPU memory", _resources),
)
