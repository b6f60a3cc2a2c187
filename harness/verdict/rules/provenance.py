"""Rules on where the numbers come from: seeds, hardware, environment, isolation, data, and the claim."""

from __future__ import annotations

from harness.base.host import gpu_names
from harness.edition import OFFICIAL_GPU, OFFICIAL_GPUS, TOLERANCES
from harness.run.records import SeedRecord
from harness.verdict.rule_info import RuleInfo
from harness.verdict.rules.base import CheckResult, Evidence, Rule, any_stage_done, ended_early, violated

SEEDS = RuleInfo(
    id="seeds",
    title="A seed of the manifest was not scored, or was run more than once",
    condition=None,
    source="R10, #1017",
    checks="whether the folder holds a score of every seed that the manifest declared, no seed that it does "
    "not declare, and none that `--again` ran again; an archived run that broke a rule other than a clock "
    "fails; trainings that ended early are counted",
    example="#2124: the third seed is of another configuration",
    not_covered="seeds that were tried and not reported",
)


def _seeds(evidence: Evidence) -> CheckResult:
    scored = [record.seed for record in evidence.seeds if record.outcome() == "scored"]
    missing = [str(record.seed) for record in evidence.seeds if record.seed not in scored]
    undeclared = [str(record.seed) for record in evidence.seeds if record.seed not in evidence.manifest.seeds]
    problems, why = [], []
    if missing:
        problems.append(f"seeds that were declared and not scored: {', '.join(missing)}")
        why.append("seeds missing")
    if undeclared:
        problems.append(
            f"seeds that were declared before and are in the manifest no longer: {', '.join(undeclared)}"
        )
        why.append("seeds no longer declared")
    if evidence.archived:
        problems.append(
            f"seeds that were run before: {_earlier_scores(evidence.archived)}; `--again` archived "
            "these runs in this folder"
        )
        why.append("seeds run again")
    ended = ended_early(evidence, "train", "training attempt")
    if any(breach(record) not in (None, *CLOCKS) for record in evidence.archived):
        return CheckResult("fail", "; ".join(problems) + ended)
    if problems:
        return CheckResult("unknown", "; ".join(problems) + ended, why=", ".join(why))
    n_seeds = len(evidence.manifest.seeds)
    count = "the one seed" if n_seeds == 1 else f"all {n_seeds} seeds"
    return CheckResult("pass", f"{count} of the manifest scored, none run again{ended}")


CLOCKS = ("setup-clock", "train-clock", "pack-clock", "score-clock")
"""Broken by a busy machine too: an archived run that broke one leaves the seeds open and fails nothing."""


def breach(record: SeedRecord) -> str | None:
    """The rule that one seed's run broke, or the condition that its certificate fails; None for neither."""
    if (violation := record.violation()) is not None:
        return violation.rule or "conduct"
    witness = record.done("witness")
    certificate = (witness.facts.get("certificate") if witness else None) or {"conditions": []}
    return next((each["condition"] for each in certificate["conditions"] if each["outcome"] == "fail"), None)


def _earlier_scores(archived: tuple[SeedRecord, ...]) -> str:
    """Each archived run with its score, in bits per byte, or its outcome, and with what it broke."""
    texts = []
    for record in archived:
        done, broken = record.done("score"), breach(record)
        outcome = record.outcome() if done is None else f"{done.facts['bpb']:.4f}"
        texts.append(f"{record.seed} ({outcome}{f', broke {broken}' if broken else ''})")
    return ", ".join(texts)


CONDUCT = RuleInfo(
    id="conduct",
    title="The contestant broke the protocol or left a stage early",
    condition=None,
    source="docs/protocol.md",
    checks="the order and contents of every frame, and that no stage's process ended before its last frame",
    example="a score that is not a number, or a process that exits after half of the chunks",
    not_covered="what a contestant does between two frames",
)


def _conduct(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("protocol", "contestant"))) is not None:
        return failed
    if not any_stage_done(evidence):
        return CheckResult("unknown", "no stage finished")
    return CheckResult(
        "pass", "every frame in order, every number valid, no stage ended before its last frame"
    )


HARDWARE = RuleInfo(
    id="hardware",
    title="The run was not trained on the official GPUs",
    condition=None,
    source="R2, R3",
    checks="the driver's names of the GPUs that each seed was trained on: eight H100 pass, all else is "
    "unknown",
    example="#316: 1.2035, stated from a run on one GPU",
    not_covered="clock speeds and links, which the driver's names do not tell",
)


