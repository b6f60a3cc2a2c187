"""Read YAML strictly: a plain scalar is what it looks like, or it is refused with what to write instead.

YAML 1.1 reads 042 as 34, 1:30 as 90 and yes as true. Here a plain scalar is a number only in JSON's form, a
boolean only as true or false, and null only as null. Any other plain scalar that YAML 1.1 reads as something
else than text, or that resembles a number, is a mistake. So is a key that is not text, or that occurs twice.
Anchors, aliases, tags, deep nesting and long texts are refused before anything is built.

`read` notes the place of each key and collects the mistakes; a value that it cannot read becomes UNREADABLE.
What the keys mean: golf/recipe/config.py.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from golf.recipe.mistakes import ConfigError, Mistake, Place, cut

MAX_CHARACTERS = 65_536
MAX_DEPTH = 8
MAX_DIGITS = 20
"""Digits of an integer."""
MAX_FLOAT = 64
"""Characters of a number with a fraction or an exponent."""
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
OTHER_NOTATION = re.compile(
    r"[-+]?(0x[0-9a-f][0-9a-f_]*|0o[0-7][0-7_]*|0b[01][01_]*"
    r"|([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(e[-+]?[0-9][0-9_]*)?)",
    re.IGNORECASE,
)
"""A number as other languages write it."""
WORDS = {"true": True, "false": False, "null": None}
SPELLINGS = {"yes": "true", "on": "true", "no": "false", "off": "false", "~": "null", "": "null"}
"""Other spellings of YAML 1.1, in lower case -> the word to write."""
TEXT = "tag:yaml.org,2002:str"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
UNREADABLE = object()
"""Stands for the value of a scalar that is a mistake."""


class Document(NamedTuple):
    """What was read of a file. A key is dotted: profiles.pocket.model.layers."""

    tree: Any
    places: dict[str, Place]
    """Key -> where it stands; `` -> where the document begins."""
    mistakes: list[Mistake]
    """What could not be read, and why."""


def read_text(path: Path) -> str:
    """The text of a recipe file. Raises ConfigError if it is too long or not UTF-8."""
    with path.open("rb") as file:
        raw = file.read(4 * (MAX_CHARACTERS + 1))
    _check_length(len(raw) // 4, path.name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place_after(raw[: error.start].decode("utf-8"), path.name)
        raise ConfigError(Mistake((), "not UTF-8; save the file as UTF-8", place)) from None


def read(text: str, file: str) -> Document:
    """Parse the text of a file called `file`.

    Raises ConfigError with a single mistake if the text is no YAML, or YAML of a kind that is refused: an
    anchor, an alias, a tag, a second document, or too much text or depth.
    """
    _check_length(len(text), file)
    reader = _Reader(file)
    node = _compose(text, file)
    tree = {} if node is None else reader.value(node, "")
    return Document(tree, reader.places, reader.mistakes)


def _check_length(characters: int, file: str) -> None:
    if characters > MAX_CHARACTERS:
        text = f"the recipe is too long; at most {MAX_CHARACTERS} characters are read"
        raise ConfigError(Mistake((), text, Place(file, 1, 1)))


def _place(file: str, mark: yaml.Mark) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)


def _place_after(before: str, file: str) -> Place:
    return Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _compose(text: str, file: str) -> yaml.Node | None:
    """The only document of a text; None for an empty one."""
    try:
        loader = _Composer(text)
    except yaml.reader.ReaderError as error:
        problem = f"the character U+{error.character:04X} is not accepted; remove it"
        raise ConfigError(Mistake((), problem, _place_after(text[: error.position], file))) from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        problem = ", ".join(part for part in (error.context, error.problem) if part)
    except (ValueError, OverflowError):  # PyYAML converts the digits of escapes and versions unchecked
        mark, problem = loader.get_mark(), "the number of an escape or a version is out of range"
    raise ConfigError(Mistake((), problem, _place(file, mark)))


class _Composer(yaml.SafeLoader):
    """Compose nodes, but for those that could expand, name a type, or nest deeply."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        problem = ""
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            problem = "anchors and aliases are not accepted; write the value out"
        elif getattr(event, "tag", None):
            problem = "explicit tags are not accepted; write the value without one"
        elif self.depth == MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Values of nodes. Fills `places` and `mistakes` on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places = {"": Place(file, 1, 1)}
        self.mistakes: list[Mistake] = []

    def value(self, node: yaml.Node, key: str) -> Any:
        """The value of the node under a key; UNREADABLE if it is a mistake."""
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            items = [self.value(item, key) for item in node.value]
            return UNREADABLE if UNREADABLE in items else items
        assert isinstance(node, yaml.ScalarNode)
        try:
            return scalar(node)
        except ValueError as error:
            return self.refuse(node, key, str(error))

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        """The value of a mapping, without the keys that are no text; of two equal keys, the first counts."""
        entries: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = _text(key_node)
            if name is None:
                written = cut(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a collection"
                self.refuse(key_node, key, f"the key is {written}, which is not text; write it in quotes")
                continue
            inner = f"{key}.{name}" if key else name
            if name in entries:
                self.refuse(key_node, inner, "duplicate key; expected each key once")
                if not isinstance(entries[name], dict):
                    entries[name] = UNREADABLE
                continue
            self.places[inner] = _place(self.file, key_node.start_mark)
            entries[name] = self.value(value_node, inner)
        return entries

    def refuse(self, node: yaml.Node, key: str, text: str) -> object:
        """Add a mistake at a node."""
        self.mistakes.append(Mistake((key,) if key else (), text, _place(self.file, node.start_mark)))
        return UNREADABLE


def _text(key: yaml.Node) -> str | None:
    """The text of a key; None if it is anything else than text."""
    try:
        name = scalar(key) if isinstance(key, yaml.ScalarNode) else None
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """The value of a scalar. Raises ValueError that says what to write for a plain one that is ambiguous."""
    value = node.value
    if node.style:  # quoted, or a block
        return value
    if value in WORDS:
        return WORDS[value]
    if NUMBER.fullmatch(value):
        return _number(value)
    if node.tag == TEXT and not OTHER_NOTATION.fullmatch(value):
        return value
    meant = _suggestion(value) or ("a finite decimal number" if node.tag in NUMBERS else None)
    choices = [*([meant] if meant else []), f'"{cut(value)}" for text']
    raise ValueError(f"{cut(value) or 'an empty value'} is ambiguous in YAML; write {', or '.join(choices)}")


def _number(text: str) -> int | float:
    """The value of a number in JSON's form. Raises ValueError for too many digits and for infinity."""
    digits = text.removeprefix("-")
    if digits.isdigit():
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"an integer of {len(digits)} digits; expected at most {MAX_DIGITS}")
        return int(text)
    if len(text) > MAX_FLOAT or not math.isfinite(float(text)):
        raise ValueError(f"{cut(text)} is too large or too long; expected at most {MAX_FLOAT} characters")
    return float(text)


def _suggestion(text: str) -> str | None:
    """How to write what the author of an ambiguous scalar probably meant; None if that is not clear."""
    plain = text.lower()
    if plain in SPELLINGS or plain in WORDS:
        return SPELLINGS.get(plain, plain)
    if len(text) > MAX_DIGITS or not OTHER_NOTATION.fullmatch(text):
        return None
    number = plain.replace("_", "")
    if re.match("[-+]?0[xob]", number):
        return str(int(number, 0))
    if re.fullmatch("[-+]?[0-9]+", number):
        return str(int(number))
    value = float(number)
    return str(value) if math.isfinite(value) else None
