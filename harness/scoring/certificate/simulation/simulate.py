"""Does the bound cover, do the tests convict, and do they spare the honest? On the per-token numbers of a
real run:

    python -m harness.scoring.certificate.simulation.simulate SEED_FOLDER DATASET_FOLDER [--tokens 200000] [--draws 100]
                                                              [--plots docs]
    python -m harness.scoring.certificate.simulation.simulate SEED_FOLDER DATASET_FOLDER --held-out --seed 77 --draws 50

SEED_FOLDER holds a run's nats.f32 (runs/NAME/KEY/seed-1337). Prints the tables of docs/certificate.md and
draws its figures; four minutes of one core each. The numbers are real, the programs made up (worlds.py), and
the coins here come from numpy's generator, since a bound over independent coins is what is tried, not SHAKE.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.scoring.certificate import bound as bounds, reference_model, sampling
from harness.scoring.certificate.certificate import SECOND_ROUND_FACTOR, Certificate, certify
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import ALPHAS, Floats, ReportedScore
from harness.scoring.certificate.simulation.figure import Series, chart
from harness.scoring.certificate.simulation.scenarios import (
    CHEATS,
    CHUNK_TOKENS,
    HELD_OUT,
    HONEST,
    Scenario,
    gambles,
)

PROBES = (512, 4_096, 32_768)
Z = 2.41  # a normal's one-sided 99.2 %
HITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
FALSE_ALARM_TOKENS = 60_000


def load(seed_dir: Path, dataset: Path, n_tokens: int) -> ReportedScore:
    """The first n_tokens of a scored seed, with the judge's prices."""
    from harness.data.dataset import Dataset

    opened = Dataset.open(dataset)
    tokens_T = np.array(opened.validation_tokens()[:n_tokens])
    nats_T = np.fromfile(seed_dir / "nats.f32", "<f4")[: len(tokens_T)]
    n_bytes = int(opened.byte_table().count(tokens_T, None)[1:].sum())
    return ReportedScore(
        tokens_T, nats_T, reference_model.probabilities(tokens_T, opened.vocab_size), n_bytes, CHUNK_TOKENS
    )


def certify_round(
    rng: np.random.Generator,
    scored: ReportedScore,
    chosen: sampling.SamplingDesign,
    u_T: Floats,
    witnesses: tuple[Floats, Floats],
    adapts: bool,
) -> Certificate:
    """One certificate: the coins fall, both witnesses answer from the numbers made up for them."""
    plan = sampling.select(chosen, u_T)
    first, second = (
        Responses(
            np.where(np.isfinite(h_T[plan.asked_P]), h_T[plan.asked_P], 0.0),
            np.where(np.isfinite(h_T[plan.asked_P]), 0.0, np.nan),
        )
        for h_T in witnesses
    )
    claims_T, (first_T, _) = scored.nats_T, witnesses
    boundaries = [
        BoundaryPair(t, float(claims_T[t]), float(first_T[t]))
        for t in range(CHUNK_TOKENS, plan.asked_P[-1] + 1, CHUNK_TOKENS)
    ]
    return certify(scored, plan, first, second, boundaries=boundaries, adapts=adapts)


def certificates(
    rng: np.random.Generator, scored: ReportedScore, world: Scenario, n_probes: int
) -> list[Certificate]:
    """The first look, and the second where the first asks for it."""
    claims_T, *witnesses = world.make(rng, scored, n_probes)
    reported, u_T = dataclasses.replace(scored, nats_T=claims_T), rng.random(len(claims_T))
    pair = (witnesses[0], witnesses[1])
    found = [certify_round(rng, reported, sampling.design(reported, n_probes), u_T, pair, world.adapts)]
    if found[0].wants_second_round and SECOND_ROUND_FACTOR * n_probes <= scored.n_scored:
        found.append(
            certify_round(
                rng,
                reported,
                sampling.design(reported, SECOND_ROUND_FACTOR * n_probes, round_number=2),
                u_T,
                pair,
                world.adapts,
            )
        )
    return found


class Covered(NamedTuple):
    """One cell of the coverage table. Nats a token: what the coins had to catch (mean d), and the mean bound
    on it."""

    gained: float
    bound: float
    share: float  # of the draws, in which the bound held
    normal_share: float  # the same for a normal interval of the same level over a uniform draw


