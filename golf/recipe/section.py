"""What a section of the recipe is made of: annotated ranges, and the check that every instance is held to.

A `Horizon` counts steps when it is an integer and is a fraction of the run when it is a float, so that a
profile with few steps keeps the shape of a long run.

Not covered: which sections and fields there are (golf/recipe/schema.py).
"""

from __future__ import annotations

import math
import types
import typing
from typing import Annotated, NamedTuple


class ConfigError(ValueError):
    """A recipe that cannot be used as written; the message names the key and what was expected."""


def need(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


class Range(NamedTuple):
    """The lawful values of a number: low <= x <= high; `open` leaves out the ends."""

    low: float
    high: float = math.inf
    open: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies inside."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return "positive" if self.open else f"at least {self.low:g}"
        return f"in {self.low:g}..{self.high:g}" + (" without its ends" if self.open else "")


Count = Annotated[int, Range(0)]
Size = Annotated[int, Range(1)]
Positive = Annotated[float, Range(0, open=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Horizon = int | float
"""Steps (an integer, at least 0) or a fraction of the run (a float in 0..1)."""


class Section:
    """A part of the recipe. Every instance is checked when it is made, however it is made."""

    SECTION = ""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            if name == "SECTION":
                continue
            value, place = getattr(self, name), f"{self.SECTION}.{name}"
            for allowed in getattr(hint, "__metadata__", ()):
                need(value is None or allowed.holds(value), f"{place} must be {allowed}, not {value}")
            if isinstance(hint, types.UnionType) and hint == Horizon:
                need(
                    value >= 0 and (isinstance(value, int) or value <= 1.0),
                    f"{place} {value}: an integer counts steps, a float is a fraction of the run in 0..1",
                )
        self.check()

    def check(self) -> None:
        """What the fields must mean together; raises ConfigError."""
