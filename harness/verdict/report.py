"""Render a verdict: a summary for the terminal, report.md, and report.html with plots.

The headline comes first, and findings that fail or are unknown come before those that pass. Only verdict.json
and the stored arrays are read, and nothing is decided here. Text that a contestant or submitter wrote is
escaped.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from rich.console import Console
from rich.text import Text

from harness.base import files, host, templates
from harness.base.console import print_lines, print_table, text_cells
from harness.base.errors import UsageError
from harness.base.text import cell, count
from harness.run.folder import RunFolder
from harness.scoring.certificate.sampling import ALPHAS
from harness.verdict import plots
from harness.verdict.headline import decision, result

TEMPLATES = Path(__file__).parent / "templates"
STYLE = {
    "valid": "bold green",
    "invalid": "bold red",
    "inconclusive": "bold yellow",
    "pass": "green",
    "fail": "red",
    "unknown": "yellow",
}
WORST_FIRST = ("fail", "unknown", "pass")
FINDING_HEADINGS = ("rule", "condition", "outcome", "evidence")

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
CERTIFICATE_HEADINGS = ["seed", *(heading for _, heading, _ in CERTIFICATE_COLUMNS)]
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


def certificate_lines(row: dict[str, Any]) -> list[str]:
    """One sentence on a seed's certificate, or why there is none; then one on each later certificate."""
    lines = []
    if (certificate := row.get("certificate")) is not None:
        assumed = "" if certificate["lanes"] is None else ", if each row depends on its own context alone"
        lines.append(f"with {100 * (1 - sum(ALPHAS)):g} % confidence {_bound(certificate)}{assumed}")
    elif row.get("unasked"):
        lines.append(f"no certificate: {row['unasked']}")
    return [
        f"seed {row['seed']}: {line}" for line in (*lines, *map(_later, row.get("later_certificates", [])))
    ]


def _bound(certificate: dict[str, Any]) -> str:
    return (
        f"at most {certificate['G_bpb']:.4f} bits per byte are unearned "
        f"({count(certificate['n_probes'], 'probe')})"
    )


def _later(certificate: dict[str, Any]) -> str:
    """What a rescoring with a witness found, after the run."""
    name = f"later, not deciding: {certificate['folder']}"
    if certificate["G_bpb"] is None:
        return f"{name}, no certificate: {certificate['unasked']}"
    shown, failed = (", ".join(certificate[key]) or "nothing" for key in ("shown", "failed"))
    return f"{name}, {_bound(certificate)}; shown: {shown}; failed: {failed}"


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


class Rendered(NamedTuple):
    """A verdict and both files of its report; made whole before anything of it is shown or written."""

    verdict: dict[str, Any]
    markdown: str
    page: str

    def write(self, folder: RunFolder) -> None:
        """Write verdict.json, report.md and report.html. Raises MachineFault where that is refused."""
        files.write_json(folder.verdict, self.verdict)
        files.write_bytes(folder.report, self.markdown.encode())
        files.write_bytes(folder.page, self.page.encode())


def render(verdict: dict[str, Any], folder: RunFolder) -> Rendered:
    """The verdict with its report, so that neither `show` nor `write` can fail by its content afterwards.

    Raises UsageError for a verdict from damaged records.
    """
    with _refusing_damage(folder):
        for details in (False, True):
            show(verdict, Console(file=io.StringIO()), details)
        return Rendered(verdict, markdown(verdict), page(verdict, folder))


def read_alone(folder: RunFolder, remark: str) -> dict[str, Any]:
    """A verdict.json that lies without its run, with a remark.

    The file may come from somebody else. Raises UsageError if it is no verdict of this schema.
    """
    verdict = files.read_json(folder.verdict)
    with _refusing_damage(folder):
        if verdict["verdict"] not in STYLE or verdict["schema"] != 1:
            raise ValueError("not a verdict of schema 1")
        verdict["remarks"] = list(dict.fromkeys([*verdict.get("remarks", []), remark]))
        return dict(verdict)