def covered(
    rng: np.random.Generator, scored: ReportedScore, world: Scenario, n_probes: int, draws: int
) -> Covered:
    """How often the bound on mean d holds. The judge's share of the mixture, known, is left out: it would
    only help."""
    claims_T, first_T, _ = world.make(rng, scored, n_probes)
    chosen = sampling.design(dataclasses.replace(scored, nats_T=claims_T), n_probes)
    d_T = np.minimum(
        sampling.mixed(first_T, scored.reference_T, chosen.eps) - chosen.mixed_T, chosen.largest_T
    )
    gained, found, normal = float(d_T[1:].mean()), np.empty(draws), 0
    for i in range(draws):
        plan = sampling.select(chosen, rng.random(len(d_T)))
        found[i] = bounds.bound(plan, d_T[plan.asked_P]).sampling
        sample = d_T[rng.integers(1, len(d_T), n_probes)]
        normal += bool(sample.mean() + Z * sample.std() / math.sqrt(n_probes) >= gained - 1e-9)
    return Covered(gained, float(found.mean()), float((found >= gained).mean()), normal / draws)


def power(
    rng: np.random.Generator,
    scored: ReportedScore,
    worlds: Iterable[Scenario],
    probes: Iterable[int],
    draws: int,
    talk: Callable[[str], None],
) -> dict[str, list[tuple[int, float, float]]]:
    """For each program (N, share proved, share left open) over first and second looks together."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for world in worlds:
        talk(f"power: {world.name}")
        for n_probes in probes:
            counts = outcomes(rng, scored, world, n_probes, draws)
            found.setdefault(world.name, []).append(
                (n_probes, counts["fail"] / draws, counts["unknown"] / draws)
            )
    return found


def outcomes(
    rng: np.random.Generator, scored: ReportedScore, world: Scenario, n_probes: int, draws: int
) -> Counter[str]:
    """C1 of the last look, over independent draws of the program's noise and of the coins."""
    counts: Counter[str] = Counter()
    for _ in range(draws):
        looks = certificates(rng, scored, world, n_probes)
        counts["fail" if any(each.failed for each in looks) else looks[-1].conditions[0].outcome] += 1
        counts["second"] += len(looks) > 1
        counts["G"] += round(1e9 * min(each.G_nats for each in looks))
    return counts


def false_alarms(
    rng: np.random.Generator,
    scored: ReportedScore,
    worlds: Iterable[Scenario],
    draws: int,
    talk: Callable[[str], None],
) -> list[list[str]]:
    """Rows (noise, then for each N: certificates, accused, left open, mean G) for honest programs."""
    rows = []
    for world in worlds:
        talk(f"false alarms: {world.name}")
        row = [world.name]
        for n_probes in PROBES:
            small = n_probes < scored.n_scored // 8
            text = (
                _part(scored, slice(0, FALSE_ALARM_TOKENS))
                if small and n_probes * 8 < FALSE_ALARM_TOKENS
                else scored
            )
            times = 4 * draws if text is not scored else draws
            counts = outcomes(rng, text, world, n_probes, times)
            row += [
                f"{times:,}",
                f"{counts['fail']}",
                f"{counts['unknown']}",
                f"{counts['G'] / times / 1e9:.5f}",
            ]
        rows.append(row)
    return rows


