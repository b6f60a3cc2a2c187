"""Parse untrusted YAML: bounded size, no aliases, no duplicate keys, plain data only.

Anchors and aliases let ten lines expand to gigabytes, duplicate keys let two readers see two documents, and
tags can name constructors. PyYAML's safe loader already refuses the tags. What the keys mean:
harness/run/submission.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.base.errors import UsageError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NUMBER = 64
"""Characters of a number: in base 60 (`1:59:59...`) a megabyte takes minutes to convert and overflows a
float."""


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that also refuses aliases, deep nesting, long numbers and duplicate keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _refusal(f"alias *{event.anchor} is not allowed: write the value out", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > MAX_NUMBER:
            raise _refusal(f"a number of {len(node.value)} characters", node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise _refusal(f"key {str(key)[:80]!r} must be text", key_node.start_mark)
            if key in seen:
                raise _refusal(f"key {str(key)[:80]!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Any:
    """The plain data of the YAML file at `path`, at most MAX_BYTES long.

    Raises UsageError that names the file, the line and what is wrong.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: not a regular file", hint="check the path")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES} bytes", hint="a manifest is a page of text")
    try:
        return yaml.load(raw.decode("utf-8"), _StrictLoader)  # a subclass of SafeLoader
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(f"{place}: {problem}", hint="see docs/manifest.md for the layout") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(
            f"{path}: not valid YAML ({error})", hint="see docs/manifest.md for the layout"
        ) from error