@contextmanager
def _refusing_damage(folder: RunFolder) -> Iterator[None]:
    """Turn what damaged or foreign content raises while it is rendered into a UsageError."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        zipfile.BadZipFile,
        jinja2.TemplateError,
    ) as error:
        raise UsageError(
            f"{folder.verdict}: cannot be shown ({type(error).__name__}: {str(error)[:200]})",
            hint="it or a record beside it was changed by hand: restore the file",
        ) from error


def show(verdict: dict[str, Any], console: Console, details: bool = False) -> None:
    """Print the verdict. `details` adds the findings that pass and the numbers of the certificates."""
    print_lines(console, f"{result(verdict)}\n{decision(verdict)}", STYLE[verdict["verdict"]])
    console.print()
    print_table(
        console, [heading for _, heading, _ in SEED_COLUMNS], [text_cells(row) for row in seed_table(verdict)]
    )
    print_section(console, notes(verdict))
    if details and (certificates := certificate_table(verdict)):
        print_section(console, [CERTIFICATES])
        print_table(console, CERTIFICATE_HEADINGS, [text_cells(row) for row in certificates])
    print_findings(console, findings(verdict), details)
    print_section(console, _comparison(verdict))


def print_section(console: Console, lines: Sequence[str]) -> None:
    """Lines after an empty one."""
    if lines:
        print_lines(console, "\n".join(("", *lines)))


def print_findings(console: Console, found: Sequence[dict[str, Any]], details: bool) -> None:
    """The findings that do not pass, and how many do; all of them with `details`."""
    shown = [each for each in found if details or each["outcome"] != "pass"]
    if shown:
        console.print()
        print_table(console, FINDING_HEADINGS, [_finding_cells(each) for each in shown], prose=("evidence",))
    if n_passed := len(found) - len(shown):
        rules = count(n_passed, "other rule" if shown else "rule")
        print_section(console, [f"{rules} passed: --details shows the evidence"])


def _finding_cells(found: dict[str, Any]) -> list[Text]:
    rule, condition, outcome, evidence = text_cells(
        (found["rule"], found["condition"] or "", found["outcome"], found["evidence"])
    )
    outcome.stylize(STYLE[found["outcome"]])
    return [rule, condition, outcome, evidence]


def findings(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings: first those that fail, then the unknown ones, then those that pass."""
    return sorted(verdict["findings"], key=lambda found: WORST_FIRST.index(found["outcome"]))


def notes(verdict: dict[str, Any]) -> list[str]:
    """What a reader must know beside the numbers: certificates, why a seed has no score, and remarks."""
    lines = []
    for row in verdict["seeds"]:
        if row["reason"]:
            lines.append(f"seed {row['seed']}: {row['reason']}".replace("\n", "; "))
        lines += certificate_lines(row)
    return lines + [f"remark: {remark}" for remark in verdict.get("remarks", [])]


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
                f"better than {baseline['name']} by {test['margin_bpb']:.4f} bits per byte "
                f"({test['profile']}){condition}: p = {test['p']:.2g}, which is "
                f"{'' if test['better'] else 'not '}below {test['p_below']}"
                for test in tests
            ]
    elif baseline:
        lines.append(f"baseline {baseline['name']}: {baseline['reason']}")
    return lines


def _context(verdict: dict[str, Any]) -> dict[str, Any]:
    return {
        "v": verdict,
        "host": host.description(verdict["host"]),
        "result": result(verdict),
        "decision": decision(verdict),
        "columns": [heading for _, heading, _ in SEED_COLUMNS],
        "rows": seed_table(verdict),
        "notes": notes(verdict),
        "comparison": _comparison(verdict),
        "certificate_columns": CERTIFICATE_HEADINGS,
        "certificates": certificate_table(verdict),
        "certificates_are": CERTIFICATES,
        "guarantees": guarantees(verdict),
        "findings": findings(verdict),
    }
