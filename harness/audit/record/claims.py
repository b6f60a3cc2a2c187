"""Read submission*.json in the spellings of 1,800 public folders: one claim a file, each number with its
line.

Keys come in families (`val_bpb`, `mean_val_bpb`, ...; `bytes_total`, `artifact_bytes`, ...), values as
numbers, texts or dicts by seed, seeds as lists of numbers, lists of objects or dicts. The first key of a
family that holds a number counts. Text around numbers ("about 16 MB") is not read. A file that is not strict
JSON is reported with the reason and not repaired.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from harness.audit.record.facts import Claim, Number, Stated, Word
from harness.base.strict_json import strict_json

BPB = (
    "val_bpb",
    "mean_val_bpb",
    "val_bpb_mean",
    "mean_bpb",
    "val_bpb_exact",
    "three_seed_mean_bpb",
    "val_bpb_3seed_mean",
    "bpb",
)
NATS = ("val_loss", "mean_val_loss", "val_loss_mean", "val_loss_nats", "mean_val_loss_nats")
SD = ("val_bpb_std", "std_val_bpb", "std_bpb", "val_bpb_3seed_std", "three_seed_std_bpb")
COUNTED = (
    "bytes_total",
    "total_bytes",
    "artifact_bytes",
    "artifact_bytes_max",
    "bytes_total_max",
    "total_artifact_bytes",
    "total_submission_bytes",
    "total_submission_bytes_max",
    "max_artifact_bytes",
    "artifact_size_bytes",
    "mean_artifact_bytes",
    "artifact_bytes_mean",
    "artifact_size",
    "bytes",
)
CODE = ("bytes_code", "code_bytes", "code_size_bytes")
TRAIN = (
    ("training_time_seconds", 1.0),
    ("train_time_seconds", 1.0),
    ("wallclock_seconds", 1.0),
    ("train_time_s_mean", 1.0),
    ("train_time_s", 1.0),
    ("training_time_s", 1.0),
    ("train_wallclock_seconds", 1.0),
    ("train_seconds", 1.0),
    ("train_s", 1.0),
    ("mean_training_time_seconds", 1.0),
    ("train_wallclock_s", 1.0),
    ("train_time_ms", 0.001),
    ("train_wallclock_ms", 0.001),
    ("train_ms", 0.001),
)
EVAL = (
    ("eval_time_seconds", 1.0),
    ("eval_time_s_mean", 1.0),
    ("eval_time_s", 1.0),
    ("eval_seconds", 1.0),
    ("total_eval_time_s", 1.0),
    ("eval_s", 1.0),
    ("mean_eval_time_seconds", 1.0),
    ("eval_time_ms", 0.001),
)
STEPS = ("steps", "step_stop", "stop_step", "train_steps", "training_steps", "steps_completed")
SEED_BPB = (
    *BPB,
    "ttt_val_bpb",
    "ttt_bpb",
    "ttt_bpp",
    "final_bpb",
    "final_val_bpb",
    "sliding_val_bpb",
    "sliding_bpb",
    "sliding_window_bpb",
    "sliding_window_val_bpb",
    "sliding_bpp",
)
SEED_NATS = (*NATS, "ttt_val_loss")
BY_SEED = (
    "seed_results",
    "seeds",
    "per_seed",
    "per_seed_results",
    "results",
    "runs",
    "val_bpb_seeds",
    "val_bpb_per_seed",
    "per_seed_val_bpb",
    "seed_scores",
    "seed_bpbs",
)
DIGITS = re.compile(r"(?:seed|s)?[ _-]?(\d{1,10})(?:[ _-](?:seed|bpb))?", re.I)
NUMERAL = re.compile(r"[-+]?\d{1,15}(?:,\d{3}){0,5}(?:\.\d{1,20})?(?:e[-+]?\d{1,2})?", re.I)
MAX_TEXT = 300_000
MAX_RESULTS = 64
MAX_KEYS = 400


def claim(file: str, text: str) -> Claim:
    """What a submission*.json states; `problem` says why nothing was read."""
    if len(text) > MAX_TEXT:
        return Claim(file=file, problem=f"longer than {MAX_TEXT:,} characters")
    try:
        stated = strict_json(text.removeprefix("\ufeff").encode())
    except (ValueError, OverflowError) as error:
        return Claim(file=file, problem=f"no strict JSON: {str(error)[:120]}")
    if not isinstance(stated, dict):
        return Claim(file=file, problem="no JSON object")
    # parsed again to keep the digits of its numbers
    stated = json.loads(text.removeprefix("\ufeff"), parse_float=_Printed)
    reader = _ClaimReader(file, text)
    results = _results(reader, stated)
    listed = stated.get("seeds", stated.get("seeds_run"))
    seeds = [seed for seed in map(_seed, listed if isinstance(listed, list) else ()) if seed is not None]
    if not seeds and isinstance(stated.get("seed"), int) and not isinstance(stated["seed"], bool):
        seeds = [stated["seed"]]
    seeds = seeds or [one.seed for one in results if one.seed is not None]
    return Claim(
        file=file,
        name=reader.word(stated, "name"),
        track=reader.word(stated, "track"),
        hardware=reader.word(stated, "hardware"),
        bpb=reader.filled(stated, BPB),
        nats=reader.filled(stated, NATS),
        sd=reader.first(stated, SD),
        counted_bytes=reader.filled(stated, COUNTED),
        code_bytes=reader.filled(stated, CODE),
        train_seconds=reader.timed(stated, TRAIN),
        eval_seconds=reader.timed(stated, EVAL),
        baseline_bpb=reader.first(stated, ("comparison_baseline_bpb", "baseline_val_bpb", "base_val_bpb")),
        p_value=reader.first(stated, ("p_value",)),
        seeds=tuple(dict.fromkeys(seeds)),
        results=tuple(results),
    )


class _Printed(float):
    """A float that keeps its digits: 1.06400 is known to five decimals."""

    def __new__(cls, text: str) -> _Printed:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


class _ClaimReader:
    """Finds numbers in a parsed object and their lines in its text."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text

    def line(self, *keys: str) -> int | None:
        """The line of the last key, where each key is searched for after the previous one."""
        at = 0
        for key in keys:
            at = self.text.find(f'"{key}"', at)
            if at < 0:
                return None
        return self.text.count("\n", 0, at) + 1

    def number(self, value: Any, *keys: str) -> Number | None:
        """A JSON value as a number, or None; `keys` lead to it."""
        if isinstance(value, dict):
            value = value.get("mean")
        if isinstance(value, str):
            value = value.strip() if NUMERAL.fullmatch(value.strip()) else None
        if value is None or isinstance(value, bool | list | dict):
            return None
        shown = value.text if isinstance(value, _Printed) else str(value).replace(",", "")
        if not math.isfinite(float(shown)):
            return None
        return Number.printed(shown, self.file, self.line(*keys))

    def first(self, values: Mapping[str, Any], keys: tuple[str, ...], *above: str) -> Number | None:
        """The number of the first of `keys` that has one."""
        return next((found for key in keys if (found := self.number(values.get(key), *above, key))), None)

    def filled(self, values: Mapping[str, Any], keys: tuple[str, ...], *above: str) -> Number | None:
        """The first number that is not zero: zero is a placeholder (#917)."""
        return next(
            (found for key in keys if (found := self.number(values.get(key), *above, key)) and found.value),
            None,
        )

    def timed(
        self, values: Mapping[str, Any], keys: tuple[tuple[str, float], ...], *above: str
    ) -> Number | None:
        """The number of the first of `keys` that has one, in seconds."""
        return next(
            (
                found.times(scale)
                for key, scale in keys
                if (found := self.number(values.get(key), *above, key))
            ),
            None,
        )

    def word(self, values: Mapping[str, Any], key: str) -> Word | None:
        value = values.get(key)
        return (
            Word(value=value[:400], file=self.file, line=self.line(key))
            if isinstance(value, str) and value
            else None
        )


