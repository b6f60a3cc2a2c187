"""Where the numbers come from: seeds, environment, isolation, what each stage could see, and the claim beside
them."""

from __future__ import annotations

from harness.edition import OFFICIAL_GPU, OFFICIAL_GPUS, TOLERANCES
from harness.verdict.rules.base import CheckResult, Evidence, Rule, ended_early, violated


def _seeds(evidence: Evidence) -> CheckResult:
    scored = [record.seed for record in evidence.seeds if record.outcome() == "scored"]
    missing = [str(seed) for seed in evidence.manifest.seeds if seed not in scored]
    if missing:
        return CheckResult(
            "unknown", f"seeds {', '.join(missing)} of the manifest were not scored in this run"
        )
    if evidence.set_aside:
        return CheckResult(
            "unknown",
            f"seeds {', '.join(map(str, evidence.set_aside))} were run before: `--again` set earlier "
            "runs of them aside, in this run's folder",
        )
    return CheckResult(
        "pass",
        f"all {len(evidence.manifest.seeds)} seeds of the manifest were scored, none replaced"
        + ended_early(evidence, "train", "training attempts"),
    )


def _conduct(evidence: Evidence) -> CheckResult:
    if (failed := violated(evidence, ("protocol", "contestant"))) is not None:
        return failed
    if not any(record.done("train") for record in evidence.seeds):
        return CheckResult("unknown", "no stage was gone through")
    return CheckResult(
        "pass", "every frame in turn, every number lawful, no stage left before its last frame"
    )


def _hardware(evidence: Evidence) -> CheckResult:
    trained = [attempt for record in evidence.seeds if (attempt := record.done("train")) is not None]
    found = {
        ", ".join(gpu["name"] for gpu in attempt.host.get("gpus", [])) or "no GPU" for attempt in trained
    }
    official = bool(trained) and all(
        sum(OFFICIAL_GPU in gpu["name"] for gpu in attempt.host.get("gpus", [])) == OFFICIAL_GPUS
        for attempt in trained
    )
    names = "; ".join(sorted(found)) or "no seed was trained"
    return CheckResult(
        "pass" if official else "unknown", f"trained on {names}; official is {OFFICIAL_GPUS} x {OFFICIAL_GPU}"
    )


def _environment(evidence: Evidence) -> CheckResult:
    if evidence.image is None:
        return CheckResult("unknown", "no image: the packages of this machine's own environment")
    return CheckResult(
        "pass", f"image {evidence.image} built from lock {evidence.image_lock}, which the manifest names"
    )


def _isolation(evidence: Evidence) -> CheckResult:
    return CheckResult("pass" if evidence.isolated else "unknown", f"isolation: {evidence.isolation}")


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
    Rule("seeds", None, "R10, #1017", "seeds that were tried and not reported", _seeds, decides_records=True),
    Rule("conduct", None, "docs/protocol.md", "what a contestant does between two frames", _conduct),
    Rule(
        "hardware",
        None,
        "R2, R3",
        "clock speeds and links, which the driver's names do not tell",
        _hardware,
        decides_records=True,
    ),
    Rule(
        "environment",
        None,
        "R9, R12",
        "the host's kernel, driver and firmware",
        _environment,
        decides_records=True,
    ),
    Rule(
        "isolation",
        None,
        "design of this harness",
        "side channels inside one machine",
        _isolation,
        decides_records=True,
    ),
    Rule(
        "data-separation",
        None,
        "R4, #1017 C1",
        "validation text known from elsewhere and carried in code or recipe",
        _data,
        decides_records=True,
    ),
    Rule("claim", None, "R9", "other seeds than those compared", _claim),
)
