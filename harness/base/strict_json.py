"""Parse untrusted JSON: no duplicate keys, no NaN or infinity, no overlong numbers.

Used for a contestant's frames, a dataset's manifest, documents and a hub's answers. The caller checks the
length of the input and the shape of the result; harness/protocol/frames.py bounds the depth before parsing.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DIGITS = 20
"""Of an integer; 2^64 has 20."""
MAX_FLOAT_CHARACTERS = 64


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is written twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number here")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _finite_float(text: str) -> float:
    if len(text) > MAX_FLOAT_CHARACTERS or not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is too long or too large for a number")
    return float(text)


def strict_json(content: bytes) -> Any:
    """The value in these bytes. Raises ValueError for whatever is wrong with them."""
    try:
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
