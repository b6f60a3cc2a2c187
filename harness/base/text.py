"""Text on its way to a reader: escapes for terminals, markdown and pages, and the templates' environment.

Whatever a contestant or submitter wrote is shown, never obeyed. Not covered: what is shown (report.py,
ablation/)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN = re.compile(r"[\\`*_\[\]<>|&~$]")
NARROWEST = 100
"""Columns assumed where the output is no terminal."""


def cell(value: Any, form: str = "{}") -> str:
    """A table cell; a dash for what is not to be had."""
    return "–" if value is None else form.format(value)


def plain_lines(text: str) -> str:
    """Text of several lines of ours, each plain."""
    return "\n".join(plain(line) for line in text.split("\n"))


def plain(text: str) -> str:
    """Text whose control, format and line-breaking characters are shown as escapes, so that no terminal obeys
    them."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _for_page(value: Any) -> Any:
    """What HTML shows of a value; the template engine escapes its markup afterwards."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else plain(value.replace("\n", " ")) if isinstance(value, str) else value


def _for_markdown(value: Any) -> Any:
    """What markdown shows of a value: every character that could be markup behind a backslash."""
    shown = _for_page(value)
    return (
        MARKDOWN.sub(r"\\\g<0>", shown) if isinstance(shown, str) and not isinstance(shown, Markup) else shown
    )


def _code(value: Any) -> Markup:
    """A code span of markdown, which no backslash escapes and only a backtick ends."""
    return Markup("`" + plain(str(value)).replace("`", "'") + "`")  # never meets HTML


def environment(autoescape: bool) -> jinja2.Environment:
    """Templates of pages where `autoescape` is true, of markdown where it is not. Filters: cell, code."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_for_page if autoescape else _for_markdown,
    )
    made.filters["cell"] = cell
    made.filters["code"] = _code
    return made
