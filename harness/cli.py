"""The console script `pgolf`. Commands are thin and import late; results go to stdout, talk to stderr.

Exit codes: 0 valid, 1 a rule is violated, 2 bad usage, 3 the machine failed, 4 a limit was exceeded, 5
inconclusive, 130 interrupted (docs/rules.md: which comes first). Not covered: what the commands do
(command_*.py, data/, image_cli.py)."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from harness.base.errors import HarnessError, UsageError
from harness.base.exit_codes import ExitCode
from harness.commands import data as data_cli, image

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, pack, score and judge Parameter Golf submissions, under limits enforced from outside.",
)
app.add_typer(data_cli.app, name="data", help="Prepare and verify datasets.")
app.add_typer(image.app, name="image", help="Build, lock and verify container images.")

RunnerOption = Annotated[
    Literal["docker", "local"] | None,
    typer.Option(help="docker: isolated; local: limited only. Default: docker where an engine answers."),
]
WitnessOption = Annotated[
    int | None,
    typer.Option(
        "--witness",
        min=0,
        help="Probes of the witness, 0 for none. Default: 4096 in pocket, 8192 in solo, 32768 in record.",
    ),
]
ChunksOption = Annotated[
    int | None,
    typer.Option(
        "--witness-chunks",
        min=1,
        help="The witness covers a random prefix of at most so many chunks; the rest counts as gained.",
    ),
]
LanesOption = Annotated[
    bool,
    typer.Option(
        "--witness-lanes",
        help="Ask many contexts at once, some of them by strict prefixes too: for contestants on a GPU.",
    ),
]
TrainSecondsOption = Annotated[
    float | None,
    typer.Option(help="A train clock shorter than the profile's, for CI and trials: never a record."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def run(
    submission: Annotated[Path, typer.Argument(help="e.g. submissions/hadamard-ve128")],
    profile: Annotated[str, typer.Option(help="pocket, solo or record.")] = "pocket",
    seeds: Annotated[str, typer.Option(help="Some of the manifest's seeds, e.g. 1337,42.")] = "",
    data: Annotated[Path | None, typer.Option(help="A folder made by `pgolf data prepare`.")] = None,
    runner: RunnerOption = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are kept.")] = Path("runs"),
    again: Annotated[
        bool, typer.Option("--again", help="Run finished seeds anew; the earlier ones are kept.")
    ] = False,
    train_seconds: TrainSecondsOption = None,
    witness: WitnessOption = None,
    witness_chunks: ChunksOption = None,
    witness_lanes: LanesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train, pack, score and judge a submission. Interrupted runs resume; finished ones are not run again.

    pgolf run submissions/hadamard-ve128 --seeds 1337 --runner local
    """
    from harness.base.progress import ProgressDisplay
    from harness.commands import run as command_run
    from harness.run import certify as witnesses
    from harness.verdict import decide

    request = witnesses.witness_request(profile, witness, witness_chunks, witness_lanes)
    with ProgressDisplay() as progress:
        judged = command_run.run_submission(
            submission,
            profile,
            _numbers(seeds),
            data,
            runner,
            runs,
            again,
            progress,
            train_seconds=train_seconds,
            request=request,
        )
    _present(judged, as_json)
    raise typer.Exit(decide.exit_code(judged))


