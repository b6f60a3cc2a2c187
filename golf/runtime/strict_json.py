"""Read and write JSON strictly, since a frame or a file may come from anybody.

`loads` turns bytes into plain Python values or raises ValueError. `dumps` is its canonical inverse: keys are
sorted and there are no spaces, so equal values give equal bytes.

The standard reader keeps the last of two equal keys, accepts NaN and Infinity, parses integers of any length,
and raises RecursionError on deep nesting. Each of these has been used to give one message two meanings or to
crash a reader. Here depth, length and digits are bounded before anything expensive happens.

The caller checks which keys a message has, and their types: use `type(x) is int`, since bool is an int.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DEPTH = 8
MAX_DIGITS = 40

# Strings come first, so that a bracket inside a string is not counted.
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def _check_depth(data: bytes) -> None:
    depth = 0
    for match in _NESTING.finditer(data):
        first = data[match.start() : match.start() + 1]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"JSON nested deeper than {MAX_DEPTH} at byte {match.start()}")
        elif first in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"JSON names the key {duplicate[:60]!r} twice")
    return result


def _bounded(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"JSON number of {len(digits)} digits; at most {MAX_DIGITS} are read")
    return digits


def _integer(digits: str) -> int:
    return int(_bounded(digits))


def _number(digits: str) -> float:
    value = float(_bounded(digits))
    if not math.isfinite(value):
        raise ValueError(f"JSON number {digits} is too large for a float")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"JSON has {name}, which is not a JSON number")


def loads(data: bytes, *, max_bytes: int) -> Any:
    """Bytes -> value. Raises ValueError for anything but finite, shallow JSON in UTF-8."""
    if len(data) > max_bytes:
        raise ValueError(f"JSON of {len(data)} bytes; at most {max_bytes} are read")
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
        # Lone surrogates decode, but could not be written again.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    return value


def dumps(value: Any) -> bytes:
    """Value -> canonical bytes. Raises ValueError for NaN, infinity, and types that JSON lacks."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
