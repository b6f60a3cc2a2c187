"""Rules about bytes and clocks, measured by the judge (R1 to R3; docs/rules.md, Clocks and limits)."""

from __future__ import annotations

from harness.base.text import count
from harness.edition import PROFILES
from harness.run.records import Attempt, SeedRecord, StageName
from harness.runners.base import RESOURCE_RULES
from harness.verdict.rule_info import RuleInfo
from harness.verdict.rules.base import CheckResult, Evidence, Rule, any_stage_done, violated


def counted_bytes(evidence: Evidence, record: SeedRecord) -> int | None:
    """code.pyz + config.yaml + artifact.bin of one seed; None before it is packed."""
    packed = record.packed()
    return (
        None
        if packed is None
        else evidence.code_bytes + evidence.config_bytes + packed.facts["artifact_bytes"]
    )


SIZE = RuleInfo(
    id="size",
    title="Code, recipe and artifact are more than 16,000,000 bytes",
    condition=None,
    source="R1, #1412, #1514, #1835",
    checks="code.pyz + config.yaml + artifact.bin of each packed seed against the cap, in decimal bytes",
    example="#1412: a 74-byte stub was counted, and it executes an 80,055-byte file; here the files that run "
    "are counted",
    not_covered="packages of the image and the tokenizer, which the rules do not count",
)


def _size(evidence: Evidence) -> CheckResult:
    sizes = {
        record.seed: n for record in evidence.seeds if (n := counted_bytes(evidence, record)) is not None
    }
    cap = evidence.limits.counted_bytes
    over = {seed: n for seed, n in sizes.items() if n > cap}
    if over:
        return CheckResult(
            "fail",
            "; ".join(f"seed {s}: {n:,} bytes counted, {n - cap:,} over {cap:,}" for s, n in over.items()),
            limit=True,
        )
    if (failed := violated(evidence, ("size",))) is not None:
        return failed
    if not sizes:
        return CheckResult("unknown", "no seed was packed")
    return CheckResult(
        "pass",
        f"at most {max(sizes.values()):,} of {cap:,} bytes: code {evidence.code_bytes:,} + config "
        f"{evidence.config_bytes:,} + artifact, over {count(len(sizes), 'seed')}",
    )


TRAIN_CLOCK = RuleInfo(
    id="train-clock",
    title="Training took longer than the profile allows",
    condition=None,
    source="R2, #1017 V",
    checks="seconds from `train` sent to `trained` received, for each seed; half a second of grace. A clock "
    "that `--train-seconds` shortened is unknown at best",
    example="#1908: FORCE_STOP_STEP=4945 ignored the clock, and training took 601.153 s of 600 s",
    not_covered="work before the first training byte is seen (setup, reported apart)",
)
PACK_CLOCK = RuleInfo(
    id="pack-clock",
    title="Packing took longer than the profile allows",
    condition=None,
    source="#1868",
    checks="seconds from `ready` to `packed`, for each seed",
    example="no public one is near 900 s: brotli took 65 s and lrzip 118 s (#1868, #1950)",
    not_covered="what is searched for in this time; it sees no data and no GPU",
)
SCORE_CLOCK = RuleInfo(
    id="score-clock",
    title="Scoring took longer than the profile allows",
    condition=None,
    source="R3",
    checks="seconds from the first chunk revealed to the last commit, for each seed",
    example="#2018: an evaluation of 639.9 s under 600 s",
    not_covered="the time of setup, reported apart",
)


def _clock(info: RuleInfo, stage: StageName, limit_of: str) -> Rule:
    """The rule that `stage` ends within the field `limit_of` of the profile's limits."""

    def check(evidence: Evidence) -> CheckResult:
        limit = float(getattr(evidence.limits, limit_of))
        if (failed := violated(evidence, (info.id,))) is not None:
            return failed
        ended = (record.packed() if stage == "pack" else record.done(stage) for record in evidence.seeds)
        done = [attempt for attempt in ended if attempt is not None]
        if not done:
            return CheckResult("unknown", f"no seed finished {stage}")
        kept = f"{_range(done)} of {limit:g} s, over {count(len(done), 'seed')}"
        if stage == "train" and evidence.shortened is not None:
            return CheckResult(
                "unknown",
                f"{kept}; the clock was shortened (`--train-seconds`), so what the submission does with "
                f"its {PROFILES[evidence.profile].train_seconds:g} s was not seen",
            )
        return CheckResult("pass", kept)

    return Rule(info, check, decides="record" if stage == "train" else "never")


def _range(done: list[Attempt]) -> str:
    seconds = sorted(attempt.seconds or 0.0 for attempt in done)
    return f"{seconds[0]:.3f}" if seconds[0] == seconds[-1] else f"{seconds[0]:.3f} to {seconds[-1]:.3f}"


SETUP_CLOCK = RuleInfo(
    id="setup-clock",
    title="A stage took too long to become ready",
    condition=None,
    source="design of this harness",
    checks="seconds from the start of the container or process to `ready`, for every stage",
    example="kernels that compile for longer than the 900 s of profile `record`",
    not_covered="what is done in it; it sees no data of its stage",
)


def _setup(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("setup-clock",))) is not None:
        return failed
    seconds = [a.setup_seconds for r in evidence.seeds for a in r.attempts if a.setup_seconds is not None]
    if not seconds:
        return CheckResult("unknown", "no stage that became ready came to its end")
    return CheckResult("pass", f"at most {max(seconds):.1f} of {evidence.limits.setup_seconds:g} s")


SAMPLED = (
    "; measured twice a second, so a shorter peak of several processes together was not seen, nor /dev/shm"
)
"""What the runner without isolation does not see (harness/runners/local.py)."""

RESOURCES = RuleInfo(
    id="resources",
    title="A stage used more memory or wrote more than it may",
    condition=None,
    source="design of this harness",
    checks="memory, processes and threads, bytes and files of what a stage writes, and bytes of its log, for "
    "every stage",
    example="a training that leaves a checkpoint of more than 16 GiB, or more than 1,024 files",
    not_covered="GPU memory",
)


def _resources(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, RESOURCE_RULES)) is not None:
        return failed
    if not any_stage_done(evidence):
        return CheckResult("unknown", "no stage finished")
    limits = evidence.limits
    return CheckResult(
        "pass",
        f"memory {limits.memory_bytes:,}, checkpoint {limits.checkpoint_bytes:,}, log "
        f"{limits.log_bytes:,} bytes, {limits.pids:,} processes and threads: none exceeded"
        + ("" if evidence.isolated else SAMPLED),
    )


RULES = (
    Rule(SIZE, _size),
    _clock(TRAIN_CLOCK, "train", "train_seconds"),
    _clock(PACK_CLOCK, "pack", "pack_seconds"),
    _clock(SCORE_CLOCK, "score", "score_seconds"),
    Rule(SETUP_CLOCK, _setup),
    Rule(RESOURCES, _resources),
)
