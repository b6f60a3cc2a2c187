"""The contestant's frames as strict types, and the parser that reads them.

A frame is one JSON object on one line, at most 65,536 bytes with its newline (docs/protocol.md). It is read
by harness/base/strict_json.py, and refused here if it nests deeper than MAX_DEPTH or contains a lone
surrogate. Types are exact: `true` is not 1. Unknown keys are ignored, as the protocol says. See
conversation.py for the order of frames and its clocks.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.base.errors import Violation
from harness.base.strict_json import strict_json
from harness.base.text import kind, quote

MAX_LINE = 65_536
MAX_DEPTH = 8

Count = Annotated[int, Field(ge=0, lt=2**53)]
Version1 = Annotated[int, Field(ge=1, le=1)]
"""Not Literal[1], which accepts `true` and 1.0."""
Name = Annotated[str, Field(pattern=r"^[ -~]{1,100}$")]
"""Printable ASCII, because names from a contestant are shown on terminals."""
Remark = Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]
"""A sentence from a contestant, printable ASCII too."""


class Frame(BaseModel):
    """What every frame from a contestant has."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    op: str


class Hello(Frame):
    op: Literal["hello"]
    protocol: Version1
    stage: str


class Ready(Frame):
    op: Literal["ready"]
    attention: Name | None = None
    """Name of the attention kernel in use; a claim."""
    world: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of processes that compute; a claim."""


class ScoreReady(Ready):
    chunk_tokens: Annotated[int, Field(ge=1)]
    adapts: bool
    context: Annotated[int, Field(ge=1, lt=2**53)] | None


class Variant(BaseModel):
    """A recipe with one technique switched off."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    name: Name
    config: str
    unquantised: str | None = None
    """The same recipe without quantisation."""
    changes: Literal["train", "pack", "score"] = "train"
    """The first stage whose result differs from that of the full recipe; a claim."""


class Variants(Frame):
    """Further variants, which did not fit in the frame before."""

    op: Literal["variants"]
    variants: list[Variant]
    more: bool = False


class Description(Frame):
    op: Literal["description"]
    parameters: Count
    techniques: list[Name]
    estimated_bytes: Count
    unquantised: str | None = None
    """The full recipe without quantisation."""
    variants: list[Variant] = []
    remarks: Annotated[list[Remark], Field(max_length=20)] = []
    """What the submitter should know of the recipe; claims."""
    more: bool = False
    """Whether `variants` frames follow."""


class Trained(Frame):
    op: Literal["trained"]
    steps: Count
    tokens: Count


class Packed(Frame):
    op: Literal["packed"]


class Nats(Frame):
    op: Literal["nats"]
    chunk: Count
    n_bytes: Count = Field(alias="bytes")


class Adapted(Frame):
    op: Literal["adapted"]
    chunk: Count
    n_bytes: Count = Field(alias="bytes")


class Progress(Frame):
    op: Literal["progress"]
    fraction: Annotated[float, Field(ge=0, le=1)]
    text: Annotated[str, Field(max_length=1000)] = ""


def _depth(line: bytes) -> int:
    """Deepest nesting of brackets outside strings; checked first, because the JSON parser recurses."""
    deepest = depth = 0
    in_string = escaped = False
    for byte in line:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def parse_object(line: bytes) -> dict[str, Any]:
    """One JSON object from one line. Raises ValueError with the reason if there is none."""
    if _depth(line) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    data = strict_json(line)
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, found {kind(data)}")
    json.dumps(data, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be encoded
    return data


def parse(line: bytes, expected: tuple[type[Frame], ...]) -> Frame:
    """The frame on `line`, whose `op` must be that of one of `expected`.

    Raises Violation `protocol` with what was expected and a quote of the line.
    """
    by_op = {kind.model_fields["op"].annotation.__args__[0]: kind for kind in expected}  # type: ignore[union-attr]
    wanted = " or ".join(sorted(by_op))
    try:
        data = parse_object(line)
        if not isinstance(data.get("op"), str):
            raise ValueError(f"op is {kind(data.get('op'))}, expected text")
        if data["op"] not in by_op:
            raise ValueError(f"op {quote(data['op'])!r} is out of turn")
        return by_op[data["op"]].model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise Violation(
            "protocol",
            f"expected {wanted}: key {quote(key)!r}: {first['msg']}; got {quote(line)}",
            hint="docs/protocol.md lists the keys of every frame",
        ) from error
    except ValueError as error:
        raise Violation(
            "protocol",
            f"expected {wanted}: {quote(str(error))}; got {quote(line)}",
            hint="docs/protocol.md lists the frames of every stage in order",
        ) from error
