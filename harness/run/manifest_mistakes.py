"""Say in plain words, each at its place, what is wrong with a manifest.

pydantic finds the mistakes; its own sentences ("Input should be a valid dictionary or instance of Image") are
written for programmers, so what each key expects is stated here once. What the keys mean: submission.py.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.base.strict_yaml import Document, Keys, Problem
from harness.base.text import count, plain

_SEED = "a whole number from 0 to 4,294,967,295"
_SCORES = "a mapping from seeds to bits per byte"
_TEXT = "text of 1 to 400 characters"
_DIGEST = "sha256: and 64 hexadecimal digits, as `pgolf image lock {}` prints it"
EXPECTED: dict[tuple[str, ...], str] = {
    ("schema",): "1",
    ("name",): "2 to 63 lower-case letters, digits and hyphens, not beginning with a hyphen",
    ("title",): _TEXT,
    ("authors",): "a list of 1 to 20 names",
    ("authors", "*"): _TEXT,
    ("source",): _TEXT,
    ("parents",): "a list of at most 50 texts",
    ("parents", "*"): _TEXT,
    ("edition",): "official-2026-05",
    ("track",): "A or B",
    ("dataset",): "sp1024 or sp8192",
    ("seeds",): "a list of 1 to 32 whole numbers",
    ("seeds", "*"): _SEED,
    ("config",): "a path inside the folder, such as config.yaml: letters, digits and _ . - between slashes",
    ("image",): "a mapping with the keys cpu and cuda",
    ("image", "cpu"): _DIGEST.format("cpu"),
    ("image", "cuda"): _DIGEST.format("cuda"),
    ("claim",): "a mapping with the keys dataset, profile and bpb",
    ("baseline",): "a mapping with the keys name, source, dataset, profile and bpb",
    ("baseline", "name"): _TEXT,
    ("baseline", "source"): _TEXT,
    ("baseline", "bpb"): f"{_SCORES}, at least two",
    ("claim", "bpb"): f"{_SCORES}, at least one",
    **{
        (part, *keys): expected
        for part in ("claim", "baseline")
        for keys, expected in (
            (("dataset",), _TEXT),
            (("profile",), "pocket, solo or record"),
            (("bpb", "*"), "a number of bits per byte, above 0 and at most 32"),
            (("bpb", "*", "[key]"), f"a seed: {_SEED}"),
        )
    },
}
"""What the schema expects at each key; `*` stands for any item of a list and any seed of a mapping."""
IN_WORDS = "in_words"
"""The type of the errors that the schema raises itself: their messages are in plain words already."""


def ambiguous(document: Document) -> list[Problem]:
    """What the reader of the file refuses in it, with the key that it belongs to in front."""
    keys_at = {place: keys for places in (document.values, document.keys) for keys, place in places.items()}
    return [
        Problem(place, f"{key_text(keys)}: {text}" if (keys := keys_at.get(place)) else text)
        for place, text in document.problems
    ]


def problems(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """Each mistake that `error` lists about `document`, whose layout is `model`, at its place."""
    return [_problem(each, document, model) for each in error.errors(include_url=False)]


def key_text(keys: Keys) -> str:
    """A key as messages show it: claim.bpb.42, seeds[0]."""
    text = "".join(f"[{key}]" if _is_index(keys, at) else f".{key}" for at, key in enumerate(keys))
    return plain(text.removeprefix(".")[:120])


def _is_index(keys: Keys, at: int) -> bool:
    return isinstance(keys[at], int) and at > 0 and keys[at - 1] != "bpb"


def _problem(found: Any, document: Document, model: type[BaseModel]) -> Problem:
    location: Keys = tuple(map(_as_written, found["loc"]))
    if found["type"] in ("extra_forbidden", "invalid_key"):
        return Problem(
            document.keys[location], f"{key_text(location)}: unknown key; {_nearest(location, model)}"
        )
    if found["type"] == "missing":
        place = document.keys.get(location[:-1], document.values[()])
        return Problem(place, f"{key_text(location)}: missing; expected {_expected(location)}")
    is_key = location[-1] == "[key]"
    place = document.keys[location[:-1]] if is_key else document.values[location]
    what = (
        found["msg"]
        if found["type"] == IN_WORDS
        else f"expected {_expected(location)}; found {shown(found['input'])}"
    )
    return Problem(place, f"{key_text(location[:-1] if is_key else location)}: {what}")


def _as_written(key: int | str) -> int | str:
    """A key as the file has it: pydantic turns numbers of more than 64 bits into text."""
    return int(key) if isinstance(key, str) and re.fullmatch("-?[0-9]{19,20}", key) else key


def _expected(location: Keys) -> str:
    general = tuple(
        "*" if isinstance(key, int) or (at == 2 and location[1] == "bpb") else key
        for at, key in enumerate(location)
    )
    return EXPECTED[general]


def shown(value: Any) -> str:
    """A value of a YAML file as messages show it, at most some 100 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        length = f" ({len(value):,} characters)" if len(value) > 80 else ""
        return f"the text '{plain(value[:80])}'{length}" if value else "an empty text"
    if isinstance(value, list | dict):
        kind, part = ("list", "item") if isinstance(value, list) else ("mapping", "key")
        return f"a {kind} of {count(len(value), part)}" if value else f"an empty {kind}"
    return str(value)


def _nearest(keys: Keys, model: type[BaseModel]) -> str:
    known = _known_keys(keys, model)
    near = difflib.get_close_matches(str(keys[-1]), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"


def _known_keys(keys: Keys, model: type[BaseModel]) -> list[str]:
    """The keys that the layout allows beside the last of `keys`, such as ('claim', 'bpbb')."""
    for part in keys[:-1]:
        field = next(f for key, f in model.model_fields.items() if part in (key, f.alias))
        model = next(option for option in _options(field.annotation) if issubclass(option, BaseModel))
    return [field.alias or key for key, field in model.model_fields.items()]


def _options(annotation: Any) -> list[type[Any]]:
    options = getattr(annotation, "__args__", (annotation,))
    return [option for option in options if isinstance(option, type)]
