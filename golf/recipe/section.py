"""Base class and field types of the recipe's sections: annotated ranges, checked on construction.

The sections themselves are in golf/recipe/training.py and golf/recipe/schema.py.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from typing import Annotated, NamedTuple

from golf.recipe.mistakes import ConfigError, Mistake


class Range(NamedTuple):
    """Allowed values of a number: low <= x <= high, or low < x < high if `open`."""

    low: float
    high: float = math.inf
    open: bool = False

    def contains(self, value: float) -> bool:
        """Whether the range contains a value."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.open else f"of at least {self.low:g}"
        return f"in {self.low:g}..{self.high:g}" + (" (ends excluded)" if self.open else "")


Count = Annotated[int, Range(0)]
Size = Annotated[int, Range(1)]
Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Horizon = int | float
"""A number of steps (an integer, at least 0) or a fraction of the run (a float in 0..1).

Fractions let a profile with few steps keep the shape of a long run."""


class Section:
    """Base class of a recipe section. Every instance is checked on construction, from YAML or from code."""

    SECTION: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        if mistakes := list(self._out_of_range()) or list(self.check()):
            raise ConfigError(*mistakes)

    def _out_of_range(self) -> Iterator[Mistake]:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            if name == "SECTION":
                continue
            value, key = getattr(self, name), f"{self.SECTION}.{name}"
            for allowed in getattr(hint, "__metadata__", ()):
                if value is not None and not allowed.contains(value):
                    yield Mistake((key,), f"got {value}; expected a number {allowed}")
            if hint == Horizon and not 0 <= value <= (1.0 if isinstance(value, float) else math.inf):
                expected = "an integer that counts steps, or a fraction of the run in 0..1"
                yield Mistake((key,), f"got {value}; expected {expected}")

    def check(self) -> Iterator[Mistake]:
        """Broken constraints between fields, each with the fields involved. All fields are in range."""
        yield from ()