def _seed(value: Any) -> int | None:
    if isinstance(value, dict):
        value = value.get("seed")
    if isinstance(value, str) and (match := DIGITS.fullmatch(value.strip())):
        return int(match[1])
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None


def _results(reader: _ClaimReader, stated: Mapping[str, Any]) -> list[Stated]:
    """The results by seed: under the first key of BY_SEED that has any, else under keys like `seed_42`."""
    for key in BY_SEED:
        values = stated.get(key)
        pairs = (
            list(values.items())
            if isinstance(values, dict)
            else [(str(_seed(one)), one) for one in values if isinstance(one, dict)]
            if isinstance(values, list)
            else []
        )
        found = [_stated(reader, seed, value, key) for seed, value in pairs[:MAX_RESULTS]]
        kept = [one for one in found if one]
        if kept:
            return kept
    found = [
        _stated(reader, key, value)
        for key, value in list(stated.items())[:MAX_KEYS]
        if key.startswith("seed_") and isinstance(value, dict)
    ]
    return [one for one in found if one][:MAX_RESULTS]


def _stated(reader: _ClaimReader, key: str, value: Any, *above: str) -> Stated | None:
    match = DIGITS.fullmatch(key.strip())
    if match is None:
        return None
    seed = int(match[1])
    if isinstance(value, int | float) and not isinstance(value, bool):
        bpb = reader.number(value, *above, key)
        return Stated(seed=seed, bpb=bpb) if bpb and 0 < bpb.value < 10 else None
    if not isinstance(value, dict):
        return None
    return Stated(
        seed=seed,
        bpb=reader.filled(value, SEED_BPB, *above, key),
        nats=reader.filled(value, SEED_NATS, *above, key),
        counted_bytes=reader.first(value, COUNTED, *above, key),
        train_seconds=reader.timed(value, TRAIN, *above, key),
        eval_seconds=reader.timed(value, EVAL, *above, key),
        steps=reader.first(value, STEPS, *above, key),
    )
