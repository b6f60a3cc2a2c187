"""What is wrong with a recipe: a mistake, its place in the file, and the error that carries all mistakes.

Every text here may repeat what a stranger wrote: it is cut, and printed with its special characters escaped.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

MAX_SHOWN = 60
"""Characters of a value, or of a key, that a message repeats."""


class Place(NamedTuple):
    """Where something stands in a recipe file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Mistake(NamedTuple):
    """One mistake, and the fields (section.field) that it involves: the message names the first of them."""

    keys: tuple[str, ...]
    text: str
    """What is wrong; what is expected."""
    place: Place | None = None

    def __str__(self) -> str:
        """One line of printable characters."""
        place = [str(self.place)] if self.place else []
        line = ": ".join([*place, *map(cut, self.keys[:1]), self.text])
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class ConfigError(ValueError):
    """The recipe is invalid. The message holds one line for each mistake."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


def shown(value: Any) -> str:
    """A value as a message repeats it: in JSON, which spells it like the recipe, and cut."""
    return cut(json.dumps(value, default=str))


def cut(text: str) -> str:
    """The first MAX_SHOWN characters of a text."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
