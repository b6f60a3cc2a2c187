"""Render a verdict: tables for the terminal, report.md, and report.html with plots.

Only verdict.json and the stored arrays are read, and nothing is decided here. Text that a contestant or
submitter wrote is escaped.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.base import files, templates
from harness.base.errors import UsageError
from harness.base.text import MIN_COLUMNS, cell, plain, plain_lines
from harness.run.folder import RunFolder
from harness.verdict import plots
from harness.verdict.headline import headline

TEMPLATES = Path(__file__).parent / "templates"
STYLE = {
    "valid": "bold green",
    "invalid": "bold red",
    "inconclusive": "bold yellow",
    "pass": "green",
    "fail": "red",
    "unknown": "yellow",
}


SEED_COLUMNS = (
    ("seed", "seed", "{}"),
    ("outcome", "outcome", "{}"),
    ("bpb", "bits/byte", "{:.4f}"),
    ("nats_per_token", "nats/token", "{:.4f}"),
    ("train_seconds", "train s", "{:.2f}"),
    ("pack_seconds", "pack s", "{:.2f}"),
    ("score_seconds", "score s", "{:.2f}"),
    ("artifact_bytes", "artifact", "{:,}"),
    ("counted_bytes", "counted", "{:,}"),
)
"""Key in verdict.json, heading, format."""


def seed_table(verdict: dict[str, Any]) -> list[list[str]]:
    """A row for each seed, with the cells of SEED_COLUMNS."""
    return [[cell(row[key], form) for key, _, form in SEED_COLUMNS] for row in verdict["seeds"]]


CERTIFICATE_COLUMNS = (
    ("G_bpb", "G, bits/byte", "{:.4f}"),
    ("n_probes", "probes", "{:,}"),
    ("asked", "asked", "{:,}"),
    ("unanswered", "no answer", "{:,}"),
    ("covered_share", "covered", "{:.1%}"),
    ("largest_gain_nats", "largest", "{:.1e}"),
    ("noise_nats", "noise", "{:.1e}"),
    ("G_bpb_with_8_times", "G at 8x", "{:.4f}"),
    ("probes_for_target", "for 0.0005", "{:,}"),
)
"""Key in a seed's certificate, heading, format."""
CERTIFICATES = (
    "certificates: at most G is unearned; largest gain and noise in nats; probes that would reach G = 0.0005"
)


def certificate_table(verdict: dict[str, Any]) -> list[list[str]]:
    """A row for each seed that has a certificate: the seed, then the cells of CERTIFICATE_COLUMNS."""
    return [
        [str(row["seed"]), *(cell(row["certificate"][key], form) for key, _, form in CERTIFICATE_COLUMNS)]
        for row in verdict["seeds"]
        if row.get("certificate")
    ]


def guarantees(verdict: dict[str, Any]) -> list[str]:
    """What each seed's certificate guarantees and how likely a rare gain is hit, or why there is none."""
    lines = []
    for row in verdict["seeds"]:
        if (certificate := row.get("certificate")) is not None:
            chances = ", ".join(
                f"{float(share):.1%} of the tokens: {chance['met']:.1%}"
                for share, chance in certificate["detection"].items()
            )
            lines.append(
                f"Seed {row['seed']}: {certificate['guarantee']} Chance that a probe hits an unearned gain "
                f"taken at {chances}."
            )
        elif row.get("unasked"):
            lines.append(f"Seed {row['seed']}: no certificate: {row['unasked']}")
    return lines


def markdown(verdict: dict[str, Any]) -> str:
    """The content of report.md."""
    return templates.load(TEMPLATES / "report.md.j2").render(_context(verdict))


def page(verdict: dict[str, Any], folder: RunFolder) -> str:
    """The report as one HTML file with inline plots, which loads nothing."""
    context = _context(verdict)
    context |= {
        "histograms": plots.histograms(verdict, folder),
        "curves": plots.curves(verdict, folder),
        "gains": plots.gains(verdict, folder),
    }
    return templates.load(TEMPLATES / "report.html.j2").render(context)


