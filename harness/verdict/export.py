"""`pgolf export`: a finished run as a record folder in the challenge's own layout.

    README.md submission.json train_seed<n>.log code.pyz config.yaml

What was counted is what is shipped: the code bundle and the recipe, byte for byte, with the digests that the
run recorded; the artifacts are named by theirs. Every number is the judge's, and what the contestant says of
itself stands behind `> ` in the logs, where no reader of logs takes it for a measurement. The score is of the
run's own text: the folder names text and profile wherever it names the score, and goes to the non-record
track unless the profile is `record`. Not covered: who sends it in (`--author`, `--github-id`); a
train_gpt.py, since a stub that is not counted helps nobody (#1412)."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from pydantic import ValidationError

from harness.base import files, templates
from harness.base.errors import UsageError
from harness.base.text import plain, plain_lines
from harness.run import plan as plans, records, stored_score
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import StoredPlan
from harness.run.records import SeedRecord
from harness.scoring import significance

TEMPLATES = Path(__file__).parent / "templates"
MAX_LOG_BYTES = 1 << 20
"""Of one contestant's log; public logs have a median of some 50 kB."""


class Seed(NamedTuple):
    """One scored seed: its place, its record and its row of verdict.json."""

    folder: SeedFolder
    record: SeedRecord
    row: dict[str, Any]


def export(run_dir: Path, out: Path | None, author: str | None, github_id: str | None) -> Path:
    """Writes the record folder of the run in `run_dir` and returns it; default: `<date>_<submission>` here.

    All of it appears at once or nothing does. Raises UsageError for what is no finished run, for seeds that
    are not scored or whose files were changed since, for a run that broke a rule, and where something is at
    `out` already."""
    folder = RunFolder(run_dir)
    plan = plans.read(folder)
    judged = _judged(folder)
    with folder.locked():
        seeds = _seeds(folder, plan, judged)
        date = seeds[0].record.attempts[-1].started_at[:10]
        try:
            metadata = submission(plan, judged, seeds, date, author, github_id)
            content = {
                "README.md": readme(metadata, judged).encode(),
                "code.pyz": seeds[0].folder.code.read_bytes(),
                "submission.json": json.dumps(metadata, indent=2, allow_nan=False).encode() + b"\n",
                "config.yaml": seeds[0].folder.config.read_bytes(),
                **{f"train_seed{seed.record.seed}.log": log(plan, judged, seed).encode() for seed in seeds},
            }
        except (LookupError, TypeError, ValueError, AttributeError, jinja2.TemplateError) as error:
            raise UsageError(
                f"{folder.verdict}: cannot be written as a record ({type(error).__name__}: "
                f"{str(error)[:200]})",
                hint="`pgolf run` writes it again from the run's own records",
            ) from error
    out = out or Path(re.sub(r"[^\w.-]", "-", f"{date}_{plan.submission}"))
    _write(out, content)
    return out


def _judged(folder: RunFolder) -> dict[str, Any]:
    """verdict.json of a run whose every seed is scored and that broke no rule."""
    if not folder.verdict.is_file():
        raise UsageError(
            f"{folder.path}: holds no verdict.json", hint="`pgolf run` writes it when the run is finished"
        )
    judged = files.read_json(folder.verdict)
    try:
        if judged["schema"] != 1 or judged["verdict"] not in ("valid", "invalid", "inconclusive"):
            raise ValueError("not a verdict of schema 1")
        open_seeds = [
            f"{row['seed']} ({row['outcome']})" for row in judged["seeds"] if row["outcome"] != "scored"
        ]
        broken = [found["rule"] for found in judged["findings"] if found["outcome"] == "fail"]
        none = not judged["seeds"]
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder.verdict}: is no verdict ({type(error).__name__}: {error})",
            hint="`pgolf run` writes it again from the run's own records",
        ) from error
    if open_seeds or none:
        raise UsageError(
            f"{folder.path}: not scored: {', '.join(open_seeds) or 'any seed'}",
            hint="the same `pgolf run` goes on where it stopped",
        )
    if broken or judged["verdict"] == "invalid":
        raise UsageError(
            f"{folder.path}: the run is invalid by {', '.join(broken) or 'its verdict'}",
            hint=f"{folder.report} says why; only what broke no rule is written as a record",
        )
    return dict(judged)


def _seeds(folder: RunFolder, plan: StoredPlan, judged: dict[str, Any]) -> list[Seed]:
    """Every seed, with code, recipe, artifact and score as the run recorded them. Raises UsageError for any
    other."""
    seeds = []
    for row in judged["seeds"]:
        place = folder.seed(row["seed"])
        try:
            record = records.load(place.record, row["seed"])
            plans.require_unchanged(plan, place)
            stored_score.require_packed_artifact(place, record)
        except (OSError, ValidationError) as error:
            raise UsageError(
                f"{place.path}: cannot be read ({error})", hint="is the run folder whole?"
            ) from error
        scored = record.done("score")
        if scored is None or scored.facts.get("bpb") != row["bpb"]:
            raise UsageError(
                f"{folder.verdict}: states a score of seed {row['seed']} that its run.json does not hold",
                hint="`pgolf run` writes the verdict again from the run's own records",
            )
        seeds.append(Seed(place, record, row))
    return seeds


