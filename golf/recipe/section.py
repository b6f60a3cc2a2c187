"""Base class and field types of the recipe's sections: annotated ranges, checked on construction.

See golf/recipe/training.py and golf/recipe/schema.py for the sections themselves.
"""

from __future__ import annotations

import math
import types
import typing
from typing import Annotated, NamedTuple


class ConfigError(ValueError):
    """The recipe is invalid; the message names the key and what was expected."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition is true."""
    if not condition:
        raise ConfigError(message)


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
            return "positive" if self.open else f"at least {self.low:g}"
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
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            if name == "SECTION":
                continue
            value, key = getattr(self, name), f"{self.SECTION}.{name}"
            for allowed in getattr(hint, "__metadata__", ()):
                require(value is None or allowed.contains(value), f"{key} must be {allowed}, not {value}")
            if isinstance(hint, types.UnionType) and hint == Horizon:
                require(
                    value >= 0 and (isinstance(value, int) or value <= 1.0),
                    f"{key} {value}: an integer counts steps, a float is a fraction of the run in 0..1",
                )
        self.check()

    def check(self) -> None:
        """Check constraints between fields; raises ConfigError."""
