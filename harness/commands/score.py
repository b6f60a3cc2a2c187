"""`pgolf score`: judge any program that speaks docs/protocol.md on any file of tokens.

Runner, conversation, ledger, metric and the rules about scoring are those of a run. What a submission adds
(training, sizes, seeds, provenance) is not judged, and the verdict says so. The judge's own CPU time is
measured too.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.base import files, host
from harness.base.errors import UsageError, Violation
from harness.base.files import sha256_of
from harness.base.progress import ProgressDisplay
from harness.base.text import count
from harness.commands import options
from harness.data.byte_table import ByteTable
from harness.data.sentencepiece_file import read_model
from harness.data.shards import Tokens, read_tokens
from harness.edition import EDITION, Limits
from harness.run import contestant as contestants, plan as plans, records, stages, stored_score
from harness.run.certify import certify_score
from harness.run.folder import RunFolder, SeedFolder
from harness.run.plan import StageTerms
from harness.run.records import Attempt, SeedRecord
from harness.run.stages import Contestant, StageJob
from harness.run.witness_state import WitnessRequest
from harness.runners.select import RunnerName, select_runner
from harness.scoring import bpb
from harness.verdict import decide, score_report
from harness.verdict.rules import SCORING_RULES, Evidence

app = options.new_app()
SEED = 1337
MILLION = 1_000_000


@app.command()
def score(
    contestant: Annotated[
        str,
        typer.Option(help='e.g. "python docs/examples/order2.py"; files that the command names are copied.'),
    ],
    tokens: Annotated[Path, typer.Option(help="A shard of tokens (docs/protocol.md, train).")],
    tokenizer: Annotated[
        Path, typer.Option(help="The SentencePiece model that made them: bytes are counted by it.")
    ],
    artifact: Annotated[
        Path | None, typer.Option(help="Handed to the contestant as `artifact` in setup.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Handed to it as `config` in setup.")] = None,
    profile: Annotated[str, typer.Option(help="Whose limits apply: pocket, solo or record.")] = "pocket",
    score_seconds: Annotated[
        float | None,
        typer.Option(
            parser=options.number,
            metavar="SECONDS",
            help="Seconds of the score clock. Default: the profile's.",
        ),
    ] = None,
    witness: options.Probes = 0,
    witness_chunks: options.WitnessChunks = None,
    witness_lanes: options.WitnessLanes = False,
    seed: Annotated[
        int | None,
        typer.Option(parser=options.whole(0), metavar="N", help="Told to the contestant. Default: 1337."),
    ] = None,
    track: Annotated[
        Literal["A", "B"] | None,
        typer.Option(help="A: it may not learn from scored text; B, the default: it may."),
    ] = None,
    runner: options.RunnerChoice = None,
    runs: options.Runs = options.RUNS,
    details: options.Details = False,
    allow_open: options.AllowOpen = False,
    as_json: options.Json = False,
) -> None:
    """Judge any program that speaks docs/protocol.md, in any language, on any text.

    pgolf score --contestant "python docs/examples/order2.py" --tokens val.bin --tokenizer tokenizer.model
    --runner local
    """
    request = ScoreRequest(
        contestant=contestant,
        tokens=tokens,
        tokenizer=tokenizer,
        artifact=artifact,
        config=config,
        profile=profile,
        score_seconds=score_seconds,
        seed=SEED if seed is None else seed,
        track=track or "B",
        assumed=[name for name, given in (("seed", seed), ("track", track)) if given is None],
        witness=WitnessRequest(witness, witness_chunks, witness_lanes) if witness else None,
    )
    with ProgressDisplay() as display:
        verdict = score_program(request, runner, runs, display)
    verdict["exit_code"] = decide.exit_code(verdict, allow_open)
    if as_json:
        print(json.dumps(verdict, indent=1))
    else:
        score_report.show(verdict, details)
    raise typer.Exit(verdict["exit_code"])


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """A contestant, what it is given, and whose limits hold."""

    contestant: str
    tokens: Path
    tokenizer: Path
    artifact: Path | None = None
    config: Path | None = None
    profile: str = "pocket"
    score_seconds: float | None = None
    seed: int = SEED
    track: Literal["A", "B"] = "B"
    assumed: Sequence[str] = ()
    """Which of seed and track nobody gave."""
    witness: WitnessRequest | None = None

    def limits(self) -> Limits:
        """Raises UsageError for an unknown profile and a clock that is not positive."""
        limits = plans.profile_limits(self.profile)
        if self.score_seconds is None:
            return limits
        if not self.score_seconds > 0:
            raise UsageError(
                f"--score-seconds {self.score_seconds:g}: expected more than 0",
                hint="it is a clock, in seconds",
            )
        return replace(limits, score_seconds=self.score_seconds)


def score_program(
    request: ScoreRequest, wanted: RunnerName | None, runs: Path, display: ProgressDisplay
) -> dict[str, Any]:
    """One judged pass; writes score.json and returns its content. Raises UsageError for unusable files."""
    limits = request.limits()
    table = ByteTable.from_tokenizer(request.tokenizer, len(read_model(request.tokenizer).pieces))
    tokens_T = read_tokens(request.tokens, len(table.base_V))
    if len(tokens_T) < 2:
        raise UsageError(
            f"{request.tokens}: {count(len(tokens_T), 'token')}, expected at least 2",
            hint="the first token is not scored",
        )
    if table.total(tokens_T[1:], int(tokens_T[0])) == 0:
        raise UsageError(f"{request.tokens}: no bytes to score", hint="it holds nothing but document starts")
    runner = select_runner(wanted, limits, display.say)
    try:
        contestant = contestants.parse(request.contestant, runner.isolated)
        identity = _identity(request, contestant)
        name = Path(next(iter(contestant.files), contestant.program or "contestant")).stem
        hash12 = hashlib.sha256(repr(identity).encode()).hexdigest()[:12]
        folder = SeedFolder(runs / "scored" / f"{name}-{hash12}")
        with RunFolder(folder.path).locked():
            files.write_bytes(folder.artifact, request.artifact.read_bytes() if request.artifact else b"")
            files.write_bytes(folder.config, request.config.read_bytes() if request.config else b"{}\n")
            vocab_size = len(table.base_V)
            terms = StageTerms(
                folder.path.name, request.track, request.profile, limits, request.tokenizer, vocab_size
            )
            job = StageJob(runner, terms, request.seed, folder, contestant)
            earlier = _archive(folder.path)
            verdict = {
                "schema": decide.SCHEMA,
                "edition": EDITION,
                **identity,
                "runner": runner.name,
                "image": runner.image,
                "image_lacks": list(runner.image_lacks),
                "profile": request.profile,
                "seed": request.seed,
                "track": request.track,
                "assumed": list(request.assumed),
                "limits": limits.public(),
                "isolation": runner.isolation,
                "host": host.facts(),
                **_judge(job, tokens_T, table, request.witness, display),
                "earlier": earlier,
                "run_dir": str(folder.path),
            }
            files.write_json(folder.path / "score.json", verdict)
            if verdict["certificate"] is not None:  # it holds the content of witness.json
                folder.witness.unlink(missing_ok=True)
            return verdict
    finally:
        runner.close()


def _identity(request: ScoreRequest, contestant: Contestant) -> dict[str, Any]:
    """The contestant and its inputs, without limits and runner. The hash of this names the folder, so that
    all attempts share it and each verdict lists the earlier ones.
    """
    given = {"artifact": request.artifact, "config": request.config}
    for name, path in given.items():
        if path is not None and not path.is_file():
            raise UsageError(
                f"--{name} {path}: no such file", hint="leave it out, and the contestant gets an empty one"
            )
    words = [contestant.program or contestants.PYTHONS[1], *contestant.command]
    return {
        "contestant": shlex.join(words),
        "tokens": sha256_of(request.tokens),
        "tokenizer": sha256_of(request.tokenizer),
        "files": {name: sha256_of(path) for name, path in sorted(contestant.files.items())},
        **{name: path and sha256_of(path) for name, path in given.items()},
    }


def _archive(folder: Path) -> list[str]:
    """Rename what earlier attempts left, unfinished witness rounds included; returns the archived JSON files.

    So an attempt that was repeated to get a more favourable sample stays visible.
    """
    names = [
        folder / "score.json",
        folder / "witness.json",
        *folder.glob("witness-[0-9].npz"),
        *folder.glob("witness-?-strict.npz"),
        folder / "nats.f32",
        folder / "docs.npz",
    ]
    if found := [path for path in names if path.exists()]:
        earlier = folder.glob(f"*.earlier-{4 * '[0-9]'}.*")
        number = 1 + max((int(path.name.split(".earlier-")[1][:4]) for path in earlier), default=0)
        for path in found:
            path.rename(path.with_name(f"{path.stem}.earlier-{number:04}{path.suffix}"))
    return sorted(path.name for path in folder.glob("*.earlier-*.json"))


def _judge(
    job: StageJob,
    tokens_T: Tokens,
    table: ByteTable,
    request: WitnessRequest | None,
    display: ProgressDisplay,
) -> dict[str, Any]:
    """The pass, its findings, and what judging cost. Raises MachineFault."""
    attempts = [Attempt(stage="score", started_at=records.now())]
    attempt = attempts[0]
    began = time.process_time()
    try:
        with display.stage("score") as on_progress:
            watched = replace(job, on_cpu_use=attempt.add_cpu_use)
            result, scored = stages.score(watched, tokens_T, on_progress)
        measured = bpb.measure(tokens_T, scored.nats_T, table)
        attempt.outcome, attempt.setup_seconds, attempt.seconds = "done", result.setup_seconds, result.seconds
        attempt.claims = result.claims
        attempt.facts = {**result.facts, **stored_score.store(job.folder, measured, scored)}
    except Violation as violation:
        attempt.fail(violation)
    cpu_seconds = time.process_time() - began
    witnessed: dict[str, Any] = {"certificate": None, "unasked": None}
    if request and attempt.outcome == "done":
        asked = Attempt(stage="witness", outcome="done", started_at=records.now())
        with display.stage("witness") as on_progress:
            watched = replace(job, on_cpu_use=asked.add_cpu_use)
            witnessed = certify_score(
                watched, tokens_T, scored, measured.scored_bytes, request, on_progress, display.say
            )
        asked.facts = witnessed
        attempts.append(asked)
    record = SeedRecord(seed=job.seed, attempts=attempts)
    judgement = decide.judge(_evidence(job, record), SCORING_RULES)._asdict()
    keys = ("bpb", "nats_per_token", "scored_tokens", "scored_bytes", "ledger_sha256", "documents")
    return {
        "outcome": record.outcome(),
        **{key: attempt.facts.get(key) for key in keys},
        "claims": attempt.claims,
        "reason": attempt.message,
        "rule": attempt.rule,
        "setup_seconds": attempt.setup_seconds,
        "score_seconds": attempt.seconds,
        **decide.cpu_shares(record),
        "judge_cpu_seconds": cpu_seconds,
        "judge_cpu_seconds_per_million_tokens": cpu_seconds * MILLION / (len(tokens_T) - 1),
        **judgement,
        **witnessed,
        "exit_code": decide.exit_code(judgement),
        "not_judged": "training, sizes, seeds and provenance: there is no submission here",
    }


def _evidence(job: StageJob, record: SeedRecord) -> Evidence:
    """What the rules about scoring look at."""
    return Evidence(
        track=job.terms.track,
        profile=job.terms.profile,
        limits=job.limits,
        seeds=[record],
        runner=job.runner.name,
        isolated=job.runner.isolated,
        isolation=job.runner.isolation,
        image=job.runner.image,
        image_lacks=job.runner.image_lacks,
    )
