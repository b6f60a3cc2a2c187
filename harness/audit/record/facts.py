"""Types for what is read of a record folder: every number and word with its file and line.

Numbers keep the precision they were printed with, because the cross-checks compute with intervals. The types
are frozen and published as docs/record.schema.json.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    "ttt_phased",
    "ttt_lora",
    "ttt",
    "mixture",
    "sliding",
    "roundtrip",
    "other",
    "pre-quantization",
    "training",
]
"""What a score line scored: a model adapted to the text (ttt*), one mixed with a cache or a byte model
(mixture), the quantised model with a sliding window (sliding) or without (roundtrip), something under an
unknown name (other), an unquantised model, a model in training. RANK orders them for the headline."""
RANK: dict[str, int] = {
    "ttt_phased": 9,
    "ttt_lora": 8,
    "mixture": 7,
    "ttt": 6,
    "sliding": 5,
    "roundtrip": 4,
    "other": 3,
    "pre-quantization": 2,
    "training": 1,
}
FINAL = tuple(kind for kind, rank in RANK.items() if rank >= 4)
"""Kinds that score what a record ships."""
DECIMALS = re.compile(r"\.(\d{1,20})")
EXPONENT = re.compile(r"e([-+]?\d{1,2})$")


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(Strict):
    """A number as printed."""

    value: float
    half: float = Field(
        description="Half a unit of the last printed digit: the unrounded number differs by no more"
    )
    file: str
    line: int | None

    @classmethod
    def printed(cls, text: str, file: str, line: int | None) -> Number:
        """The number of a printed decimal, with the precision of its digits."""
        return cls(value=float(text), half=half_unit(text), file=file, line=line)

    @property
    def low(self) -> float:
        return self.value - self.half

    @property
    def high(self) -> float:
        return self.value + self.half

    def times(self, factor: float) -> Number:
        """The same number in another unit."""
        return Number(value=self.value * factor, half=self.half * abs(factor), file=self.file, line=self.line)


class Word(Strict):
    """A text as printed."""

    value: str
    file: str
    line: int | None


def half_unit(text: str) -> float:
    """Half a unit of the last digit of a decimal number: 0.00005 for 1.0785; 0 for an integer."""
    decimals, exponent = DECIMALS.search(text), EXPONENT.search(text.lower())
    if decimals is None and exponent is None:
        return 0.0
    return 0.5 * 10.0 ** (int(exponent[1] if exponent else 0) - len(decimals[1] if decimals else ""))


class Score(Strict):
    """One line of a log that states bits per byte of validation text."""

    kind: Kind
    label: str
    nats: Number | None = Field(description="nats a token")
    bpb: Number
    seconds: Number | None = None

    @property
    def name(self) -> str:
        """The label without `_exact`, which marks the same score with more digits."""
        return self.label.replace("_exact", "")


class Point(Strict):
    """One line of a training curve."""

    step: int
    nats: float
    seconds: float | None
    line: int


class Run(Strict):
    """What one log says of one run."""

    file: str
    seed: int | None = Field(
        description="what the log prints; the seed in its name where it prints none or others print the same"
    )
    logged_seed: Number | None = None
    named_seed: int | None = Field(default=None, description="the seed in the file's name")
    scores: tuple[Score, ...]
    model_bytes: Number | None = None
    code_bytes: Number | None = None
    counted_bytes: Number | None = None
    train_seconds: Number | None = None
    eval_seconds: Number | None = Field(
        default=None, description="a stated total; score lines have their own times"
    )
    steps: Number | None = None
    step_ms: Number | None = None
    iterations: Number | None = None
    val_tokens: Number | None = None
    train_shards: Number | None = None
    parameters: Number | None = None
    vocabulary: Number | None = None
    world_size: Number | None = None
    train_clock: Number | None = Field(
        default=None, description="the limit that the run was given, in seconds"
    )
    gpu: Word | None = None
    torch: Word | None = None
    python: Word | None = None
    began: Word | None = Field(
        default=None, description="the first time stamp, where nearly every line has one"
    )
    ended: Word | None = None
    runs_in_log: int = Field(
        default=1,
        description="how often the steps restart: more than 1 for a log of several runs, or of a resumed one",
    )
    train_curve: tuple[Point, ...] = Field(default=(), exclude=True)
    val_curve: tuple[Point, ...] = Field(default=(), exclude=True)


class Stated(Strict):
    """What submission.json or a README states of one seed."""

    seed: int | None
    bpb: Number | None = None
    nats: Number | None = None
    counted_bytes: Number | None = None
    train_seconds: Number | None = None
    eval_seconds: Number | None = None
    steps: Number | None = None


class Claim(Strict):
    """What one submission*.json states."""

    file: str
    problem: str | None = Field(default=None, description="why the file could not be read")
    name: Word | None = None
    track: Word | None = None
    hardware: Word | None = None
    bpb: Number | None = None
    nats: Number | None = None
    sd: Number | None = None
    counted_bytes: Number | None = None
    code_bytes: Number | None = None
    train_seconds: Number | None = None
    eval_seconds: Number | None = None
    baseline_bpb: Number | None = None
    p_value: Number | None = None
    seeds: tuple[int, ...] = ()
    results: tuple[Stated, ...] = ()


class Chosen(Strict):
    """The run and the score line that count for a seed, as indices."""

    run: int
    score: int


class Record(Strict):
    """Everything that was read of one folder."""

    folder: str
    claims: tuple[Claim, ...]
    runs: tuple[Run, ...]
    copies: tuple[tuple[str, str], ...] = Field(
        default=(), description="logs that are another log byte for byte"
    )
    headline: tuple[Chosen, ...] = Field(default=(), description="one for each seed of the headline")
    headline_bpb: float | None = None
    headline_kind: str | None = Field(
        default=None, description="of its score lines; `claimed` or `README` where no log has it"
    )
    confirmed: bool = Field(
        default=False, description="whether the logs confirm the score that submission.json claims"
    )
    title: str | None = Field(default=None, description="the first heading of the README")
    readme_bpb: Number | None = None
    readme_seeds: tuple[tuple[int, str, int, tuple[float, ...]], ...] = Field(
        default=(), description="rows of seeds in README tables: seed, file, line, the numbers of the row"
    )

    def claim(self) -> Claim | None:
        """The first submission*.json with a score, else the first that could be read."""
        read = [claim for claim in self.claims if claim.problem is None]
        return next((claim for claim in read if claim.bpb), read[0] if read else None)

    def eval_seconds(self) -> list[Number | None]:
        """The evaluation time of each headline run: its total, else the time of its score line or of a line
        with the same label or kind.
        """
        found = []
        for run, score in self.chosen():
            twins = [other.seconds for other in run.scores if other.name == score.name]
            alike = [other.seconds for other in run.scores if other.kind == score.kind]
            found.append(
                next(
                    (one for one in (run.eval_seconds, score.seconds, *twins[::-1], *alike[::-1]) if one),
                    None,
                )
            )
        return found

    def chosen(self) -> list[tuple[Run, Score]]:
        """The headline's runs with their score lines."""
        return [(self.runs[one.run], self.runs[one.run].scores[one.score]) for one in self.headline]


def schema() -> dict[str, object]:
    """The JSON schema of a record, as docs/record.schema.json publishes it."""
    return Record.model_json_schema(mode="serialization")
