"""The verdict on everything that a run folder holds.

A verdict covers its folder: every seed that the manifest declares or the folder holds, every attempt, every
run that `--again` archived. It does not depend on what was asked of the last command. `pgolf run`, `report`,
`list`, `export`, `compare` and `rescore` all read this one function. Only plan.json, the records of the seeds
and the certificates are read: the scores are not computed again (`pgolf rescore` does that).
"""

from __future__ import annotations

from typing import Any

from harness.base import files, host
from harness.base.errors import UsageError
from harness.run import stored_plan
from harness.run.cpu_use import busy_sentence
from harness.run.folder import RunFolder
from harness.run.records import SeedRecord
from harness.run.seeds import load_archived, load_records
from harness.verdict import decide, later_certificates
from harness.verdict.rules import Evidence, Submitted


def assess(folder: RunFolder, harness: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of verdict.json for a run folder.

    `harness`: what the last command measured of itself (seconds, what stopped it); None for a command that
    only reads: then verdict.json's stays. Raises UsageError for a folder that is not a run's, and for records
    that no run writes.
    """
    try:
        return _assess(folder, harness)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UsageError(
            f"{folder.path}: its records cannot be judged ({type(error).__name__}: {str(error)[:200]})",
            hint="a run.json there was damaged or changed by hand: restore it",
        ) from error


def _assess(folder: RunFolder, harness: dict[str, Any] | None) -> dict[str, Any]:
    evidence = evidence_of(folder)
    rows = [
        {
            **decide.seed_row(evidence, record, str(folder.seed(record.seed).path)),
            "later_certificates": evidence.later[record.seed],
        }
        for record in evidence.seeds
    ]
    extra = {
        "compressors": stored_plan.read(folder).dataset.compressors,
        "run_dir": str(folder.path),
        "harness": harness if harness is not None else earlier_harness(folder),
    }
    verdict = decide.assemble(evidence, rows, _host(evidence.seeds), extra)
    return {**verdict, "remarks": _remarks(verdict)}


def evidence_of(folder: RunFolder) -> Evidence:
    """All that the rules may look at, from the files of a run folder."""
    plan, judged = stored_plan.read(folder), stored_plan.read_judged(folder)
    identity, manifest = plan.identity, judged.manifest
    seeds = list(dict.fromkeys([*manifest.seeds, *judged.declared_seeds, *folder.seeds()]))
    return Evidence(
        track=manifest.track,
        profile=identity.profile,
        limits=identity.limits,
        seeds=load_records(folder, seeds),
        runner=identity.runner,
        isolated=judged.isolated,
        isolation=judged.isolation,
        image=plan.image,
        image_lock=identity.image_lock,
        image_lacks=plan.image_lacks,
        dataset=plan.dataset.name,
        dataset_sha256=identity.dataset,
        archived=load_archived(folder, seeds),
        later={seed: later_certificates.read(folder.seed(seed)) for seed in seeds},
        submission=Submitted(manifest, judged.code_bytes, judged.config_bytes),
    )


def _remarks(verdict: dict[str, Any]) -> list[str]:
    """What a reader should know beside the findings; decides nothing."""
    found = []
    mean = verdict["mean_bpb"]
    better = {} if mean is None else {n: v for n, v in verdict["compressors"].items() if v <= mean}
    if better:
        names = ", ".join(f"{name} ({value:.3f})" for name, value in better.items())
        found.append(f"{mean:.4f} bits per byte is no better than {names} on the same text")
    if verdict["image_lacks"]:
        lacking = ", ".join(verdict["image_lacks"])
        found.append(f"the image lacks {lacking}, which its lock pins: training and scoring may be slower")
    found += busy_seeds(verdict["seeds"])
    for row in verdict["seeds"]:
        found += [
            f"seed {row['seed']}: the later certificate in {later['folder']} fails "
            f"{', '.join(later['failed'])}"
            for later in row["later_certificates"]
            if later["failed"]
        ]
    return found


def busy_seeds(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence for each seed beside which other processes took much of the machine."""
    sentences = (
        (row["seed"], busy_sentence(row["others_cpu_share"], row["stolen_cpu_share"])) for row in rows
    )
    return [f"seed {seed}: {sentence}" for seed, sentence in sentences if sentence]


def earlier_harness(folder: RunFolder) -> dict[str, Any] | None:
    """What verdict.json says of the command that wrote it; None where there is no such file."""
    try:
        stored = files.read_json(folder.verdict)
    except (OSError, UsageError):
        return None
    found = stored.get("harness") if isinstance(stored, dict) else None
    return found if isinstance(found, dict) else None


def _host(seeds: list[SeedRecord]) -> dict[str, Any]:
    """The machine of the last attempt on record; this one where there is none."""
    attempts = [attempt for record in seeds for attempt in record.attempts if attempt.host]
    last = max(attempts, key=lambda attempt: attempt.started_at, default=None)
    return last.host if last else host.facts()