def submission(
    plan: StoredPlan,
    judged: dict[str, Any],
    seeds: list[Seed],
    date: str,
    author: str | None,
    github_id: str | None,
) -> dict[str, Any]:
    """submission.json by the keys that merged records use; the largest bytes, since each seed must keep the
    cap.

    `bytes_code` holds the recipe too. Sizes in bytes, `val_loss` in nats a token, `val_bpb` in bits a byte.
    """
    rows = [seed.row for seed in seeds]
    bpb, nats = (significance.summarise([row[key] for row in rows]) for key in ("bpb", "nats_per_token"))
    counted = [row["counted_bytes"] for row in rows]
    packed = [row["artifact_bytes"] for row in rows]
    host = judged["host"]
    record = judged["profile"] == "record"
    text = judged["dataset"]["name"]
    clock = judged["shortened_train_seconds"]
    limits = plan.identity.limits
    short = "" if clock is None else f", train clock shortened to {clock:g} s"
    return {
        "name": plan.submission,
        "author": author,
        "github_id": github_id,
        "date": date,
        "track": "10min_16mb" if record else "non_record_16mb",
        "non_record_reason": None if record else f"profile {judged['profile']}{short}, scored on {text}",
        "blurb": f"{plan.submission}, profile {judged['profile']}{short}: bits per byte of {text}, measured "
        "from outside",
        "val_bpb": bpb.mean,
        "val_loss": nats.mean,
        "val_bpb_std": bpb.sd,
        "val_loss_std": nats.sd,
        "seeds": [row["seed"] for row in rows],
        "seed_results": {
            str(row["seed"]): {
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
            for row in rows
        },
        "bytes_total": max(counted),
        "bytes_code": rows[0]["code_bytes"] + rows[0]["config_bytes"],
        "artifact_bytes_mean": sum(packed) / len(packed),
        "artifact_bytes_max": max(packed),
        "hardware": ", ".join(gpu["name"] for gpu in host["gpus"])
        or f"{host['cpu']}, {host['cores']} cores, no GPU",
        "profile": judged["profile"],
        "dataset": judged["dataset"],
        "edition": judged["edition"],
        "verdict": judged["verdict"],
        "runner": judged["runner"],
        "image": judged["image"],
        "code_sha256": plan.identity.code,
        "limits": {
            "train_seconds": limits.train_seconds,
            "score_seconds": limits.score_seconds,
            "counted_bytes": limits.counted_bytes,
        },
        "written_by": f"pgolf export {version('pgolf')}",
    }


def readme(metadata: dict[str, Any], judged: dict[str, Any]) -> str:
    """README.md: what was run on what, the table of seeds, the findings, how to score it again."""
    return templates.load(TEMPLATES / "record.md.j2").render(m=metadata, v=judged)


def log(plan: StoredPlan, judged: dict[str, Any], seed: Seed) -> str:
    """The log of a seed: what the contestant printed, behind `> `, then the judge's numbers in the lines that
    readers of records look for. `code` counts bundle and recipe; times are the judge's, in ms; steps and
    tokens are claims."""
    row, record = seed.row, seed.record
    train, scored = record.done("train"), record.done("score")
    assert train is not None and scored is not None
    claims = row["claims"]
    milliseconds = round(row["train_seconds"] * 1000)
    steps = claims.get("steps")
    told = [line for stage in records.STAGES for line in (f"[{stage}]", *_printed(seed.folder.log(stage)))]
    code = row["code_bytes"] + row["config_bytes"]
    lines = [
        f"pgolf export {version('pgolf')}: {plan.submission}, profile {judged['profile']}, edition "
        f"{judged['edition']}, "
        f"runner {judged['runner']}",
        *(f"> {plain(line)}" for line in told),
        f"seed:{row['seed']}",
        f"train_loader:dataset:{judged['dataset']['name']}",
        f"val_loader:shards pattern={judged['dataset']['name']} tokens:{row['scored_tokens']} "
        f"bytes:{row['scored_bytes']}",
        *([f"world_size:{claims['world']}"] if isinstance(claims.get("world"), int) else []),
        f"step:{steps}/{steps} train_tokens:{claims.get('tokens')} train_time:{milliseconds}ms "
        f"step_avg:{milliseconds / steps:.2f}ms"
        if isinstance(steps, int) and steps > 0
        else f"train_time:{milliseconds}ms",
        f"Serialized model artifact.bin: {row['artifact_bytes']} bytes",
        f"Code size: {code} bytes",
        f"Total submission size artifact.bin: {row['counted_bytes']} bytes",
        f"artifact_sha256:{row['artifact_sha256']} ledger_sha256:{row['ledger_sha256']}",
        f"{'quantized_ttt' if scored.claims.get('adapts') else 'quantized'} "
        f"val_loss:{row['nats_per_token']:.8f} "
        f"val_bpb:{row['bpb']:.8f} eval_time:{round(row['score_seconds'] * 1000)}ms",
    ]
    return "\n".join(lines) + "\n"


def _printed(path: Path) -> list[str]:
    """Lines of a contestant's log, none where there is no log; bounded."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        data = file.read(MAX_LOG_BYTES + 1)
    lines = plain_lines(data[:MAX_LOG_BYTES].decode("utf-8", "replace")).splitlines()
    return [*lines, f"[cut after {MAX_LOG_BYTES:,} bytes]"] if len(data) > MAX_LOG_BYTES else lines


def _write(out: Path, content: dict[str, bytes]) -> None:
    """The folder whole, under a name that was free or an empty folder."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise UsageError(
            f"{out}: is there already", hint="--out names another place; nothing is ever overwritten"
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
