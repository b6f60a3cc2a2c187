"""`pgolf export`: write a finished run as a record folder in the challenge's own layout.

    README.md submission.json train_seed<n>.log code.pyz config.yaml

The folder holds the counted bytes (code bundle and recipe, with the digests that the run recorded) and the
digest of each artifact. Every number is the judge's. Lines that the contestant printed start with `> ` in the
logs, so no reader of logs takes them for measurements. The folder names text and profile wherever it names
the score, and it goes to the non-record track unless the profile is `record`. The submitter is given by
`--author` and `--github-id`. There is no train_gpt.py: a stub that is not counted helps nobody (#1412).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from pydantic import ValidationError

from harness.base import files, host, templates
from harness.base.errors import UsageError
from harness.base.text import plain, plain_lines
from harness.run import records, stored_plan, stored_score
from harness.run.folder import RunFolder, SeedFolder
from harness.run.records import SeedRecord
from harness.run.stored_plan import StoredPlan
from harness.scoring import significance
from harness.verdict import headline as headlines
from harness.verdict.assess import assess

TEMPLATES = Path(__file__).parent / "templates"
MAX_LOG_BYTES = 1 << 20
"""Of one stage's log; public logs have a median of about 50 kB."""


class Seed(NamedTuple):
    """One scored seed: its folder, its record and its row of verdict.json."""

    folder: SeedFolder
    record: SeedRecord
    row: dict[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """A run whose seeds are all scored and that broke no rule."""

    plan: StoredPlan
    verdict: dict[str, Any]
    """The content of verdict.json."""
    seeds: list[Seed]

    @property
    def date(self) -> str:
        """When the first seed's last attempt started, YYYY-MM-DD."""
        return self.seeds[0].record.attempts[-1].started_at[:10]

    @property
    def profile(self) -> str:
        """The profile in words: its name, and a shortened train clock if it had one."""
        seconds = self.verdict["shortened_train_seconds"]
        clock = "" if seconds is None else f", train clock shortened to {seconds:g} s"
        return f"profile {self.verdict['profile']}{clock}"


def export(run_dir: Path, out: Path | None, author: str | None, github_id: str | None) -> Path:
    """Write the record folder of the run in `run_dir` and return it; by default `<date>_<submission>`.

    The folder is complete or absent. Raises UsageError for an unfinished run, a run that broke a rule, files
    that were changed since the run, and an `out` that exists.
    """
    folder = RunFolder(run_dir)
    plan = stored_plan.read(folder)
    verdict = _finished_verdict(folder)
    run = FinishedRun(plan, verdict, _seeds(folder, plan, verdict))
    try:
        metadata = submission_json(run, author, github_id)
        content = {
            "README.md": readme(metadata, verdict).encode(),
            "code.pyz": run.seeds[0].folder.code.read_bytes(),
            "submission.json": json.dumps(metadata, indent=2, allow_nan=False).encode() + b"\n",
            "config.yaml": run.seeds[0].folder.config.read_bytes(),
            **{f"train_seed{seed.record.seed}.log": log(run, seed).encode() for seed in run.seeds},
        }
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
        raise UsageError(
            f"{folder.verdict}: cannot be exported ({type(error).__name__}: {str(error)[:200]})",
            hint="`pgolf run` writes it again from the run's own records",
        ) from error
    out = out or Path(re.sub(r"[^\w.-]", "-", f"{run.date}_{plan.submission}"))
    _write(out, content)
    return out


def _finished_verdict(folder: RunFolder) -> dict[str, Any]:
    """The verdict on the folder. Raises UsageError unless every seed is scored and no rule is broken."""
    verdict = assess(folder)
    unscored = [f"{row['seed']} ({row['outcome']})" for row in verdict["seeds"] if row["outcome"] != "scored"]
    if verdict["verdict"] == "invalid":
        raise UsageError(
            f"{folder.path}: the run is invalid by {', '.join(verdict['decided_by'])}",
            hint=f"`pgolf report {folder.path}` says why; only runs that broke no rule can be exported",
        )
    if unscored:
        raise UsageError(
            f"{folder.path}: not scored: {', '.join(unscored)}", hint="the same `pgolf run` resumes it"
        )
    return verdict


def _seeds(folder: RunFolder, plan: StoredPlan, verdict: dict[str, Any]) -> list[Seed]:
    """Every seed. Raises UsageError unless code, recipe, artifact and score are as the run recorded them."""
    seeds = []
    for row in verdict["seeds"]:
        seed_folder = folder.seed(row["seed"])
        try:
            record = records.load(seed_folder.record, row["seed"])
            stored_plan.require_unchanged(plan, seed_folder)
            stored_score.require_packed_artifact(seed_folder, record)
            if (scored := record.done("score")) is not None:
                stored_score.require_recorded_bpb(seed_folder, scored)
        except (OSError, ValidationError) as error:
            raise UsageError(
                f"{seed_folder.path}: cannot be read ({error})", hint="is the run folder complete?"
            ) from error
        seeds.append(Seed(seed_folder, record, row))
    return seeds


def submission_json(run: FinishedRun, author: str | None, github_id: str | None) -> dict[str, Any]:
    """The content of submission.json, with the keys that merged records use.

    Sizes in bytes, `val_loss` in nats per token, `val_bpb` in bits per byte.
    """
    rows = [seed.row for seed in run.seeds]
    bpb, nats = (significance.summarise([row[key] for row in rows]) for key in ("bpb", "nats_per_token"))
    is_record = run.verdict["profile"] == "record"
    text = run.verdict["dataset"]["name"]
    return {
        "name": run.plan.submission,
        "author": author,
        "github_id": github_id,
        "date": run.date,
        "track": "10min_16mb" if is_record else "non_record_16mb",
        "non_record_reason": None if is_record else f"{run.profile}, scored on {text}",
        "blurb": f"{run.plan.submission}, {run.profile}: bits per byte of {text}, measured from outside",
        "val_bpb": bpb.mean,
        "val_loss": nats.mean,
        "val_bpb_std": bpb.sd,
        "val_loss_std": nats.sd,
        "seeds": [row["seed"] for row in rows],
        "seed_results": {str(row["seed"]): _seed_result(row) for row in rows},
        **_sizes(rows),
        **_environment(run),
    }


def _seed_result(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "val_bpb": row["bpb"],
        "val_loss": row["nats_per_token"],
        "artifact_bytes": row["artifact_bytes"],
        "bytes_total": row["counted_bytes"],
        "steps": row["claims"].get("steps"),
        "train_time_s": row["train_seconds"],
        "eval_time_s": row["score_seconds"],
        "artifact_sha256": row["artifact_sha256"],
        "ledger_sha256": row["ledger_sha256"],
        "unearned_bpb_at_most": row["certificate"] and row["certificate"]["G_bpb"],
    }


def _sizes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`bytes_total` is the largest of all seeds, because each must keep the limit."""
    artifacts = [row["artifact_bytes"] for row in rows]
    return {
        "bytes_total": max(row["counted_bytes"] for row in rows),
        "bytes_code": _code_bytes(rows[0]),
        "artifact_bytes_mean": sum(artifacts) / len(artifacts),
        "artifact_bytes_max": max(artifacts),
    }


def _code_bytes(row: dict[str, Any]) -> int:
    """Bytes of bundle and recipe."""
    return int(row["code_bytes"] + row["config_bytes"])


def _environment(run: FinishedRun) -> dict[str, Any]:
    """What the run ran on, under which rules, and what wrote the record."""
    verdict, limits, machine = run.verdict, run.plan.identity.limits, run.verdict["host"]
    return {
        "hardware": host.gpu_names(machine) if machine["gpus"] else f"{host.processor(machine)}, no GPU",
        "profile": verdict["profile"],
        "dataset": verdict["dataset"],
        "edition": verdict["edition"],
        "verdict": verdict["verdict"],
        "runner": verdict["runner"],
        "image": verdict["image"],
        "image_lacks": verdict.get("image_lacks", []),
        "code_sha256": run.plan.identity.code,
        "limits": {
            "train_seconds": limits.train_seconds,
            "score_seconds": limits.score_seconds,
            "counted_bytes": limits.counted_bytes,
        },
        "written_by": f"pgolf export {version('pgolf')}",
    }


def readme(metadata: dict[str, Any], verdict: dict[str, Any]) -> str:
    """README.md: what was run on which text, the table of seeds, the findings, how to score it again."""
    return templates.load(TEMPLATES / "record.md.j2").render(
        m=metadata, v=verdict, result=headlines.result(verdict), decision=headlines.decision(verdict)
    )


def log(run: FinishedRun, seed: Seed) -> str:
    """The log of a seed: what the contestant printed, behind `> `, then the judge's numbers."""
    verdict = run.verdict
    header = (
        f"pgolf export {version('pgolf')}: {run.plan.submission}, profile {verdict['profile']}, edition "
        f"{verdict['edition']}, runner {verdict['runner']}"
    )
    printed = [
        f"> {plain(line)}"
        for stage in records.STAGES
        for line in (f"[{stage}]", *_printed(seed.folder.log(stage)))
    ]
    return "\n".join([header, *printed, *_measured(seed, verdict["dataset"]["name"])]) + "\n"


def _measured(seed: Seed, text: str) -> list[str]:
    """The judge's numbers in the lines that readers of records look for; steps and tokens are claims."""
    row = seed.row
    scored = seed.record.done("score")
    assert scored is not None
    claims, steps = row["claims"], row["claims"].get("steps")
    milliseconds = round(row["train_seconds"] * 1000)
    training = f"train_time:{milliseconds}ms"
    if isinstance(steps, int) and steps > 0:
        training = (
            f"step:{steps}/{steps} train_tokens:{claims.get('tokens')} {training} "
            f"step_avg:{milliseconds / steps:.2f}ms"
        )
    kind = "quantized_ttt" if scored.claims.get("adapts") else "quantized"
    return [
        f"seed:{row['seed']}",
        f"train_loader:dataset:{text}",
        f"val_loader:shards pattern={text} tokens:{row['scored_tokens']} bytes:{row['scored_bytes']}",
        *([f"world_size:{claims['world']}"] if isinstance(claims.get("world"), int) else []),
        training,
        f"Serialized model artifact.bin: {row['artifact_bytes']} bytes",
        f"Code size: {_code_bytes(row)} bytes",
        f"Total submission size artifact.bin: {row['counted_bytes']} bytes",
        f"artifact_sha256:{row['artifact_sha256']} ledger_sha256:{row['ledger_sha256']}",
        f"{kind} val_loss:{row['nats_per_token']:.8f} val_bpb:{row['bpb']:.8f} "
        f"eval_time:{round(row['score_seconds'] * 1000)}ms",
    ]


def _printed(path: Path) -> list[str]:
    """Lines of a contestant's log, up to MAX_LOG_BYTES; none if there is no log."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        data = file.read(MAX_LOG_BYTES + 1)
    lines = plain_lines(data[:MAX_LOG_BYTES].decode("utf-8", "replace")).splitlines()
    return [*lines, f"[cut after {MAX_LOG_BYTES:,} bytes]"] if len(data) > MAX_LOG_BYTES else lines


def _write(out: Path, content: dict[str, bytes]) -> None:
    """Write the folder under a temporary name, then rename it. Raises UsageError if `out` holds anything."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise UsageError(
            f"{out}: already exists", hint="choose another folder with --out; nothing is overwritten"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, data in content.items():
            files.write_bytes(partial / name, data)
        partial.chmod(0o755)
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
