"""Read recipes from strict YAML, and write the resolved text whose hash identifies a run.

A recipe file holds the fields that differ from the defaults (golf/recipe/schema.py), and optionally a mapping
`profiles: {solo: {...}, pocket: {...}}` of overrides. The judge names the profile. Overrides merge into
nested mappings; lists and scalars are replaced.
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
from golf.recipe.section import ConfigError, require

MAX_CHARACTERS = 65_536
PROFILES = ("record", "solo", "pocket")
TRAINING_SECTIONS = ("model", "optim", "train", "stats")
"""The sections that decide the checkpoint; the others say what is done with it."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys and merge keys; `parse` rejects anchors and tags before."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            place = f"line {key_node.start_mark.line + 1}"
            require(key_node.tag == "tag:yaml.org,2002:str", f"{place}: keys must be plain strings")
            require(key_node.value not in seen, f"{place}: duplicate key {key_node.value!r}")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def parse(text: str) -> dict[str, Any]:
    """YAML text -> nested dict.

    Raises ConfigError for anchors, aliases, tags, duplicate keys, a second document, or too
    much text or depth.
    """
    require(
        len(text) <= MAX_CHARACTERS, f"recipe of {len(text)} characters: at most {MAX_CHARACTERS} are read"
    )
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            assert event.start_mark is not None
            place = f"line {event.start_mark.line + 1}"
            require(
                not isinstance(event, yaml.AliasEvent) and not getattr(event, "anchor", None),
                f"{place}: anchors and aliases are not accepted",
            )
            require(not getattr(event, "tag", None), f"{place}: explicit tags are not accepted")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            require(depth <= 8, f"{place}: nested deeper than 8")
        tree = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not readable as YAML: {error}") from None
    if tree is None:
        return {}
    require(isinstance(tree, dict), "the recipe must be a mapping of sections")
    return tree


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _checked(value: Any, hint: Any, place: str) -> Any:
    """Check a scalar or list strictly against its annotation: no bool as a number, no string as a float."""
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        require(
            value in options and type(value) is str,
            f"{place}: expected one of {', '.join(options)}; got {value!r}",
        )
        return value
    if typing.get_origin(hint) is tuple:
        require(isinstance(value, list), f"{place}: expected a list, got {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_checked(each, item, f"{place}[{i}]") for i, each in enumerate(value))
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) is int and float in allowed and int not in allowed:
        value = float(value)
    expected = " or ".join(t.__name__ for t in allowed)
    advice = " (write 1.0e-8, not 1e-8)" if isinstance(value, str) and float in allowed else ""
    require(type(value) in allowed, f"{place}: expected {expected}, got {value!r}{advice}")
    require(type(value) is not float or abs(value) < float("inf"), f"{place}: {value} is not a finite number")
    return value


def _build(kind: type, tree: Any, place: str) -> Any:
    """A dataclass from a mapping. An unknown key raises ConfigError with the closest known key."""
    require(isinstance(tree, dict), f"{place or 'the recipe'}: expected a mapping, got {tree!r}")
    hints = typing.get_type_hints(kind)  # without the ranges, which the dataclass checks
    known = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for key, value in tree.items():
        dotted = f"{place}.{key}" if place else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{dotted}: unknown key; {guess}")
        nested = dataclasses.is_dataclass(hints[key])
        values[key] = _build(hints[key], value, dotted) if nested else _checked(value, hints[key], dotted)
    return kind(**values)


def load(text: str, profile: str = "record") -> Config:
    """Recipe text and profile name -> Config. Profile `record` is the recipe without overrides."""
    tree = parse(text)
    profiles = tree.pop("profiles", {})
    require(profile in PROFILES, f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    require(isinstance(profiles, dict), "profiles: expected a mapping of profile names")
    for name, override in profiles.items():
        require(name in PROFILES[1:], f"profiles.{name}: unknown profile; known: {', '.join(PROFILES[1:])}")
        require(isinstance(override, dict), f"profiles.{name}: expected a mapping of sections")
        _build(Config, _merge(tree, override), "")  # so that every run finds a mistake in any profile
    return _build(Config, _merge(tree, profiles.get(profile, {})), "")


def as_tree(config: Config) -> dict[str, Any]:
    """Config -> nested dict of plain values with every field."""
    tree = dataclasses.asdict(config)
    return {
        section: {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        for section, fields in tree.items()
    }


def resolved(config: Config) -> str:
    """YAML text with every field, in order; `load(resolved(c)) == c`."""
    return yaml.safe_dump(as_tree(config), sort_keys=False, default_flow_style=False)


def digest(config: Config) -> str:
    """sha256 of the resolved text, which identifies the recipe in artifacts."""
    return hashlib.sha256(resolved(config).encode()).hexdigest()


def training_digest(config: Config) -> str:
    """sha256 of TRAINING_SECTIONS, which identifies the recipe in checkpoints.

    Recipes that differ only in later sections can therefore pack the same checkpoint.
    """
    tree = as_tree(config)
    text = yaml.safe_dump({section: tree[section] for section in TRAINING_SECTIONS}, sort_keys=False)
    return hashlib.sha256(text.encode()).hexdigest()