def _hardware(evidence: Evidence) -> CheckResult:
    trained = [attempt for record in evidence.seeds if (attempt := record.done("train")) is not None]
    if not trained:
        return CheckResult("unknown", f"no seed was trained; official is {OFFICIAL_GPUS} x {OFFICIAL_GPU}")
    official = all(
        sum(OFFICIAL_GPU in gpu["name"] for gpu in attempt.host.get("gpus", [])) == OFFICIAL_GPUS
        for attempt in trained
    )
    names = "; ".join(sorted({gpu_names(attempt.host) for attempt in trained}))
    return CheckResult(
        "pass" if official else "unknown", f"trained on {names}; official is {OFFICIAL_GPUS} x {OFFICIAL_GPU}"
    )


ENVIRONMENT = RuleInfo(
    id="environment",
    title="The run did not use the image that the manifest names",
    condition=None,
    source="R9, R12",
    checks="whether the stages ran in a container image, and which lock it was built from; without an image, "
    "and in one that was built without a wheel of its lock, it is unknown",
    example="#1855: lrzip of the system is called; without it the artifact is 16,112,007 bytes",
    not_covered="the host's kernel, driver and firmware",
)


def _environment(evidence: Evidence) -> CheckResult:
    if evidence.image is None:
        return CheckResult("unknown", "no image: the packages of this machine's own environment")
    built = f"image {evidence.image} built from lock {evidence.image_lock}, which the manifest names"
    if evidence.image_lacks:
        lacking = ", ".join(evidence.image_lacks)
        return CheckResult("unknown", f"{built}, but without {lacking}", why=f"image without {lacking}")
    return CheckResult("pass", built)


ISOLATION = RuleInfo(
    id="isolation",
    title="The stages were not isolated from the machine",
    condition=None,
    source="design of this harness",
    checks="whether the runner isolates the stages: a container does, the local runner does not",
    example="`pgolf run --runner local`",
    not_covered="side channels inside one machine",
)


def _isolation(evidence: Evidence) -> CheckResult:
    return CheckResult("pass" if evidence.isolated else "unknown", f"isolation: {evidence.isolation}")


DATA_SEPARATION = RuleInfo(
    id="data-separation",
    title="A stage could read text that it must not see",
    condition=None,
    source="R4, #1017 C1",
    checks="what the runner gives each stage: no validation text in train and pack, no training text in pack "
    "and score, no network; unknown where the runner cannot hide the rest of the machine",
    example="#44: trained on the validation text itself (1.1111)",
    not_covered="validation text known from elsewhere and carried in code or recipe",
)


def _data(evidence: Evidence) -> CheckResult:
    if not evidence.isolated:
        return CheckResult(
            "unknown", "the local runner hands over no validation text in train and pack, but cannot hide it"
        )
    return CheckResult(
        "pass",
        f"dataset {evidence.dataset} ({evidence.dataset_sha256[:12]}): no validation text in train or "
        "pack, no training text in pack or score, no network",
    )


CLAIM = RuleInfo(
    id="claim",
    title="The run scores worse than its manifest claims",
    condition=None,
    source="R9",
    checks="the claimed against the measured score of each seed, where dataset and profile are the claim's: "
    "worse by more than 0.004 bits per byte fails",
    example="#86: 1.1502 claimed, 1.1864 when it was run again",
    not_covered="other seeds than those compared",
)


def _claim(evidence: Evidence) -> CheckResult:
    claim = evidence.manifest.claim
    if claim is None:
        return CheckResult("unknown", "the manifest claims no score")
    if (claim.dataset, claim.profile) != (evidence.dataset, evidence.profile):
        return CheckResult(
            "unknown",
            f"the claim is about {claim.dataset}, profile {claim.profile}; this run is {evidence.dataset}, "
            f"profile {evidence.profile}",
        )
    if evidence.shortened is not None:
        return CheckResult(
            "unknown", f"trained under a clock of {evidence.shortened:g} s, which the claim is not about"
        )
    measured = {r.seed: a.facts["bpb"] for r in evidence.seeds if (a := r.done("score")) is not None}
    worse = {
        seed: measured[seed] - bpb
        for seed, bpb in claim.bpb.items()
        if seed in measured and measured[seed] - bpb > TOLERANCES.claim_bpb
    }
    compared = sorted(set(measured) & set(claim.bpb))
    if not compared:
        return CheckResult("unknown", "none of the claimed seeds was scored")
    text = "; ".join(
        f"seed {seed}: {claim.bpb[seed]:.4f} claimed, {measured[seed]:.4f} measured" for seed in compared
    )
    return CheckResult("fail" if worse else "pass", text)


RULES = (
    Rule(SEEDS, _seeds, decides="always"),
    Rule(CONDUCT, _conduct),
    Rule(HARDWARE, _hardware, decides="record"),
    Rule(ENVIRONMENT, _environment, decides="record"),
    Rule(ISOLATION, _isolation, decides="record"),
    Rule(DATA_SEPARATION, _data, decides="record"),
    Rule(CLAIM, _claim),
)
