"""Evidence and verdicts made by hand for tests of rules and reports: three clean seeds, with changes."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from harness.edition import PROFILES
from harness.run.records import Attempt, Outcome, SeedRecord, StageName
from harness.run.submission import Manifest
from harness.scoring.certificate import sampling
from harness.scoring.certificate.certificate import certify
from harness.scoring.certificate.forecast import decisive_nats
from harness.verdict import decide
from harness.verdict.rules import RULES, Evidence, Submitted, finding
from tests.harness.fakes.certificates import SEED, responses, scored_text

SEEDS = (1337, 42, 2024)
LIMITS = PROFILES["pocket"]
CAP = LIMITS.counted_bytes
OWN = 61_000
"""Bytes of code and recipe in the clean evidence."""
DIGEST = "sha256:" + "0" * 64
HOST: dict[str, Any] = {
    "system": "Linux",
    "python": "3.11",
    "cpu": "A CPU",
    "cores": 2,
    "memory_bytes": 1 << 33,
    "load": [0.1, 0.2, 0.3],
    "gpus": [],
}


def manifest(**changes: Any) -> Manifest:
    """A valid manifest; track A, seeds SEEDS, a claim and a baseline on another text."""
    return Manifest.model_validate(
        {
            "schema": 1,
            "name": "my-idea",
            "title": "An idea",
            "authors": ["A. Person"],
            "source": "#586",
            "track": "A",
            "dataset": "sp1024",
            "seeds": list(SEEDS),
            "image": {"cpu": DIGEST, "cuda": DIGEST},
            "claim": {"dataset": "fineweb-sp1024", "bpb": {1337: 1.1365}},
            **changes,
        }
    )


def attempt(stage: StageName, outcome: Outcome = "done", **changes: Any) -> Attempt:
    """One attempt with honest facts."""
    facts: dict[str, Any] = {
        "train": {"checkpoint_bytes": 1000},
        "pack": {"artifact_bytes": 5_000_000, "artifact_sha256": "ef" * 32},
        "score": {
            "bpb": 2.1,
            "nats_per_token": 3.5,
            "scored_tokens": 99_999,
            "scored_bytes": 240_000,
            "ledger_sha256": "ab" * 32,
            "borders": [boundary(4096)],
        },
        "witness": {},
    }[stage]
    claims: dict[str, Any] = {
        "train": {"steps": 100, "tokens": 10_000},
        "pack": {},
        "score": {"chunk_tokens": 4096, "adapts": False, "context": 512, "world": 1},
        "witness": {},
    }[stage]
    whole = {
        "stage": stage,
        "outcome": outcome,
        "started_at": "2026-05-01T00:00:00+00:00",
        "setup_seconds": 3.0,
        "seconds": 20.0,
        "wall_seconds": 24.0,
        "facts": facts,
        "claims": claims,
        "host": HOST,
    }
    if outcome != "done":
        whole |= {"seconds": None, "facts": {}, "claims": {}}
    return Attempt.model_validate(whole | changes)


def boundary(
    position: int, before: float = 3.0, after: float = 3.0, logsumexp: float = 1e-6
) -> dict[str, float]:
    return {"position": position, "before_nats": before, "after_nats": after, "logsumexp": logsumexp}


def record(seed: int, *, bpb: float = 2.1, artifact_bytes: int = 5_000_000, **score: Any) -> SeedRecord:
    """A seed that was scored; `score` changes facts of its scoring."""
    packed = attempt("pack", facts={"artifact_bytes": artifact_bytes, "artifact_sha256": "ef" * 32})
    done = [attempt("train"), packed, attempt("score")]
    done[2].facts |= {"bpb": bpb, **score}
    return SeedRecord(seed=seed, attempts=done)


@functools.cache
def _honest_certificate() -> str:
    """The facts of a witness that found nothing, as JSON."""
    return json.dumps(certified(0).attempts[-1].facts)


def witnessed(seed: int, **changes: Any) -> SeedRecord:
    """A seed that was scored, with a certificate that found nothing; `changes` as for `record`."""
    done = record(seed, **changes)
    done.attempts.append(attempt("witness", facts=json.loads(_honest_certificate())))
    return done


def certified(
    seed: int,
    gain_nats: float = 0.0,
    probes: int = 2000,
    silent: bool = False,
    profile: str = "pocket",
    **score: Any,
) -> SeedRecord:
    """The same seed with a real certificate of synthetic responses.

    The scorer reports `gain_nats` less than the witness; `silent` is a witness that could not be queried.
    """
    text = scored_text()
    plan = sampling.draw(SEED, text, probes)
    heard = responses(
        plan, np.where(np.arange(len(text.nats_T)) > 0, text.nats_T.astype(float) + gain_nats, 0.0)
    )
    made = certify(text, plan, [heard, heard], decisive=decisive_nats(profile)).public()
    facts = {
        "certificate": {
            **made,
            "seed": SEED.hex(),
            "times_begun": 1,
            "looks": [{}],
            "between": "",
            "lanes": None,
        },
        "unasked": None,
    }
    if silent:
        facts = {"certificate": None, "unasked": "the witness could not be asked: it left"}
    done = record(seed, **score)
    done.attempts.append(attempt("witness", facts=facts))
    return done


def broken(
    seed: int, stage: StageName, outcome: Outcome, rule: str | None = None, message: str = "it broke"
) -> SeedRecord:
    """A seed whose last attempt ended badly in `stage`."""
    before: list[StageName] = ["train", "pack", "score"]
    good = [attempt(name) for name in before[: before.index(stage)]]
    return SeedRecord(seed=seed, attempts=[*good, attempt(stage, outcome, rule=rule, message=message)])


def evidence(*seeds: SeedRecord, **changes: Any) -> Evidence:
    """Clean evidence of an isolated pocket run; its seeds are witnessed."""
    whole: dict[str, Any] = {
        "track": changes.get("manifest", manifest()).track,
        "profile": "pocket",
        "limits": PROFILES[changes.get("profile", "pocket")],
        "seeds": list(seeds) or [witnessed(seed, bpb=2.1 + index / 100) for index, seed in enumerate(SEEDS)],
        "submission": Submitted(manifest(), 60_000, 1_000),
        "dataset": "pocket",
        "dataset_sha256": "cd" * 32,
        "runner": "docker",
        "isolated": True,
        "isolation": "container: no network",
        "image": DIGEST,
        "image_lock": DIGEST,
    }
    parts = {key: changes.pop(key) for key in Submitted._fields if key in changes}
    whole["submission"] = whole["submission"]._replace(**parts)
    return Evidence(**(whole | changes))


def assembled(facts: Evidence) -> dict[str, Any]:
    """verdict.json's content."""
    rows = [decide.seed_row(facts, each, f"runs/my-idea/x/seed-{each.seed}") for each in facts.seeds]
    extra = {"compressors": {"xz -9e": 2.557}, "run_dir": "runs/my-idea/x", "remarks": [], "harness": None}
    return decide.assemble(facts, rows, HOST, extra)


def found(rule: str, facts: Evidence) -> dict[str, Any]:
    """The finding of one rule."""
    return finding(next(each for each in RULES if each.id == rule), facts)


def outcome(rule: str, facts: Evidence) -> str:
    """The outcome of one rule."""
    text: str = found(rule, facts)["outcome"]
    return text


def judged(*seeds: SeedRecord, **changes: Any) -> tuple[str, int]:
    """Verdict and exit code."""
    whole = assembled(evidence(*seeds, **changes))
    return whole["verdict"], decide.exit_code(whole)


BASELINE = {
    "name": "before",
    "source": "#1",
    "dataset": "pocket",
    "profile": "pocket",
    "bpb": {1: 2.20, 2: 2.21, 3: 2.22},
}


def baseline(*seeds: SeedRecord, **changes: Any) -> dict[str, Any]:
    """The baseline part of a verdict, against BASELINE with changes."""
    facts = evidence(*seeds, manifest=manifest(baseline=BASELINE | changes))
    whole = assembled(facts)
    assert json.loads(json.dumps(whole, allow_nan=False)) == json.loads(json.dumps(whole))
    tested: dict[str, Any] = whole["baseline"]
    return tested
