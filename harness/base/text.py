"""Make text safe to show, so what strangers wrote never acts as markup or terminal control."""

from __future__ import annotations

import json
import re
from typing import Any

MARKUP = re.compile(r"[\\`*_\[\]<>|&~$]")
"""Characters that markdown may take for markup."""
MAX_QUOTED = 120
"""Limit of a contestant's text quoted as evidence, in characters."""
KINDS: dict[type | tuple[type, ...], str] = {
    type(None): "nothing",
    bool: "true or false",
    (int, float): "a number",
    str: "text",
    (list, tuple): "a list",
    dict: "a mapping",
}
"""Words for the types of JSON and YAML; `bool` comes before the numbers, to which it belongs in Python."""


def cell(value: Any, form: str = "{}") -> str:
    """A table cell: `value` in the format `form`, or a dash for None."""
    return "–" if value is None else form.format(value)


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 seed`, `3 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def kind(value: Any) -> str:
    """What a value read from JSON or YAML is, in words: `a list`, `nothing`."""
    for types, words in KINDS.items():
        if isinstance(value, types):
            return words
    return "a value of another kind"


def literal(value: Any, limit: int = 80) -> str:
    """A value as JSON writes it, in at most `limit` characters of ASCII: `null`, `true`, `"text"`."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return kind(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def plain(text: str) -> str:
    """`text` with control, format and line-breaking characters escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def plain_lines(text: str) -> str:
    """`plain` for each line; keeps the line breaks."""
    return "\n".join(plain(line) for line in text.split("\n"))


def markdown(text: str) -> str:
    """`text` with a backslash before every character that markdown may take for markup."""
    return MARKUP.sub(r"\\\g<0>", text)


def cut(text: str, limit: int) -> str:
    """`text`, or its first `limit` characters and three dots."""
    return text if len(text) <= limit else text[:limit] + "..."


def quote(raw: bytes | str, limit: int = MAX_QUOTED) -> str:
    """A contestant's text made safe to print: ASCII, escaped, cut to `limit` characters."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return cut(text.encode("unicode_escape").decode("ascii"), limit)
