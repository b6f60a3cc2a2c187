"""Jinja templates for pages (`*.html.j2`) and markdown (`*.md.j2`), with every value escaped for its format.

Each package keeps its templates in its own folder `templates/`; all pages share `style.css` beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.base.text import cell, markdown, plain

SHARED = Path(__file__).parent


def load(path: Path) -> jinja2.Template:
    """The template at `path`, with the filters `cell` and `code`. A name with `.html` means HTML."""
    html = ".html" in path.suffixes
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, SHARED]),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_for_html if html else _for_markdown,
    )
    environment.filters["cell"] = cell
    environment.filters["code"] = _code
    return environment.get_template(path.name)


def _for_html(value: Any) -> Any:
    """A value as HTML shows it; jinja escapes it afterwards."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else plain(value.replace("\n", " ")) if isinstance(value, str) else value


def _for_markdown(value: Any) -> Any:
    """A value as markdown shows it, with a backslash before every character that could be markup."""
    shown = _for_html(value)
    return markdown(shown) if isinstance(shown, str) and not isinstance(shown, Markup) else shown


def _code(value: Any) -> Markup:
    """A markdown code span. Backticks in `value`, which would end it, become quotes. Not for HTML."""
    return Markup("`" + plain(str(value)).replace("`", "'") + "`")
