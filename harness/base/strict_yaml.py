"""Parse untrusted YAML: bounded size, no aliases, no tags, no duplicate keys, plain data only, with places.

Anchors and aliases let ten lines expand to gigabytes, duplicate keys let two readers see two documents, and
tags can name constructors. What an unquoted value means: yaml_scalars.py. What the keys mean:
harness/run/submission.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from harness.base import yaml_scalars
from harness.base.errors import UsageError
from harness.base.file_kind import not_plain
from harness.base.text import plain, quote

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_PROBLEMS = 20
"""Mistakes shown at once."""
HINT = "see docs/manifest.md for the layout"

Keys = tuple[str | int, ...]
"""The keys and list indices that lead to a value, from the top."""


class Place(NamedTuple):
    """Line and column in a file, counted from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """One mistake and where it stands."""

    place: Place
    text: str


class Document(NamedTuple):
    """The data of a file, where every key and value of it stands, and the mistakes found so far."""

    data: Any
    keys: dict[Keys, Place]
    values: dict[Keys, Place]
    problems: list[Problem]


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses aliases, tags and deep nesting, and notes every ambiguous value and key."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.problems: list[Problem] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(f"alias *{event.anchor} is not allowed: write the value out", event.start_mark)
        if event.tag is not None:
            raise _refusal(f"tag {quote(event.tag)} is not allowed: write the value alone", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        is_plain = self.peek_event().implicit[0]  # type: ignore[no-untyped-call]
        node = super().compose_scalar_node(anchor)
        node.tag = yaml_scalars.STR
        try:
            node.value.encode("utf-8")
            if is_plain:
                node.tag = yaml_scalars.tag_of(node.value)
        except UnicodeEncodeError:
            self.problems.append(Problem(_place(node.start_mark), "half a surrogate pair is no character"))
            node.value = quote(node.value)
        except ValueError as error:
            self.problems.append(Problem(_place(node.start_mark), plain(str(error))))
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise _refusal(f"key {str(key)[:80]!r} must be text or a whole number", key_node.start_mark)
            if key in seen:
                self.problems.append(
                    Problem(_place(key_node.start_mark), f"key {str(key)[:80]!r} appears twice")
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def document(self) -> Document:
        """The only document of the file. Raises yaml.YAMLError."""
        node = self.get_single_node()
        keys: dict[Keys, Place] = {}
        values: dict[Keys, Place] = {}
        data = None
        if node is not None:
            data = self.construct_document(node)
            _locate(node, (), keys, values)
        return Document(data, keys, values, self.problems)


def _locate(node: Any, path: Keys, keys: dict[Keys, Place], values: dict[Keys, Place]) -> None:
    """Note where the keys and values at and below `node` stand."""
    values[path] = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = int(key_node.value) if key_node.tag == yaml_scalars.INT else key_node.value
            keys[*path, key] = _place(key_node.start_mark)
            _locate(value_node, (*path, key), keys, values)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _locate(item, (*path, index), keys, values)


def refusal(path: Path, problems: list[Problem], hint: str) -> UsageError:
    """One error for all `problems` of the file at `path`, a line each, at most MAX_PROBLEMS of them."""
    ordered = sorted(set(problems))
    lines = [f"{path}:{place.line}:{place.column}: {text}" for place, text in ordered[:MAX_PROBLEMS]]
    if len(ordered) > MAX_PROBLEMS:
        lines.append(f"{path}: {len(ordered) - MAX_PROBLEMS} more mistakes are not shown")
    return UsageError("\n".join(lines), hint=hint)


def load(path: Path) -> Any:
    """The plain data of the YAML file at `path`, at most MAX_BYTES long.

    Raises UsageError with the place of every mistake and what to write instead.
    """
    document = read(path)
    if document.problems:
        raise refusal(path, document.problems, HINT)
    return document.data


def read(path: Path) -> Document:
    """The file at `path` with its places. Ambiguous values and repeated keys are among its problems.

    Raises UsageError that names the file, the line and what is wrong where there is no data to read.
    """
    try:
        loader = _StrictLoader(_text(path))
        return loader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(f"{where}: {problem}", hint=HINT) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: not valid YAML ({error})", hint=HINT) from error


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: not a regular file", hint="check the path")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error
    if (kind := not_plain(raw)) is not None:
        raise UsageError(f"{path}: {kind}", hint="a manifest is a page of UTF-8 text")
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES} bytes", hint="a manifest is a page of text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from error
