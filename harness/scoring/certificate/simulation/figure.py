"""A line chart as SVG text for docs/certificate.md: logarithmic x axis, labels at the ends of the lines."""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 440, 52, 300, 40, 46
COLOURS = (
    "#1b6ca8",
    "#c8553d",
    "#3a7d44",
    "#7b4ea3",
    "#b8860b",
    "#008b8b",
    "#a0522d",
    "#696969",
    "#d81b60",
    "#2f4f4f",
    "#6b8e23",
    "#483d8b",
    "#e08214",
    "#7f3b08",
    "#35978f",
)


class Series(NamedTuple):
    """One line."""

    name: str
    points: list[tuple[float, float]]  # x > 0


def chart(title: str, x_label: str, series: list[Series]) -> str:
    """The chart of all series; the y axis begins at 0, the x axis is logarithmic to base 2."""
    every_x = sorted({x for line in series for x, _ in line.points})
    low, high = math.log2(every_x[0]), math.log2(every_x[-1])
    top = max(y for line in series for _, y in line.points) or 1.0
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (math.log2(x) - low) / ((high - low) or 1) * (right - LEFT), bottom - y / top * (
            bottom - TOP
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" '
        'font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for step in range(5):
        x0, y = place(every_x[0], top * step / 4)
        parts.append(
            f'<line x1="{x0}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:g}</text>'
        )
    for value in every_x:
        x, _ = place(value, 0)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,g}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    labels = _spread([place(*line.points[-1])[1] for line in series], 15.0, TOP, bottom)
    for i, line in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        end = place(*line.points[-1])
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<line x1="{end[0]:.1f}" y1="{end[1]:.1f}" x2="{right + 12}" y2="{labels[i]:.1f}" '
            f'stroke="{colour}"/>'
            f'<text x="{right + 16}" y="{labels[i] + 4:.1f}" fill="{colour}">{escape(line.name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _spread(wanted: list[float], apart: float, low: float, high: float) -> list[float]:
    """Label positions near the wanted ones, at least `apart` from each other, between `low` and `high`."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = dict.fromkeys(order, 0.0)
    previous = low - apart
    for i in order:
        placed[i] = previous = max(wanted[i], previous + apart)
    limit = high
    for i in reversed(order):
        placed[i] = limit = min(placed[i], limit)
        limit -= apart
    return [placed[i] for i in range(len(wanted))]
