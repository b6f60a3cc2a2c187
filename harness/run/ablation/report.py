"""Render an ablation: a table for the terminal, ablation.md, and ablation.html with dot plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from harness.base import files, host, templates
from harness.base.console import print_lines, print_table, text_cells
from harness.base.text import cell
from harness.run.ablation.dots import dots
from harness.run.ablation.study import BASE, StudyFolder
from harness.run.ablation.table import COLUMNS, COMPARED

TEMPLATES = Path(__file__).parent / "templates"
HEADINGS = [
    "variant",
    "differs from",
    "seeds",
    *(
        heading
        for column in COLUMNS
        for heading in (column.heading, *(["to base"] if column.difference else []))
    ),
]


def _shares(least_and_most: list[float] | None) -> str:
    """The least and the most of some shares in per cent; a dash where none is known."""
    return cell(least_and_most and "{:.0%} to {:.0%}".format(*least_and_most))


def headline(ablation: dict[str, Any]) -> str:
    """What was compared, on which text, for how many steps."""
    seeds = ", ".join(map(str, ablation["seeds"]))
    text = f"the first {ablation['val_tokens']:,} tokens" if ablation["val_tokens"] else "all tokens"
    return (
        f"{ablation['submission']}, profile {ablation['profile']}: each technique switched off in turn, "
        f"{ablation['steps']} steps each ({ablation['steps_from']}), seeds {seeds}, scored on {text} of "
        f"{ablation['dataset']['name']}, {ablation['runner']} runner"
    )


def notes(ablation: dict[str, Any]) -> list[str]:
    """What a reader must know about the numbers, and everything that is missing from them."""
    lines = [
        "means with 95 % intervals over seeds; differences are paired by seed (variant minus base)",
        f"ratio: {ablation['ratio_is']}",
        f"step time: {ablation['step_is']}; load average around the trainings: "
        f"{cell(ablation['load'] and '{:.1f} to {:.1f}'.format(*ablation['load']))} on "
        f"{ablation['host']['cores']} cores; other processes took "
        f"{_shares(ablation.get('others_cpu_share'))} of them while a training's clock ran",
        f"clocks are {ablation['clocks']} times the profile's: variants are matched by steps, not by time",
        "a variant that first differs in pack or score reuses the base's training; one that first differs in "
        "pack also reuses its score before packing",
    ]
    if ablation["stopped"]:
        lines.append(f"stopped early: {ablation['stopped']}")
    for row in ablation["rows"]:
        lines += [
            f"{row['variant']}, seed {failed['seed']}: failed in {failed['stage']}: {failed['message']}"
            for failed in row["failed"]
        ]
        if row["unfinished"]:
            lines.append(f"{row['variant']}: seeds {', '.join(map(str, row['unfinished']))} are unfinished")
        if row["over_cap"]:
            lines.append(
                f"{row['variant']}: over the limit of {ablation['cap']:,} counted bytes with seeds "
                f"{', '.join(map(str, row['over_cap']))}"
            )
    return lines


def cells(row: dict[str, Any], seeds: int) -> list[str]:
    """The cells of one row, in the order of HEADINGS."""
    shown = [row["variant"], cell(row["changes"]), f"{len(row['scored'])}/{seeds}"]
    for column in COLUMNS:
        shown.append(_interval(row["values"][column.key], column.form))
        if column.difference:
            shown.append(_interval(row["differences"] and row["differences"][column.key], column.difference))
    return shown


def _interval(found: dict[str, Any] | None, form: str) -> str:
    """The mean, with ± half the width of its interval if it has one."""
    if found is None:
        return cell(None)
    if found["ci95"] is None:
        return form.format(found["mean"])
    half = (found["ci95"][1] - found["ci95"][0]) / 2
    return f"{form.format(found['mean'])} ± {form.replace('+', '').format(half)}"


def _context(ablation: dict[str, Any]) -> dict[str, Any]:
    shown = [(column, dots(ablation["rows"], column.key, str(column.difference))) for column in COMPARED]
    return {
        "a": ablation,
        "host": host.description(ablation["host"]),
        "headline": headline(ablation),
        "notes": notes(ablation),
        "columns": HEADINGS,
        "rows": [cells(row, len(ablation["seeds"])) for row in ablation["rows"]],
        "plots": [{"heading": column.heading, **plot} for column, plot in shown if plot],
    }


def markdown(ablation: dict[str, Any]) -> str:
    return templates.load(TEMPLATES / "ablation.md.j2").render(_context(ablation))


def page(ablation: dict[str, Any]) -> str:
    """One HTML file with inline plots; nothing is loaded from anywhere."""
    return templates.load(TEMPLATES / "ablation.html.j2").render(_context(ablation))


def write(ablation: dict[str, Any], folder: StudyFolder) -> None:
    """ablation.json, ablation.md, ablation.html."""
    files.write_json(folder.table, ablation)
    files.write_bytes(folder.report, markdown(ablation).encode())
    files.write_bytes(folder.page, page(ablation).encode())


def show(ablation: dict[str, Any], console: Console) -> None:
    """Print the headline, the table and the notes."""
    print_lines(console, headline(ablation), "bold")
    rows = [
        text_cells(
            cells(row, len(ablation["seeds"])),
            "red" if row["failed"] else "bold" if row["variant"] == BASE else "",
        )
        for row in ablation["rows"]
    ]
    print_table(console, HEADINGS, rows, prose=HEADINGS[:2])
    for note in notes(ablation):
        print_lines(console, note.replace("\n", "; "))