@app.command("all")
def run_all(
    submissions: Annotated[list[Path] | None, typer.Argument(help="Default: all of submissions/.")] = None,
    profile: Annotated[str, typer.Option(help="pocket, solo or record.")] = "pocket",
    runner: Annotated[
        Literal["docker", "local"] | None, typer.Option(help="Default: both, docker where an engine answers.")
    ] = None,
    one_seed: Annotated[
        bool, typer.Option("--one-seed", help="Only the first seed of each manifest.")
    ] = False,
    train_seconds: TrainSecondsOption = None,
    witness: WitnessOption = None,
    data: Annotated[Path | None, typer.Option(help="A folder made by `pgolf data prepare`.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are kept.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Run every submission on both runners; goes on after a failure and exits with the worst code.

    pgolf all --runner local --one-seed --train-seconds 10
    """
    from rich.console import Console

    from harness.base.progress import ProgressDisplay
    from harness.commands import all
    from harness.run import certify as witnesses

    request = witnesses.witness_request(profile, witness)
    with ProgressDisplay() as progress:
        matrix = all.run_all(
            submissions or [], profile, runner, one_seed, train_seconds, data, runs, progress, request=request
        )
    if as_json:
        print(json.dumps(matrix, indent=1))
    else:
        all.show(matrix, Console())
    raise typer.Exit(matrix["exit_code"])


@app.command()
def ablate(
    submission: Annotated[Path, typer.Argument(help="e.g. submissions/hadamard-ve128")],
    profile: Annotated[str, typer.Option(help="pocket, solo or record.")] = "pocket",
    seeds: Annotated[str, typer.Option(help="Any seeds, e.g. 1337,42. Default: the manifest's.")] = "",
    steps: Annotated[
        int | None, typer.Option(help="Steps of each training. Default: what the clock allows.")
    ] = None,
    only: Annotated[str, typer.Option(help="Some of its techniques, e.g. hadamard,ema.")] = "",
    val_tokens: Annotated[
        int | None, typer.Option(help="Score only so many validation tokens, from the first.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder made by `pgolf data prepare`.")] = None,
    runner: RunnerOption = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are kept.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Switch each technique of a submission off in turn, matched by steps, over seeds. Interrupted ones
    resume.

    pgolf ablate submissions/hadamard-ve128 --steps 200 --only hadamard,ema
    """
    from rich.console import Console

    from harness.base.progress import ProgressDisplay
    from harness.commands import ablate as command_ablate
    from harness.run.ablation import report as reports

    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    names = [name.strip() for name in only.split(",") if name.strip()]
    with ProgressDisplay() as progress:
        table = command_ablate.ablate(
            submission,
            profile,
            _numbers(seeds),
            steps,
            names,
            val_tokens,
            data,
            runner,
            runs,
            command,
            progress,
        )
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        reports.show(table, Console())
        print(f"report: {table['run_dir']}/ablation.md and ablation.html")
    raise typer.Exit(table["exit_code"])


@app.command()
def check(
    submission: Annotated[Path, typer.Argument(help="e.g. submissions/hadamard-ve128")],
    profile: Annotated[str, typer.Option(help="pocket, solo or record.")] = "record",
    runner: RunnerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at a submission without training it: schema, lock, parameters, estimated size. No GPU, no data."""
    from harness.base.progress import ProgressDisplay
    from harness.commands import check as command_check

    with ProgressDisplay() as progress:
        checked = command_check.check_submission(submission, profile, runner, progress)
    if as_json:
        print(json.dumps(checked, indent=1))
    else:
        for key, value in checked.items():
            print(f"{key:20} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    raise typer.Exit(
        {"pass": ExitCode.VALID, "fail": ExitCode.LIMIT, "unknown": ExitCode.INCONCLUSIVE}[checked["size"]]
    )


@app.command()
def rescore(
    run_dir: Annotated[Path, typer.Argument(help="A run folder under runs/.")],
    data: Annotated[
        Path | None, typer.Option(help="The dataset, if it is no longer where the run found it.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Some of the run's seeds, e.g. 1337,42.")] = "",
    witness: Annotated[
        int, typer.Option(min=0, help="Ask a witness about the new score too: probes, 0 for none.")
    ] = 0,
    witness_chunks: ChunksOption = None,
    witness_lanes: LanesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the packed artifacts of a run again, in the runner and image of the run, and compare the
    ledgers."""
    from harness.base.progress import ProgressDisplay
    from harness.commands import rescore as command_rescore
    from harness.run import certify as witnesses

    with ProgressDisplay() as progress:
        compared = command_rescore.rescore(
            run_dir,
            data,
            _numbers(seeds),
            progress,
            witnesses.WitnessRequest(witness, witness_chunks, witness_lanes) if witness else None,
        )
    command_rescore.show(compared, as_json)
    raise typer.Exit(compared["exit_code"])


@app.command()
def score(
    contestant: Annotated[str, typer.Option(help='e.g. "python docs/examples/order2.py"; files go along.')],
    tokens: Annotated[Path, typer.Option(help="A shard of tokens (docs/protocol.md, train).")],
    tokenizer: Annotated[
        Path, typer.Option(help="The SentencePiece model that made them: bytes are counted by it.")
    ],
    artifact: Annotated[
        Path | None, typer.Option(help="Handed to the contestant as `artifact` in setup.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Handed to it as `config` in setup.")] = None,
    profile: Annotated[str, typer.Option(help="Whose limits hold: pocket, solo or record.")] = "pocket",
    score_seconds: Annotated[
        float | None, typer.Option(help="Another score clock than the profile's.")
    ] = None,
    witness: Annotated[int, typer.Option(min=0, help="Probes of the witness; 0: none.")] = 0,
    witness_chunks: ChunksOption = None,
    witness_lanes: LanesOption = False,
    runner: RunnerOption = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are kept.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Judge any program that speaks docs/protocol.md, in any language, on any text.

    pgolf score --contestant "python docs/examples/order2.py" --tokens val.bin --tokenizer tokenizer.model
    --runner local"""
    from harness.base.progress import ProgressDisplay
    from harness.commands import score as command_score
    from harness.run import certify as witnesses

    request = witnesses.WitnessRequest(witness, witness_chunks, witness_lanes) if witness else None
    with ProgressDisplay() as progress:
        judged = command_score.score(
            command_score.ScoreRequest(
                contestant, tokens, tokenizer, artifact, config, profile, score_seconds, request
            ),
            runner,
            runs,
            progress,
        )
    print(json.dumps(judged, indent=1) if as_json else command_score.describe(judged))
    raise typer.Exit(judged["exit_code"])


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run folder, or one seed's folder.")],
    second: Annotated[Path, typer.Argument(help="Another, scored on the same text.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two runs document by document: the difference in bits per byte and its 95 % interval.

    pgolf compare runs/naive-baseline/pocket-0123456789ab runs/lowrank-q-qat/pocket-ba9876543210
    """
    from harness.verdict import compare as compares

    compared = compares.compare(first, second)
    print(json.dumps(compared, indent=1) if as_json else compares.describe(compared))


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run folder, or a verdict.json.")],
    as_json: JsonOption = False,
) -> None:
    """Show the verdict of a run again, and write its report.md and report.html anew."""
    from harness.run import folder as rundir
    from harness.verdict import decide, report as reports

    folder = rundir.RunFolder(run_dir.parent if run_dir.name == "verdict.json" else run_dir)
    judged = reports.rewrite(folder)
    _present(judged, as_json)
    raise typer.Exit(decide.exit_code(judged))


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; default: <date>_<submission> here.")
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who sends it in, for submission.json.")] = None,
    github_id: Annotated[str | None, typer.Option(help="Their GitHub ID.")] = None,
) -> None:
    """Write a finished run as a record folder in the challenge's layout: README, submission.json, logs, the
    counted code.

    pgolf export runs/hadamard-ve128/pocket-0123456789ab --author "A. Person" --github-id aperson
    """
    from harness.verdict import export as exports

    print(exports.export(run_dir, out, author, github_id))
    missing = [option for option, value in (("--author", author), ("--github-id", github_id)) if not value]
    if missing:
        print(
            f"submission.json names no {' and no '.join(missing)}: the challenge asks for both",
            file=sys.stderr,
        )


@app.command()
def audit(
    paths: Annotated[
        list[Path], typer.Argument(help="Record folders, or a checkout of the challenge's repository.")
    ],
    form: Annotated[
        Literal["text", "github", "markdown", "sarif"],
        typer.Option(
            "--format", help="text; github: annotations; markdown: a comment; sarif: code scanning."
        ),
    ] = "text",
    page: Annotated[Path | None, typer.Option(help="Write one HTML page here, e.g. audit.html.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="The clock of one folder. Default: 60.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where reports are kept. Default: the user's cache.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Neither take reports from the cache nor keep them.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, one line a folder.")
    ] = False,
) -> None:
    """Read published record folders without running anything: 1 violations found, 5 questions, 0 nothing
    found.

    pgolf audit records/ --page audit.html
    """
    from harness.audit import cache as caches, parallel
    from harness.commands import audit as command

    kept = None if fresh else cache or caches.folder()
    raise typer.Exit(
        command.run(
            paths,
            "json" if as_json else form,
            page,
            workers=workers,
            kept=kept,
            seconds=seconds or parallel.SECONDS,
        )
    )


@app.command()
def explain(
    rule: Annotated[str | None, typer.Argument(help="A rule's id; none lists every rule.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a rule: source, what it checks, an example, what it does not cover. Without one, list all rules.

    pgolf explain
    pgolf explain slot
    """
    from harness.audit import rulebook

    found = rulebook.rules() if rule is None else rulebook.find(rule)
    if as_json:
        print(json.dumps(rulebook.public(found), indent=1))
    else:
        print(rulebook.overview(found) if rule is None else rulebook.describe(found))


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What this machine can do: engine, images, GPUs, memory, disk, and what to do about what is missing."""
    from harness.commands import doctor as doctors

    facts = doctors.examine()
    print(json.dumps(facts, indent=1) if as_json else doctors.describe(facts))


@app.command()
def clean() -> None:
    """Remove what dead runs left in the container engine, and cached wheels. Datasets, images and runs are
    kept."""
    from harness.commands import doctor as doctors

    print(doctors.clean())


@app.command()
def schema(
    of: Annotated[
        Literal["manifest", "record"], typer.Argument(help="manifest.yaml, or a record as read.")
    ] = "manifest",
) -> None:
    """Print the JSON schema of manifest.yaml, or of a published record as `pgolf audit --json` reads it."""
    if of == "record":
        from harness.audit import record

        print(json.dumps(record.schema(), indent=1))
        return
    from harness.run import submission as manifest

    print(json.dumps(manifest.schema(), indent=1))


def _numbers(text: str) -> list[int]:
    """Comma-separated seeds."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"--seeds {text!r}: expected numbers separated by commas", hint="--seeds 1337,42"
        ) from None


def _present(judged: dict[str, Any], as_json: bool) -> None:
    from rich.console import Console

    from harness.verdict import report as reports

    if as_json:
        print(json.dumps(judged, indent=1))
        return
    reports.show(judged, Console())
    print(f"report: {judged['run_dir']}/report.md and report.html")


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: errors of ours become a message with a hint and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _terminate)  # containers are removed on the way out, as after Ctrl-C
    try:
        app()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (
        OSError
    ) as error:  # a full disk, a folder that cannot be written: never the contestant's doing here
        print(
            f"error: {error}\nhint: check disk space and permissions, then repeat the command",
            file=sys.stderr,
        )
        sys.exit(ExitCode.MACHINE)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
