"""JSON from strangers: no key written twice, no NaN, no endless numbers, no half characters.

Not covered: the shape of what was read, which is the reader's to check; the length, which the caller bounds.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DIGITS = 18


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is written twice")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number here")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def strict_json(content: bytes) -> Any:
    """The value in these bytes; whatever is wrong with them is a ValueError."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_no_twins, parse_constant=_no_constant,
                          parse_int=_bounded_int)
    except RecursionError:
        raise ValueError("nested too deeply") from None
