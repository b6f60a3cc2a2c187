"""Estimate how long a stage and the whole command still take, from what is done and from like stages.

Estimates are for people and decide nothing. Not covered: stages that will be skipped because an earlier one
fails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAST_FRACTION = 0.02
"""Below this fraction done, no estimate is made from it."""


def duration(seconds: float) -> str:
    """Seconds as `1:20`, or `1:02:03` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def times(elapsed: float, left: float | None) -> str:
    """`1:20 elapsed, about 5:30 left`; seconds in, without the second part where `left` is unknown."""
    return f"{duration(elapsed)} elapsed" + ("" if left is None else f", about {duration(left)} left")


def seconds_left(elapsed: float, fraction: float) -> float | None:
    """Seconds left of a stage of which `fraction` (0..1) is done; None before anything can be said."""
    return elapsed * (1 - fraction) / fraction if fraction >= LEAST_FRACTION else None


class StagePlan:
    """The stages of one command in order, and the seconds of those that ended.

    Stages whose titles differ in numbers only, such as `seed 1 train` and `seed 2 train`, are taken to need
    the same time.
    """

    def __init__(self, titles: Sequence[str], began: float) -> None:
        self.titles = list(titles)
        self.began = began
        self.seconds: dict[str, float] = {}
        """Seconds of the last stage of each kind."""

    def end(self, title: str, seconds: float) -> None:
        """A stage ended after so many seconds."""
        self.seconds[_kind(title)] = seconds

    def place(self, title: str) -> str:
        """`stage 4 of 12`, for one of the titles."""
        return f"stage {self.titles.index(title) + 1} of {len(self.titles)}"

    def left(self, title: str, elapsed: float, fraction: float) -> float | None:
        """Seconds left of the command, `elapsed` seconds after its stage `title` began.

        None while a stage is to come of a kind that has not been seen.
        """
        estimate = seconds_left(elapsed, fraction)
        if estimate is None and _kind(title) in self.seconds:
            estimate = max(self.seconds[_kind(title)] - elapsed, 0.0)
        later = [self.seconds.get(_kind(each)) for each in self.titles[self.titles.index(title) + 1 :]]
        known = [seconds for seconds in (estimate, *later) if seconds is not None]
        return sum(known) if len(known) == 1 + len(later) else None


def _kind(title: str) -> str:
    """The title without its numbers."""
    return re.sub(r"\d+", "", title)