def write(verdict: dict[str, Any], folder: RunFolder) -> None:
    """Write verdict.json, report.md and report.html."""
    files.write_json(folder.verdict, verdict)
    files.write_bytes(folder.report, markdown(verdict).encode())
    files.write_bytes(folder.page, page(verdict, folder).encode())


def rewrite(folder: RunFolder) -> dict[str, Any]:
    """Write the reports of a finished run again from its verdict.json, and return that verdict.

    The file may come from somebody else. Raises UsageError if it is no verdict of this schema.
    """
    try:
        verdict = files.read_json(folder.verdict)
        if verdict["verdict"] not in STYLE or verdict["schema"] != 1:
            raise ValueError("not a verdict of schema 1")
        write(verdict, folder)
        show(verdict, Console(file=io.StringIO()))  # so that `show` cannot fail later, after half its output
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        zipfile.BadZipFile,
        jinja2.TemplateError,
    ) as error:
        raise UsageError(
            f"{folder.verdict}: cannot be shown ({type(error).__name__}: {str(error)[:200]})",
            hint="`pgolf run` writes it again from the run's own records",
        ) from error
    return dict(verdict)


def show(verdict: dict[str, Any], console: Console) -> None:
    """Print the verdict; as plain text if the console is no terminal."""
    if not console.is_terminal:
        console.width = max(console.width, MIN_COLUMNS)
    console.print(Text(plain(headline(verdict)), STYLE[verdict["verdict"]]), soft_wrap=True)
    seeds = Table(*(heading for _, heading, _ in SEED_COLUMNS))
    for row in seed_table(verdict):
        seeds.add_row(*(Text(plain(text)) for text in row))
    console.print(seeds)
    for row in verdict["seeds"]:
        if row["reason"]:
            console.print(Text(plain_lines(f"seed {row['seed']}: {row['reason']}")), soft_wrap=True)
    if certificates := certificate_table(verdict):
        table = Table(
            "seed",
            *(heading for _, heading, _ in CERTIFICATE_COLUMNS),
            title=CERTIFICATES,
            title_justify="left",
        )
        for certificate in certificates:
            table.add_row(*(Text(plain(text)) for text in certificate))
        console.print(table)
    findings = Table("rule", "", "outcome", "evidence")
    for found in verdict["findings"]:
        cells = (found["rule"], found["condition"] or "", found["outcome"], found["evidence"])
        rule, condition, outcome, evidence = (Text(plain(text)) for text in cells)
        outcome.stylize(STYLE[found["outcome"]])
        findings.add_row(rule, condition, outcome, evidence)
    console.print(findings)
    console.print(Text(plain_lines("\n".join(_comparison(verdict)))), soft_wrap=True)


def _comparison(verdict: dict[str, Any]) -> list[str]:
    """The lines below the tables: compressors on the same text, and the significance test."""
    lines = [
        f"{name} on the same text: {value:.3f} bits per byte"
        for name, value in verdict["compressors"].items()
    ]
    baseline = verdict["baseline"]
    if baseline and baseline["tests"]:
        for condition, tests in (
            ("", baseline["tests"]),
            (", if each score is raised by its certificate's G", baseline.get("tests_with_G") or []),
        ):
            lines += [
                f"better than {baseline['name']} by {test['margin_bpb']:.4f} bpb ({test['profile']})"
                f"{condition}: p = {test['p']:.2g}, {'yes' if test['better'] else 'no'} at {test['p_below']}"
                for test in tests
            ]
    elif baseline:
        lines.append(f"baseline {baseline['name']}: {baseline['reason']}")
    return lines


def _context(verdict: dict[str, Any]) -> dict[str, Any]:
    return {
        "v": verdict,
        "headline": headline(verdict),
        "columns": [heading for _, heading, _ in SEED_COLUMNS],
        "rows": seed_table(verdict),
        "comparison": _comparison(verdict),
        "certificate_columns": ["seed", *(heading for _, heading, _ in CERTIFICATE_COLUMNS)],
        "certificates": certificate_table(verdict),
        "guarantees": guarantees(verdict),
    }
