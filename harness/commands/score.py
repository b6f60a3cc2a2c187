"""`pgolf score`: any program that speaks docs/protocol.md, judged on any file of tokens.

The same runner, referee, ledger and metric as in a run, and the rules that bear on scoring; what a submission
adds to that (training, sizes, seeds, provenance) is not judged, and the verdict says so. The judge's own CPU
time is measured beside."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.base import files, host
from harness.base.errors import MachineFault, UsageError, Violation
from harness.base.exit_codes import ExitCode
from harness.base.files import sha256_of
from harness.base.progress import ProgressDisplay
from harness.data.byte_table import ByteTable
from harness.data.sentencepiece_file import read_model
from harness.data.shards import Tokens, read_tokens
from harness.edition import EDITION, Limits
from harness.run import certify, folder as rundir, plan as plans, records, stages
from harness.run.certify import WitnessRequest
from harness.run.folder import SeedFolder
from harness.run.preflight import RunnerName
from harness.run.records import Attempt, SeedRecord
from harness.run.stages import Contestant, StageJob
from harness.run.submission import Manifest
from harness.runners import docker_engine
from harness.runners.base import Runner
from harness.runners.docker import DockerRunner
from harness.runners.images import build
from harness.runners.local import LocalRunner
from harness.scoring import bpb
from harness.verdict import decide
from harness.verdict.rules import Evidence, conditions, finding

PYTHONS = ("python", "python3")
OURS = ("artifact.bin", "config.yaml", "tokenizer.model")
SEED = 1337
MILLION = 1_000_000


class ScoreRequest(NamedTuple):
    """The command line: a contestant, what it is given, and by whose limits."""

    contestant: str
    tokens: Path
    tokenizer: Path
    artifact: Path | None
    config: Path | None
    profile: str
    score_seconds: float | None
    request: WitnessRequest | None = None


def score(
    asked: ScoreRequest, wanted: RunnerName | None, runs: Path, progress: ProgressDisplay
) -> dict[str, Any]:
    """One judged pass; returns score.json's content, which is written too. Raises UsageError for files of no
    use."""
    limits = plans.profile_limits(asked.profile)
    if asked.score_seconds is not None:
        if not asked.score_seconds > 0:
            raise UsageError(
                f"--score-seconds {asked.score_seconds:g}: expected more than 0",
                hint="it is a clock, in seconds",
            )
        limits = replace(limits, score_seconds=asked.score_seconds)
    table = ByteTable.from_tokenizer(asked.tokenizer, len(read_model(asked.tokenizer).pieces))
    tokens_T = read_tokens(asked.tokens, len(table.base_V))
    if len(tokens_T) < 2:
        raise UsageError(
            f"{asked.tokens}: {len(tokens_T)} tokens, expected at least 2",
            hint="the first token is not scored",
        )
    runner = _runner(wanted, limits, progress)
    try:
        contestant = parse(asked.contestant, runner.isolated)
        judged_of = _identity(asked, contestant)
        identity = {
            **judged_of,
            "runner": runner.name,
            "image": runner.image,
            "profile": asked.profile,
            "limits": limits.public(),
        }
        name = Path(next(iter(contestant.files), contestant.program or "contestant")).stem
        place = runs / "scored" / f"{name}-{hashlib.sha256(repr(judged_of).encode()).hexdigest()[:12]}"
        with rundir.RunFolder(place).locked():
            folder = SeedFolder(place)
            files.write_bytes(folder.artifact, asked.artifact.read_bytes() if asked.artifact else b"")
            files.write_bytes(folder.config, asked.config.read_bytes() if asked.config else b"{}\n")
            job = StageJob(
                runner,
                limits,
                asked.profile,
                "B",
                folder.code,
                folder.config,
                asked.tokenizer,
                len(table.base_V),
                place.name,
                contestant,
            )
            earlier = _archive(place)
            found = _judge(job, folder, tokens_T, table, asked.request, progress)
            judged = {
                "schema": decide.SCHEMA,
                "edition": EDITION,
                **identity,
                "isolation": runner.isolation,
                "host": host.facts(),
                **found,
                "earlier": earlier,
                "run_dir": str(place),
            }
            files.write_json(place / "score.json", judged)
            if judged["certificate"] is not None:  # it holds what was begun
                folder.witness.unlink(missing_ok=True)
            return judged
    finally:
        runner.close()


def _identity(asked: ScoreRequest, contestant: Contestant) -> dict[str, Any]:
    """Who is judged on what, whatever the limits and the runner: all attempts at it lie in one folder, and
    list one another."""
    given = {"artifact": asked.artifact, "config": asked.config}
    for name, path in given.items():
        if path is not None and not path.is_file():
            raise UsageError(
                f"--{name} {path}: no such file", hint="leave it out, and the contestant gets an empty one"
            )
    words = [contestant.program or PYTHONS[1], *contestant.command]
    return {
        "contestant": shlex.join(words),
        "tokens": sha256_of(asked.tokens),
        "tokenizer": sha256_of(asked.tokenizer),
        "files": {name: sha256_of(path) for name, path in sorted(contestant.files.items())},
        **{name: path and sha256_of(path) for name, path in given.items()},
    }


def parse(text: str, contained: bool) -> Contestant:
    """The contestant of a command line: words that name files become inputs. Raises UsageError where none can
    be started.

    `contained`: the program is sought in the image, not on this machine.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--contestant {text!r:.80}: {error}", hint="quotes come in pairs") from error
    if not words:
        raise UsageError("--contestant is empty", hint='--contestant "python docs/examples/order2.py"')
    files: dict[str, Path] = {}
    for path in map(Path, words):
        if (
            path.is_file()
            and (path.parent != Path() or path.name not in PYTHONS)
            and not _on_machine(path, contained)
        ):
            if path.name in OURS or files.get(path.name, path) != path:
                raise UsageError(f"{path}: its name is taken under /in", hint="rename the file")
            files[path.name] = path
    program, *command = [
        Path(word).name if Path(word).name in files and Path(word) == files[Path(word).name] else word
        for word in words
    ]
    if program in PYTHONS:
        return Contestant(None, tuple(command), files)
    if program in files and not os.access(files[program], os.X_OK):
        raise UsageError(
            f"{files[program]}: cannot be executed", hint="chmod +x, or name the interpreter before it"
        )
    if program not in files and not contained:
        found = shutil.which(program)
        if found is None:
            raise UsageError(f"--contestant: no program {program!r} here", hint="give its path")
        program = str(Path(found).absolute())
    return Contestant(program, tuple(command), files)


