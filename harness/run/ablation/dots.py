"""The dot plots of an ablation, as coordinates between 0 and 1; the template draws them as inline SVG."""

from __future__ import annotations

from typing import Any


def dots(rows: list[dict[str, Any]], key: str, form: str) -> dict[str, Any] | None:
    """One dot plot: each variant's mean difference from the base and its interval, on one scale that includes
    0.

    `rows` come from table.py, `key` names the difference, and `form` formats a number. The coordinates of a
    variant that has no such difference are None. Returns None where no variant has one.
    """
    found = [(row["variant"], row["differences"] and row["differences"][key]) for row in rows]
    spans = [(each["mean"], *(each["ci95"] or ())) for _, each in found if each]
    if not spans:
        return None
    low, high = min(0.0, *map(min, spans)), max(0.0, *map(max, spans))
    margin = 0.04 * ((high - low) or 1.0)
    low, width = low - margin, (high - low) + 2 * margin

    def place(value: float) -> float:
        return float(round((value - low) / width, 4))

    points = [
        {
            "variant": variant,
            "x": each and place(each["mean"]),
            "label": each and form.format(each["mean"]),
            "span": each and each["ci95"] and [place(end) for end in each["ci95"]],
        }
        for variant, each in found
    ]
    return {
        "zero": place(0.0),
        "low": form.format(low),
        "high": form.format(low + width),
        "points": [point for point in points if point["variant"] != rows[0]["variant"]],
    }
