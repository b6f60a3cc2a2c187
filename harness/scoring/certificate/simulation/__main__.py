"""Print the tables of docs/certificate.md and draw its figures, on the per-token numbers of a real run:

    python -m harness.scoring.certificate.simulation SEED_FOLDER DATASET_FOLDER
        [--tokens 200000] [--draws 100] [--seed 1] [--plots docs] [--held-out]

SEED_FOLDER holds a run's nats.f32 (runs/NAME/KEY/seed-1337). Takes four minutes of one core for the tables,
and as long again with --held-out. What is simulated is in experiments.py and scenarios.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from harness.scoring.certificate import reference_model
from harness.scoring.certificate.sampling import ReportedScore
from harness.scoring.certificate.simulation.experiments import (
    PROBES,
    Report,
    coverage,
    designs,
    false_alarms,
    part_of,
    power,
)
from harness.scoring.certificate.simulation.figure import Series, chart
from harness.scoring.certificate.simulation.scenarios import (
    CHEATS,
    CHUNK_TOKENS,
    HELD_OUT,
    HONEST,
    Rng,
    Scenario,
    gambles,
)

HITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
GAMBLE_PROBES = 4_096
POWER_PROBES = (512, 1_024, 2_048, 4_096, 16_384)


def load(seed_dir: Path, dataset: Path, n_tokens: int) -> ReportedScore:
    """The first n_tokens of a scored seed, with the reference model's probabilities."""
    from harness.data.dataset import Dataset

    opened = Dataset.open(dataset)
    tokens_T = np.array(opened.validation_tokens()[:n_tokens])
    nats_T = np.fromfile(seed_dir / "nats.f32", "<f4")[: len(tokens_T)]
    n_bytes = int(opened.byte_table().count(tokens_T, None)[1:].sum())
    return ReportedScore(
        tokens_T, nats_T, reference_model.probabilities(tokens_T, opened.vocab_size), n_bytes, CHUNK_TOKENS
    )


def show(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a section with one Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    print(f"### {title}\n")
    print("\n".join(lines), "\n", flush=True)


def show_text(reported: ReportedScore) -> None:
    """Print what the score is on."""
    gap = float((-np.log(reported.reference_T[1:]) - reported.nats_T[1:]).mean())
    nats = float(reported.nats_T[1:].mean())
    print(
        f"{reported.n_scored:,} tokens of {reported.n_bytes / reported.n_scored:.2f} bytes, reported "
        f"{nats:.3f} nats, the reference model {nats + gap:.3f}\n"
    )


def show_designs(reported: ReportedScore) -> None:
    """Print G of an exact program by number of probes."""
    head = ["N", "uniform draw", "the proposal", "this", "this, bpb"]
    show("G of a program that repeats itself exactly", head, designs(reported))


def show_coverage(rng: Rng, reported: ReportedScore, draws: int, report: Report) -> None:
    """Print how often the bound holds, by cheat and number of probes."""
    rows = []
    for scenario in CHEATS:
        report(f"coverage: {scenario.name}")
        cells = [coverage(rng, reported, scenario, n_probes, draws) for n_probes in PROBES]
        rows.append(
            [
                scenario.name,
                *(
                    f"{c.gained:.5f} / {c.bound:.5f} / {100 * c.share:.1f} / {100 * c.normal_share:.1f}"
                    for c in cells
                ),
            ]
        )
    title = f"Coverage: mean d / mean bound on it / covered % / normal interval %, {draws} draws a cell"
    show(title, ["program", *(f"N = {n:,}" for n in PROBES)], rows)


def show_gambles(rng: Rng, reported: ReportedScore, draws: int, plots: Path | None, report: Report) -> None:
    """Print, and draw, how often the bound holds for programs that gamble on few gains."""
    rows: list[list[str]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    for hits in HITS:
        report(f"coverage: gambles of {hits:g} hits")
        for scenario in gambles(hits):
            cell = coverage(rng, reported, scenario, GAMBLE_PROBES, draws)
            covered, normal = 100 * cell.share, 100 * cell.normal_share
            rows.append(
                [
                    f"{hits:g}",
                    scenario.name,
                    f"{cell.gained:.5f}",
                    f"{cell.bound:.5f}",
                    f"{covered:.2f}",
                    f"{normal:.1f}",
                ]
            )
            lines.setdefault(f"G: {scenario.name}", []).append((hits, covered))
            lines.setdefault(f"normal interval: {scenario.name}", []).append((hits, normal))
    title = (
        f"Coverage of programs that gamble on few gains, N = {GAMBLE_PROBES:,}, {draws} draws a row, "
        "nominal 99.2 %"
    )
    head = ["gains met on average", "program", "mean d", "mean bound", "covered %", "normal interval %"]
    show(title, head, rows)
    if plots:
        drawn = chart(
            "How often the interval covers what was gained, % (nominal 99.2)",
            "gains that the probes meet on average",
            [Series(*line) for line in lines.items()],
        )
        (plots / "certificate-coverage.svg").write_text(drawn, encoding="utf-8")


def show_false_alarms(
    rng: Rng, reported: ReportedScore, scenarios: tuple[Scenario, ...], draws: int, report: Report
) -> None:
    """Print how often honest programs fail or are left open."""
    columns = [f"{what}, N = {n:,}" for n in PROBES for what in ("draws", "failed", "open", "mean G")]
    show("Honest programs", ["noise", *columns], false_alarms(rng, reported, scenarios, draws, report))


def show_power(rng: Rng, reported: ReportedScore, draws: int, plots: Path | None, report: Report) -> None:
    """Print, and draw, how often a gain is proved."""
    curves = power(rng, reported, CHEATS, POWER_PROBES, draws, report)
    rows = [
        [name, *(f"{100 * point.proved:.0f} / {100 * point.unknown:.0f}" for point in points)]
        for name, points in curves.items()
    ]
    show(
        "Power: proved / left open, in %, after a second round where the first asks for it",
        ["program", *(f"{n:,}" for n in POWER_PROBES)],
        rows,
    )
    if plots:
        shown = [
            Series(name, [(float(point.n_probes), 100 * point.proved) for point in points])
            for name, points in curves.items()
        ]
        drawn = chart("Share of certificates that prove the gain, %", "probes of the first round", shown)
        (plots / "certificate-power.svg").write_text(drawn, encoding="utf-8")


def options() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("seed_folder", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plots", type=Path, help="the folder for the figures; default: none are drawn")
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="only false alarms, on the text after --tokens, with other noise",
    )
    return parser.parse_args()


def main() -> None:
    """Run the simulation that the command line asks for."""
    given = options()
    began, rng = time.process_time(), np.random.default_rng(given.seed)

    def report(text: str) -> None:
        print(f"{time.process_time() - began:6.0f} s  {text}", file=sys.stderr)

    if given.held_out:
        reported = load(given.seed_folder, given.dataset, 2 * given.tokens)
        other = part_of(reported, slice(given.tokens, None))
        show_false_alarms(rng, other, (*HONEST, *HELD_OUT), given.draws, report)
        return
    reported = load(given.seed_folder, given.dataset, given.tokens)
    show_text(reported)
    show_designs(reported)
    show_coverage(rng, reported, 2 * given.draws, report)
    show_gambles(rng, reported, 4 * given.draws, given.plots, report)
    show_false_alarms(rng, reported, HONEST, given.draws, report)
    show_power(rng, reported, given.draws // 3, given.plots, report)
    report("done")


if __name__ == "__main__":
    main()
