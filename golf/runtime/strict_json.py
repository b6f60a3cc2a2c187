"""Strict JSON for bytes that somebody else may have written: one reader, one writer.

What: `loads` takes bytes to plain Python values, or raises ValueError; `dumps` is its canonical inverse
(sorted keys, no spaces, so equal values are equal bytes).

Why: the standard reader lets the last of two equal keys win, takes NaN and Infinity, turns `1` into a number
of any length and answers deep nesting with RecursionError. Each of those has been a way to say two things at
once or to stop a reader. Here depth, length and digits are bounded before they cost anything.

Not covered: which keys a message must have; whoever reads it checks that, with `type(x) is int`, since bool
is an int."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DEPTH = 8
MAX_DIGITS = 40

# Strings first, so that a bracket inside of one is not counted.
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for match in _NESTING.finditer(data):
        first = data[match.start() : match.start() + 1]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise ValueError(f"JSON nested deeper than {max_depth} at byte {match.start()}")
        elif first in b"]}":
            depth -= 1


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"JSON names the key {double[:60]!r} twice")
    return result


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"JSON number of {len(digits)} digits; at most {MAX_DIGITS} are read")
    return int(digits)


def _number(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"JSON number of {len(digits)} digits; at most {MAX_DIGITS} are read")
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"JSON number {digits} is too large for a float")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"JSON has {name}, which is no JSON number")


def loads(data: bytes, *, max_bytes: int = 65_536, max_depth: int = MAX_DEPTH) -> Any:
    """Bytes -> value. Raises ValueError for whatever is not plain, finite, shallow JSON in UTF-8."""
    if len(data) > max_bytes:
        raise ValueError(f"JSON of {len(data)} bytes; at most {max_bytes} are read")
    _check_depth(data, max_depth)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_pairs, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
        json.dumps(value, ensure_ascii=False).encode(
            "utf-8"
        )  # lone surrogates decode but cannot be written again
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    return value


def dumps(value: Any) -> bytes:
    """Value -> canonical bytes. Raises ValueError for what `loads` would refuse (NaN) or JSON does not
    have."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