def _on_machine(path: Path, contained: bool) -> bool:
    """An interpreter of this machine, such as .venv/bin/python, is started where it is."""
    return not contained and path.name.startswith("python") and os.access(path, os.X_OK)


def _runner(wanted: RunnerName | None, limits: Limits, progress: ProgressDisplay) -> Runner:
    client = None if wanted == "local" else docker_engine.connect()
    if client is None:
        if wanted == "docker":
            raise MachineFault(
                "no container engine answers", hint="start it (dockerd), or say --runner local"
            )
        progress.say("local runner: isolation none")
        return LocalRunner()
    name = "cuda" if limits.gpus else "cpu"
    found = build.find(client, name)
    if found is None:
        raise UsageError(f"image {name} is not built", hint=f"`pgolf image build {name}`, or --runner local")
    return DockerRunner(client, found)


def _archive(place: Path) -> list[str]:
    """Keeps earlier verdicts of the same contestant, and looks that were begun and not ended, so that trying
    again until the coins fall well stays visible."""
    kept = [
        place / "score.json",
        place / "witness.json",
        *place.glob("witness-[0-9].npz"),
        *place.glob("witness-?-strict.npz"),
        place / "nats.f32",
        place / "docs.npz",
    ]
    if found := [path for path in kept if path.exists()]:
        earlier = place.glob(f"*.earlier-{4 * '[0-9]'}.*")
        number = 1 + max((int(path.name.split(".earlier-")[1][:4]) for path in earlier), default=0)
        for path in found:
            path.rename(path.with_name(f"{path.stem}.earlier-{number:04}{path.suffix}"))
    return sorted(path.name for path in place.glob("*.earlier-*.json"))


