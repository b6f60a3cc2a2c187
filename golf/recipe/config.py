"""Reading and writing recipes: a strict YAML loader for golf/recipe/schema.py, and the resolved text that
names a run.

A recipe file holds what differs from the defaults and a mapping `profiles: {solo: {...}, pocket: {...}}` of
overrides; the judge names the profile, mappings merge deep, lists and scalars are replaced.

Not covered: the fields themselves and what they must mean together (golf/recipe/schema.py).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import types
import typing
from typing import Any, Literal

import yaml

from golf.recipe.schema import Config
from golf.recipe.section import ConfigError, need

MAX_CHARACTERS = 65_536
PROFILES = ("record", "solo", "pocket")
TRAINED = ("model", "optim", "train", "stats")
"""The sections that decide what training leaves; the others only say what is done with it afterwards."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and merge keys; anchors and tags are refused before it runs."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            place = f"line {key_node.start_mark.line + 1}"
            need(key_node.tag == "tag:yaml.org,2002:str", f"{place}: keys must be plain words")
            need(key_node.value not in seen, f"{place}: duplicate key {key_node.value!r}")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def parse(text: str) -> dict[str, Any]:
    """YAML text -> nested dict; raises ConfigError on size, anchors, aliases, tags, duplicates or a second
    document."""
    need(len(text) <= MAX_CHARACTERS, f"recipe of {len(text)} characters: at most {MAX_CHARACTERS} are read")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            place = f"line {event.start_mark.line + 1}"
            need(
                not isinstance(event, yaml.AliasEvent) and not getattr(event, "anchor", None),
                f"{place}: anchors and aliases are not accepted",
            )
            need(not getattr(event, "tag", None), f"{place}: explicit tags are not accepted")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            need(depth <= 8, f"{place}: nested deeper than 8")
        tree = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not readable as YAML: {error}") from None
    if tree is None:
        return {}
    need(isinstance(tree, dict), "the recipe must be a mapping of sections")
    return tree


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _value(value: Any, hint: Any, place: str) -> Any:
    """Check one scalar or list against its annotation, exactly: no bool as a number, no text as a float."""
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        need(
            value in options and type(value) is str,
            f"{place}: expected one of {', '.join(options)}; got {value!r}",
        )
        return value
    if typing.get_origin(hint) is tuple:
        need(isinstance(value, list), f"{place}: expected a list, got {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(each, item, f"{place}[{i}]") for i, each in enumerate(value))
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) is int and float in allowed and int not in allowed:
        value = float(value)
    named = " or ".join(t.__name__ for t in allowed)
    advice = " (write 1.0e-8, not 1e-8)" if isinstance(value, str) and float in allowed else ""
    need(type(value) in allowed, f"{place}: expected {named}, got {value!r}{advice}")
    need(type(value) is not float or abs(value) < float("inf"), f"{place}: {value} is not a finite number")
    return value


def _build(kind: type, tree: Any, place: str) -> Any:
    """A dataclass from a mapping; unknown keys raise with the nearest known one."""
    need(isinstance(tree, dict), f"{place or 'the recipe'}: expected a mapping, got {tree!r}")
    hints = typing.get_type_hints(kind)  # without ranges: the dataclass checks those
    known = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for key, value in tree.items():
        dotted = f"{place}.{key}" if place else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{dotted}: unknown key; {guess}")
        nested = dataclasses.is_dataclass(hints[key])
        values[key] = _build(hints[key], value, dotted) if nested else _value(value, hints[key], dotted)
    return kind(**values)


def load(text: str, profile: str = "record") -> Config:
    """Recipe text and profile name -> Config. `record` is the recipe as written, without any override."""
    tree = parse(text)
    profiles = tree.pop("profiles", {})
    need(profile in PROFILES, f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    need(isinstance(profiles, dict), "profiles: expected a mapping of profile names")
    for name, override in profiles.items():
        need(name in PROFILES[1:], f"profiles.{name}: unknown profile; known: {', '.join(PROFILES[1:])}")
        need(isinstance(override, dict), f"profiles.{name}: expected a mapping of sections")
        _build(Config, _merge(tree, override), "")  # a mistake in any profile is found in every run
    return _build(Config, _merge(tree, profiles.get(profile, {})), "")


def as_tree(config: Config) -> dict[str, Any]:
    """Config -> nested dict of plain values, every field present."""
    tree = dataclasses.asdict(config)
    return {
        section: {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        for section, fields in tree.items()
    }


def resolved(config: Config) -> str:
    """The YAML text of a resolved recipe: every field, in order; `load(resolved(c)) == c`."""
    return yaml.safe_dump(as_tree(config), sort_keys=False, default_flow_style=False)


def digest(config: Config) -> str:
    """sha256 of the resolved text: the recipe's name in artifacts."""
    return hashlib.sha256(resolved(config).encode()).hexdigest()


def training_digest(config: Config) -> str:
    """sha256 of what decides a training (TRAINED): the recipe's name in checkpoints, so that recipes which
    differ only in what comes after training can pack the same one."""
    tree = as_tree(config)
    text = yaml.safe_dump({section: tree[section] for section in TRAINED}, sort_keys=False)
    return hashlib.sha256(text.encode()).hexdigest()
