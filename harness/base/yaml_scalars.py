"""What an unquoted YAML scalar means: a number as JSON writes it, `true`, `false`, `null`, or text.

YAML 1.1 reads `042` as 34, `1:30` as 90, `1_000` as 1000 and `yes` as true; YAML 1.2 reads each differently.
So whatever one of them, or a person, may take for something other than text is refused here, with what to
write instead. Quoted scalars are always text.
"""

from __future__ import annotations

import json
import math
import re

import yaml

MAX_DIGITS = 20
"""Of an integer; 2^64 has 20."""
MAX_FLOAT_CHARACTERS = 64

STR = "tag:yaml.org,2002:str"
INT = "tag:yaml.org,2002:int"
FLOAT = "tag:yaml.org,2002:float"
_WORDS = {
    "true": "tag:yaml.org,2002:bool",
    "false": "tag:yaml.org,2002:bool",
    "null": "tag:yaml.org,2002:null",
}
_MEANT = {"yes": "true", "on": "true", "no": "false", "off": "false", "~": "null"}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DECIMAL = re.compile(r"[+-]?[0-9]+")
_YAML_1_1 = yaml.resolver.Resolver()


def tag_of(text: str) -> str:
    """The YAML tag of the unquoted scalar `text`. Raises ValueError that says what to write instead."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text.removeprefix("-")) > MAX_DIGITS:
            raise ValueError(f"a number of {len(text):,} digits: at most {MAX_DIGITS} are allowed")
        return INT
    if _NUMBER.fullmatch(text):
        _require_short(text)
        if not math.isfinite(float(text)):
            raise ValueError(f"{text} is too large for a number")
        return FLOAT
    if _is_ambiguous(text):
        _require_short(text)
        raise ValueError(_advice(text))
    return STR


def _require_short(text: str) -> None:
    if len(text) > MAX_FLOAT_CHARACTERS:
        raise ValueError(f"a number of {len(text):,} characters: at most {MAX_FLOAT_CHARACTERS} are allowed")


def _is_ambiguous(text: str) -> bool:
    """Whether YAML 1.1 reads `text` as something other than text, or Python reads it as a number."""
    if _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False)) != STR:  # type: ignore[no-untyped-call]
        return True
    has_digit = any(letter.isdigit() for letter in text)  # `nan` and `infinity` are words here
    return has_digit and len(text) <= MAX_FLOAT_CHARACTERS and _number(text) is not None


def _number(text: str) -> int | float | None:
    """The number that a person may mean by `text`: 042 is 42, 0x10 is 16. None where it is no number."""
    try:
        return int(text) if _DECIMAL.fullmatch(text) else int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _advice(text: str) -> str:
    quoted = json.dumps(text)
    if not text:
        return f"an empty value: write null, or {quoted} for an empty text"
    number = _number(text.replace("_", ""))
    lower = text.lower()
    meant = _MEANT.get(lower) or (lower if lower in _WORDS else None)
    if number is not None and math.isfinite(number):
        meant = json.dumps(number)
    if meant is None:
        return f"YAML readers disagree about {text}: write {quoted} for text"
    return f"YAML readers disagree about {text}: write {meant}, or {quoted} for text"