def designs(scored: ReportedScore) -> list[list[str]]:
    """Rows (N, G in nats of an exact program by: a uniform draw, the proposal before it was improved, this;
    and in bpb)."""
    rows = []
    target = -math.log(ALPHAS[0])
    bigram_T = reference_model.probabilities(scored.tokens_T, int(scored.tokens_T.max()) + 1, order=1)
    for n_probes in (*PROBES, 262_144):
        if n_probes >= scored.n_scored:
            continue
        eps = 4 / n_probes
        largest_T = -math.log(eps) - np.log(bigram_T) - sampling.mixed(scored.nats_T, bigram_T, eps)
        uniform = -math.log1p(-eps) + target * float(largest_T[1:].max()) / (0.9 * n_probes)
        weight_T = np.maximum(largest_T[1:], largest_T[1:].mean() / 4)
        before = -math.log1p(-eps) + target * float(weight_T.mean()) / (0.9 * n_probes)
        plan = sampling.select(sampling.design(scored, n_probes), np.ones(len(scored.tokens_T)))
        now = bounds.bound(plan, np.zeros(len(plan.asked_P))).total
        rows.append(
            [
                f"{n_probes:,}",
                f"{uniform:.5f}",
                f"{before:.5f}",
                f"{now:.5f}",
                f"{now * scored.n_scored / math.log(2) / scored.n_bytes:.5f}",
            ]
        )
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _part(scored: ReportedScore, part: slice) -> ReportedScore:
    tokens_T = scored.tokens_T[part]
    return ReportedScore(
        tokens_T,
        scored.nats_T[part],
        scored.reference_T[part],
        round(scored.n_bytes * len(tokens_T) / len(scored.tokens_T)),
        scored.chunk_tokens,
    )


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("seed_folder", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plots", type=Path)
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="only false alarms, on the text after --tokens, with other noise",
    )
    asked = parser.parse_args()
    began, rng = time.process_time(), np.random.default_rng(asked.seed)

    def talk(text: str) -> None:
        print(f"{time.process_time() - began:6.0f} s  {text}", file=sys.stderr)

    each = [f"{what}, N = {n:,}" for n in PROBES for what in ("draws", "accused", "open", "mean G")]
    if asked.held_out:
        scored = _part(load(asked.seed_folder, asked.dataset, 2 * asked.tokens), slice(asked.tokens, None))
        print(table(["noise", *each], false_alarms(rng, scored, (*HONEST, *HELD_OUT), asked.draws, talk)))
        return
    scored = load(asked.seed_folder, asked.dataset, asked.tokens)
    gap = float((-np.log(scored.reference_T[1:]) - scored.nats_T[1:]).mean())
    reported = float(scored.nats_T[1:].mean())
    print(
        f"{scored.n_scored:,} tokens of {scored.n_bytes / scored.n_scored:.2f} bytes, claimed {reported:.3f} "
        "nats, the judge's "
        f"own price {reported + gap:.3f}\n"
    )
    print("### G of a program that repeats itself exactly\n")
    print(
        table(["N", "uniform draw", "the proposal", "this", "this, bpb"], designs(scored)), "\n", flush=True
    )

    times, rows, cells = 2 * asked.draws, [], []
    for world in CHEATS:
        talk(f"coverage: {world.name}")
        cells = [covered(rng, scored, world, n_probes, times) for n_probes in PROBES]
        rows.append(
            [
                world.name,
                *(
                    f"{c.gained:.5f} / {c.bound:.5f} / {100 * c.share:.1f} / {100 * c.normal_share:.1f}"
                    for c in cells
                ),
            ]
        )
    print(f"### Coverage: mean d / mean bound on it / covered % / normal interval %, {times} draws a cell\n")
    print(table(["program", *(f"N = {n:,}" for n in PROBES)], rows), "\n", flush=True)

    lines: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for hits in HITS:
        talk(f"coverage: gambles of {hits:g} hits")
        for world in gambles(hits):
            cell = covered(rng, scored, world, 4_096, 2 * times)
            rows.append(
                [
                    f"{hits:g}",
                    world.name,
                    f"{cell.gained:.5f}",
                    f"{cell.bound:.5f}",
                    f"{100 * cell.share:.2f}",
                    f"{100 * cell.normal_share:.1f}",
                ]
            )
            lines.setdefault(f"G: {world.name}", []).append((hits, 100 * cell.share))
            lines.setdefault(f"normal interval: {world.name}", []).append((hits, 100 * cell.normal_share))
    print(
        f"### Coverage of programs that gamble on few gains, N = 4,096, {2 * times} draws a row, nominal "
        "99.2 %\n"
    )
    print(
        table(
            ["gains met on average", "program", "mean d", "mean bound", "covered %", "normal interval %"],
            rows,
        ),
        "\n",
        flush=True,
    )
    if asked.plots:
        (asked.plots / "certificate-coverage.svg").write_text(
            chart(
                "How often the interval covers what was gained, % (nominal 99.2)",
                "gains that the probes meet on average",
                [Series(*line) for line in lines.items()],
            ),
            encoding="utf-8",
        )

    print("### Honest programs\n")
    print(table(["noise", *each], false_alarms(rng, scored, HONEST, asked.draws, talk)), "\n", flush=True)

    sizes = (512, 1_024, 2_048, 4_096, 16_384)
    curves = power(rng, scored, CHEATS, sizes, asked.draws // 3, talk)
    print("### Power: proved / left open, in %, after a second look where the first asks for it\n")
    print(
        table(
            ["program", *(f"{n:,}" for n in sizes)],
            [
                [name, *(f"{100 * proved:.0f} / {100 * left:.0f}" for _, proved, left in points)]
                for name, points in curves.items()
            ],
        ),
        "\n",
    )
    if asked.plots:
        shown = [
            Series(name, [(float(n), 100 * proved) for n, proved, _ in points])
            for name, points in curves.items()
        ]
        (asked.plots / "certificate-power.svg").write_text(
            chart("Share of certificates that prove the gain, %", "probes of the first look", shown),
            encoding="utf-8",
        )
    talk("done")


if __name__ == "__main__":
    main()