def _judge(
    job: StageJob,
    folder: SeedFolder,
    tokens_T: Tokens,
    table: ByteTable,
    request: WitnessRequest | None,
    progress: ProgressDisplay,
) -> dict[str, Any]:
    """The pass, its findings, and what judging cost. Machine faults are raised on."""
    attempt = Attempt(stage="score", started_at=records.now())
    n_scored, attempts = len(tokens_T) - 1, [attempt]
    began = time.process_time()
    try:
        with progress.stage("score") as report:
            result, scored = stages.score(job, SEED, folder, tokens_T, report)
        measured = bpb.measure(tokens_T, scored.nats_T, table)
        attempt.outcome, attempt.setup_seconds, attempt.seconds = "done", result.setup_seconds, result.seconds
        attempt.claims, attempt.facts = (
            result.claims,
            {**result.facts, **stages.store_metric(folder, measured, scored)},
        )
    except Violation as violation:
        attempt.outcome = "over_limit" if violation.limit else "failed"
        attempt.rule, attempt.message = violation.rule, str(violation)
    cpu_seconds = time.process_time() - began
    if request and attempt.outcome == "done":
        with progress.stage("witness") as report:
            asked = certify.certify_score(
                job, SEED, folder, tokens_T, scored, measured.scored_bytes, request, report
            )
        attempts.append(Attempt(stage="witness", outcome="done", started_at=records.now(), facts=asked))
    record = SeedRecord(seed=SEED, attempts=attempts)
    evidence = Evidence(
        Manifest.model_construct(track=job.track),
        job.profile,
        job.limits,
        [record],
        0,
        0,
        "",
        "",
        job.runner.name,
        job.runner.isolated,
        job.runner.isolation,
        job.runner.image,
        None,
    )
    findings = [finding(rule, evidence) for rule in conditions.RULES]
    witnessed = attempts[-1].facts if len(attempts) == 2 else {"certificate": None, "unasked": None}
    decision, exit_code = _decide(attempt.outcome, findings, witnessed)
    facts = {
        key: attempt.facts.get(key)
        for key in ("bpb", "nats_per_token", "scored_tokens", "scored_bytes", "ledger_sha256", "documents")
    }
    return {
        "outcome": record.outcome(),
        **facts,
        "claims": attempt.claims,
        "reason": attempt.message,
        "rule": attempt.rule,
        "setup_seconds": attempt.setup_seconds,
        "score_seconds": attempt.seconds,
        "judge_cpu_seconds": cpu_seconds,
        "judge_cpu_seconds_per_million_tokens": cpu_seconds * MILLION / n_scored,
        "verdict": decision,
        "findings": findings,
        **witnessed,
        "exit_code": exit_code,
        "not_judged": "training, sizes, seeds and provenance: there is no submission here",
    }


def _decide(
    outcome: str | None, findings: list[dict[str, Any]], witnessed: dict[str, Any]
) -> tuple[str, int]:
    """The verdict and its exit code: what the witness leaves open is inconclusive, unless something is
    violated."""
    if outcome == "over_limit":
        return "invalid", ExitCode.LIMIT
    if outcome != "done" or any(found["outcome"] == "fail" for found in findings):
        return "invalid", ExitCode.VIOLATION
    said = (witnessed["certificate"] or {"conditions": []})["conditions"]
    if witnessed["unasked"] or any(
        condition["outcome"] == "unknown" and not condition.get("cooperative") for condition in said
    ):
        return "inconclusive", ExitCode.INCONCLUSIVE
    return "valid", ExitCode.VALID


def describe(judged: dict[str, Any]) -> str:
    """For people."""
    if judged["bpb"] is None:
        return f"{judged['verdict']}: {judged['rule']}: {judged['reason']}\nkept in {judged['run_dir']}"
    lines = [
        f"{judged['verdict']}: {judged['bpb']:.5f} bits per byte ({judged['nats_per_token']:.5f} nats a "
        "token) on "
        f"{judged['scored_tokens']:,} tokens, {judged['scored_bytes']:,} bytes",
        f"contestant {judged['score_seconds']:.2f} s; judge {judged['judge_cpu_seconds']:.2f} s of CPU, "
        f"{judged['judge_cpu_seconds_per_million_tokens']:.3f} s a million tokens",
    ]
    lines += [
        f"{found['condition']} {found['rule']:12} {found['outcome']:8} {found['evidence']}"
        for found in judged["findings"]
    ]
    lines += [judged["certificate"]["guarantee"]] if judged["certificate"] else []
    return "\n".join([*lines, f"not judged: {judged['not_judged']}", f"kept in {judged['run_dir']}"])
