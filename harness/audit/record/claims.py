"""submission*.json in the spellings that 1,800 public folders use: one claim a file, each number with its
line.

Keys come in families (`val_bpb`, `mean_val_bpb`, ...; `bytes_total`, `artifact_bytes`, ...), values as
numbers, texts or dicts by seed, seeds as lists of numbers, lists of objects or dicts. The first key of a
family that holds a number is taken. Text around numbers ("about 16 MB") is not read; a file that is no strict
JSON is told with its reason and not repaired."""

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
    stated = json.loads(
        text.removeprefix("\ufeff"), parse_float=_Printed
    )  # the same once more, with the digits of its numbers
    look = _Look(file, text)
    results = _results(look, stated)
    listed = stated.get("seeds", stated.get("seeds_run"))
    seeds = [seed for seed in map(_seed, listed if isinstance(listed, list) else ()) if seed is not None]
    if not seeds and isinstance(stated.get("seed"), int) and not isinstance(stated["seed"], bool):
        seeds = [stated["seed"]]
    seeds = seeds or [one.seed for one in results if one.seed is not None]
    return Claim(
        file=file,
        name=look.word(stated, "name"),
        track=look.word(stated, "track"),
        hardware=look.word(stated, "hardware"),
        bpb=look.filled(stated, BPB),
        nats=look.filled(stated, NATS),
        sd=look.first(stated, SD),
        counted_bytes=look.filled(stated, COUNTED),
        code_bytes=look.filled(stated, CODE),
        train_seconds=look.timed(stated, TRAIN),
        eval_seconds=look.timed(stated, EVAL),
        baseline_bpb=look.first(stated, ("comparison_baseline_bpb", "baseline_val_bpb", "base_val_bpb")),
        p_value=look.first(stated, ("p_value",)),
        seeds=tuple(dict.fromkeys(seeds)),
        results=tuple(results),
    )


class _Printed(float):
    """A float that keeps its digits: 1.06400 is known to five decimals."""

    def __new__(cls, text: str) -> _Printed:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str


class _Look:
    """Finds numbers in a parsed object and their lines in its text."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text

    def line(self, *keys: str) -> int | None:
        """The line of the last key, each looked for after the one before."""
        at = 0
        for key in keys:
            at = self.text.find(f'"{key}"', at)
            if at < 0:
                return None
        return self.text.count("\n", 0, at) + 1

    def number(self, value: Any, *keys: str) -> Number | None:
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

    def first(self, held: Mapping[str, Any], keys: tuple[str, ...], *above: str) -> Number | None:
        return next((found for key in keys if (found := self.number(held.get(key), *above, key))), None)

    def filled(self, held: Mapping[str, Any], keys: tuple[str, ...], *above: str) -> Number | None:
        """The first that is no zero, which stands where a number will be put some day (#917)."""
        return next(
            (found for key in keys if (found := self.number(held.get(key), *above, key)) and found.value),
            None,
        )

    def timed(
        self, held: Mapping[str, Any], keys: tuple[tuple[str, float], ...], *above: str
    ) -> Number | None:
        return next(
            (found.times(scale) for key, scale in keys if (found := self.number(held.get(key), *above, key))),
            None,
        )

    def word(self, held: Mapping[str, Any], key: str) -> Word | None:
        value = held.get(key)
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


def _results(look: _Look, stated: Mapping[str, Any]) -> list[Stated]:
    """The results by seed: the first family member that has any, else keys like `seed_42`."""
    for key in BY_SEED:
        held = stated.get(key)
        pairs = (
            list(held.items())
            if isinstance(held, dict)
            else [(str(_seed(one)), one) for one in held if isinstance(one, dict)]
            if isinstance(held, list)
            else []
        )
        found = [_stated(look, seed, value, key) for seed, value in pairs[:MAX_RESULTS]]
        kept = [one for one in found if one]
        if kept:
            return kept
    found = [
        _stated(look, key, value)
        for key, value in list(stated.items())[:MAX_KEYS]
        if key.startswith("seed_") and isinstance(value, dict)
    ]
    return [one for one in found if one][:MAX_RESULTS]


def _stated(look: _Look, key: str, value: Any, *above: str) -> Stated | None:
    match = DIGITS.fullmatch(key.strip())
    if match is None:
        return None
    seed = int(match[1])
    if isinstance(value, int | float) and not isinstance(value, bool):
        bpb = look.number(value, *above, key)
        return Stated(seed=seed, bpb=bpb) if bpb and 0 < bpb.value < 10 else None
    if not isinstance(value, dict):
        return None
    return Stated(
        seed=seed,
        bpb=look.filled(value, SEED_BPB, *above, key),
        nats=look.filled(value, SEED_NATS, *above, key),
        counted_bytes=look.first(value, COUNTED, *above, key),
        train_seconds=look.timed(value, TRAIN, *above, key),
        eval_seconds=look.timed(value, EVAL, *above, key),
        steps=look.first(value, STEPS, *above, key),
    )
