"""How a verdict looks: a table for the terminal, report.md, report.html with its plots.

Renders verdict.json and the per-document numbers; no decision is taken here. Text that a contestant or submitter wrote
is escaped. Not covered: what the numbers are (verdict.py).
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import rundir
from harness.errors import UsageError
from harness.rundir import RunFolder

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN = re.compile(r"[\\`*_\[\]<>|&~$]")
HISTOGRAM_BINS = 40
CURVE_POINTS = 400

STYLE = {"valid": "bold green", "invalid": "bold red", "inconclusive": "bold yellow", "pass": "green", "fail": "red",
         "unknown": "yellow"}


def headline(verdict: dict[str, Any]) -> str:
    """The verdict in a sentence: decision, profile, score, spread, seeds, and what the text was."""
    rows = verdict["seeds"]
    scored = [row for row in rows if row["bpb"] is not None]
    score = "no score"
    if scored:
        spread = "" if verdict["sd_bpb"] is None else f" (sd {verdict['sd_bpb']:.4f})"
        score = f"{verdict['mean_bpb']:.4f} bits per byte{spread}, {len(scored)} of {len(rows)} seeds"
    seconds = verdict["shortened_train_seconds"]
    clock = "" if seconds is None else f", train clock shortened to {seconds:g} s"
    return (f"{verdict['verdict'].upper()} in profile {verdict['profile']}: {verdict['submission']}, {score}, on "
            f"{verdict['dataset']['name']}, {verdict['runner']} runner{clock}{not_shown(verdict)}")


def not_shown(verdict: dict[str, Any]) -> str:
    """What a reader must not take for proven: conditions with an unknown finding."""
    unknown = [found for found in verdict["findings"] if found["outcome"] == "unknown"]
    open_conditions = {found["condition"] for found in unknown if found["condition"]}
    return f"; not shown: {', '.join(sorted(open_conditions))}" if open_conditions else ""


def cell(value: Any, form: str = "{}") -> str:
    """A table cell; a dash for what is not to be had."""
    return "–" if value is None else form.format(value)


SEED_COLUMNS = (("seed", "seed", "{}"), ("outcome", "outcome", "{}"), ("bpb", "bits/byte", "{:.4f}"),
                ("nats_per_token", "nats/token", "{:.4f}"), ("train_seconds", "train s", "{:.2f}"),
                ("pack_seconds", "pack s", "{:.2f}"), ("score_seconds", "score s", "{:.2f}"),
                ("artifact_bytes", "artifact", "{:,}"), ("counted_bytes", "counted", "{:,}"))
"""Key in verdict.json, heading, format."""
NARROWEST = 100
"""Columns assumed where the output is no terminal."""


def seed_table(verdict: dict[str, Any]) -> list[list[str]]:
    """Rows of SEED_COLUMNS as text."""
    return [[cell(row[key], form) for key, _, form in SEED_COLUMNS] for row in verdict["seeds"]]


def markdown(verdict: dict[str, Any]) -> str:
    return _environment(autoescape=False).get_template("report.md.j2").render(_context(verdict))


def page(verdict: dict[str, Any], folder: RunFolder) -> str:
    """The report as one HTML file with inline plots; nothing is loaded from anywhere."""
    context = _context(verdict)
    context |= {"histograms": _histograms(verdict, folder), "curves": _curves(verdict, folder)}
    return _environment(autoescape=True).get_template("report.html.j2").render(context)


def write(verdict: dict[str, Any], folder: RunFolder) -> None:
    """verdict.json, report.md, report.html."""
    rundir.write_json(folder.verdict, verdict)
    rundir.write_bytes(folder.report, markdown(verdict).encode())
    rundir.write_bytes(folder.page, page(verdict, folder).encode())


def rewrite(folder: RunFolder) -> dict[str, Any]:
    """verdict.json of a finished run, which may be anybody's, and its reports written anew.

    Raises UsageError for a file that is no verdict of this version.
    """
    try:
        judged = rundir.read_json(folder.verdict)
        if judged["verdict"] not in STYLE or judged["schema"] != 1:
            raise ValueError("not a verdict of schema 1")
        write(judged, folder)
        show(judged, Console(file=io.StringIO()))  # whatever cannot be shown is refused here, not half-way
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, zipfile.BadZipFile,
            jinja2.TemplateError) as error:
        raise UsageError(f"{folder.verdict}: cannot be shown ({type(error).__name__}: {str(error)[:200]})",
                         hint="`pgolf run` writes it again from the run's own records") from error
    return dict(judged)


def show(verdict: dict[str, Any], console: Console) -> None:
    """The verdict on a terminal, or as plain text where stdout is none."""
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    console.print(Text(plain(headline(verdict)), STYLE[verdict["verdict"]]), soft_wrap=True)
    seeds = Table(*(heading for _, heading, _ in SEED_COLUMNS))
    for row in seed_table(verdict):
        seeds.add_row(*(Text(plain(text)) for text in row))
    console.print(seeds)
    for row in verdict["seeds"]:
        if row["reason"]:
            console.print(Text(_lines(f"seed {row['seed']}: {row['reason']}")), soft_wrap=True)
    findings = Table("rule", "", "outcome", "evidence")
    for found in verdict["findings"]:
        words = (found["rule"], found["condition"] or "", found["outcome"], found["evidence"])
        rule, condition, outcome, evidence = (Text(plain(word)) for word in words)
        outcome.stylize(STYLE[found["outcome"]])
        findings.add_row(rule, condition, outcome, evidence)
    console.print(findings)
    console.print(Text(_lines("\n".join(_comparison(verdict)))), soft_wrap=True)


def _lines(text: str) -> str:
    """Text of several lines of ours, each plain."""
    return "\n".join(plain(line) for line in text.split("\n"))


def _comparison(verdict: dict[str, Any]) -> list[str]:
    """Lines below the tables: compressors on the same text, and the significance test."""
    lines = [f"{name} on the same text: {value:.3f} bits per byte" for name, value in verdict["compressors"].items()]
    baseline = verdict["baseline"]
    if baseline and baseline["tests"]:
        lines += [f"better than {baseline['name']} by {test['margin_bpb']:.4f} bpb ({test['profile']}): "
                  f"p = {test['p']:.2g}, {'yes' if test['better'] else 'no'} at {test['p_below']}"
                  for test in baseline["tests"]]
    elif baseline:
        lines.append(f"baseline {baseline['name']}: {baseline['reason']}")
    return lines


def plain(text: str) -> str:
    """Text whose control, format and line-breaking characters are shown as escapes, so that no terminal obeys them."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _for_page(value: Any) -> Any:
    """What HTML shows of a value; the template engine escapes its markup afterwards."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else plain(value.replace("\n", " ")) if isinstance(value, str) else value


def _for_markdown(value: Any) -> Any:
    """What markdown shows of a value: every character that could be markup behind a backslash."""
    shown = _for_page(value)
    return MARKDOWN.sub(r"\\\g<0>", shown) if isinstance(shown, str) and not isinstance(shown, Markup) else shown


def _code(value: Any) -> Markup:
    """A code span of markdown, which no backslash escapes and only a backtick ends."""
    return Markup("`" + plain(str(value)).replace("`", "'") + "`")  # never meets HTML


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=autoescape,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
                                     finalize=_for_page if autoescape else _for_markdown)
    environment.filters["cell"] = cell
    environment.filters["code"] = _code
    return environment


def _context(verdict: dict[str, Any]) -> dict[str, Any]:
    return {"v": verdict, "headline": headline(verdict), "columns": [heading for _, heading, _ in SEED_COLUMNS],
            "rows": seed_table(verdict), "comparison": _comparison(verdict)}


def _histograms(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """Documents by bits per byte, a plot a scored seed: bars as (x, height, label) in a 0..1 box."""
    plots = []
    for row in verdict["seeds"]:
        path = folder.seed(row["seed"]).documents
        if row["bpb"] is None or not path.exists():
            continue
        with np.load(path, allow_pickle=False) as stored:
            bits_D, bytes_D = stored["bits"], stored["bytes"]
        bpb_D = bits_D[bytes_D > 0] / bytes_D[bytes_D > 0]
        counts, edges = np.histogram(bpb_D, HISTOGRAM_BINS)
        top = max(int(counts.max()), 1)
        bars = [{"x": i / HISTOGRAM_BINS, "h": int(n) / top, "label": f"{edges[i]:.2f}-{edges[i + 1]:.2f} bpb: {n} documents"}
                for i, n in enumerate(counts)]
        plots.append({"seed": row["seed"], "bars": bars, "low": f"{edges[0]:.2f}", "high": f"{edges[-1]:.2f}",
                      "documents": len(bpb_D), "top": top})
    return plots


def _curves(verdict: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """The training loss that each contestant claimed while it ran: points in a 0..1 box; never evidence."""
    series = {row["seed"]: _claimed_losses(folder.seed(row["seed"]).events) for row in verdict["seeds"]}
    values = [loss for points in series.values() for _, loss in points]
    if not values:
        return []
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return [{"seed": seed, "low": f"{low:.2f}", "high": f"{high:.2f}",
             "points": " ".join(f"{x:.4f},{1 - (loss - low) / width:.4f}" for x, loss in points)}
            for seed, points in series.items() if points]


def _claimed_losses(path: Path) -> list[tuple[float, float]]:
    """(fraction of the training, loss) from progress texts such as `step 10 loss 3.21`, thinned."""
    if not path.exists():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
            words = str(event.get("claim", "")).split()
            if event.get("stage") == "train" and "loss" in words[:-1]:
                points.append((float(event["fraction"]), float(words[words.index("loss") + 1].strip(",:"))))
        except ValueError:  # a claim that is no number, or the line on which a killed run ended
            continue
    finite = [point for point in points if np.isfinite(point[1])]
    return finite[::max(1, len(finite) // CURVE_POINTS)]
