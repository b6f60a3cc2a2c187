"""The timetable of a call: which rows run, when each should be done, and what each decides.

A row may use the time up to the end of its own entry. One that begins late is therefore shortened instead of
delaying the rows after it, and one with less time than its `least` is skipped. Rows that end early leave
their time to the next ones. Times are seconds from the start of the call; the machine's own start is not
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Entry(NamedTuple):
    """A row of the timetable."""

    start: float
    """When it should begin; only the printed plan uses it."""
    seconds: float
    """Until start + seconds it may run."""
    name: str
    least: float
    """With fewer seconds than these it is skipped."""
    decides: str

    @property
    def end(self) -> float:
        """When it must be done."""
        return self.start + self.seconds


FIRST = (
    Entry(0, 15, "card", 1, "whether the local runner's contestant will see the card"),
    Entry(15, 10, "wheels", 2, "whether a judged run is possible"),
    Entry(25, 25, "attention kernels", 5, "which kernels exist and are right, forward and backward"),
    Entry(50, 65, "compilation of #586", 5, "whether there is a race"),
    Entry(50, 65, "compilation of golf", 5, "the set-up budget"),
    Entry(115, 70, "race", 15, "the ratio, the equivalence of losses, the share of the card's peak"),
    Entry(185, 10, "sliding evaluation of #586", 3, "the seconds a token that golf is compared to"),
    Entry(
        195, 25, "sliding evaluation of golf", 5, "whether it takes at most 0.65 of #586's seconds a token"
    ),
    Entry(220, 5, "compiled against plain", 2, "whether the compiled graph computes the model"),
    Entry(225, 7, "kernel times", 2, "which attention kernel to name in `hardware`; the products' own rate"),
    Entry(232, 10, "prefetch", 4, "what queueing a step ahead is worth"),
    Entry(242, 13, "profile", 3, "where the time of a step goes"),
    Entry(255, 50, "compilation of SP8192", 5, "set-up of the graph with 17 visits to layers"),
    Entry(305, 8, "steps of SP8192", 2, "step, memory, share of the peak"),
    Entry(313, 7, "Hessians", 2, "the reserve of time for statistics"),
    Entry(320, 10, "adaptation", 3, "seconds a step, and whether it repeats"),
    Entry(330, 185, "judged run", 60, "whether the judge accepts a run on a GPU"),
    Entry(515, 15, "compile caches", 1, "whether the second call begins with warm caches"),
)
"""The first call: 530 seconds."""

SECOND = (
    Entry(0, 15, "card", 1, "nothing new"),
    Entry(15, 10, "caches of the first call", 1, "nothing: it saves compilation"),
    Entry(25, 60, "compilation of golf", 5, "how much warm caches save"),
    Entry(85, 120, "switches of the graph", 10, "what each change of the graph is worth"),
    Entry(205, 80, "compilation of SP8192", 5, "nothing: it is needed by the next rows"),
    Entry(285, 50, "sliding evaluation of SP8192", 5, "the seconds of an official evaluation"),
    Entry(335, 50, "compiled adaptation", 5, "whether to compile the adaptation"),
    Entry(385, 110, "quantisation-aware training", 10, "the price of the graph with rounded weights"),
    Entry(495, 15, "compile caches", 1, "whether a third call begins with warm caches"),
)
"""The second call: 510 seconds."""


@dataclass
class Timetable:
    """A timetable and the clock of a call. `read` gives seconds; only their differences count."""

    entries: Sequence[Entry]
    read: Callable[[], float]

    def __post_init__(self) -> None:
        self.began = self.read()

    def now(self) -> float:
        """Seconds since the call began."""
        return self.read() - self.began

    def entry(self, name: str) -> Entry:
        """The entry of a row; KeyError if there is none."""
        found = {entry.name: entry for entry in self.entries}
        return found[name]

    def left(self, name: str) -> float:
        """Seconds that a row may still use."""
        return self.entry(name).end - self.now()

    def refusal(self, name: str) -> str:
        """Why a row must be skipped for lack of time; empty if it may begin."""
        left, least = self.left(name), self.entry(name).least
        return "" if left >= least else f"it needs {least:.0f} s, and {max(left, 0):.0f} s were left"
