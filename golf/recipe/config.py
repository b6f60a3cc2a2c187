"""Build recipes from strict YAML, and write the resolved text whose hash identifies a run.

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

from golf.recipe import strict_yaml
from golf.recipe.mistakes import ConfigError, Mistake, shown
from golf.recipe.schema import Config
from golf.recipe.section import Section
from golf.recipe.strict_yaml import UNREADABLE, Document

OVERRIDING = ("solo", "pocket")
PROFILES = ("record", *OVERRIDING)
TRAINING_SECTIONS = ("model", "optim", "train", "stats")
"""The sections that decide the checkpoint; the others say what is done with it."""


def parse(text: str, file: str = "config.yaml") -> dict[str, Any]:
    """The nested dict of a recipe's text, unchecked but for its syntax. Raises ConfigError."""
    document = strict_yaml.read(text, file)
    if document.mistakes:
        raise ConfigError(*document.mistakes)
    return document.tree


def load(text: str, profile: str = "record", file: str = "config.yaml") -> Config:
    """The recipe in the text of a file, with a profile merged in; `record` overrides nothing.

    Raises ConfigError with every mistake in the file, whatever the profile, in the order of their places.
    """
    document = strict_yaml.read(text, file)
    found = list(document.mistakes)
    tree = _mapping(document.tree, (), "sections", found)
    profiles = _mapping(tree.pop("profiles", {}), ("profiles",), "profiles", found)
    found += _unknown_keys(profiles, "profiles.", list(OVERRIDING))[0]
    configs = {}
    for name in PROFILES:
        override = _mapping(profiles.get(name, {}), (f"profiles.{name}",), "sections", found)
        configs[name], mistakes = _build(_merge(tree, override))
        found += [_placed(mistake, document, name) for mistake in mistakes]
    found = [mistake if mistake.place else _placed(mistake, document, "record") for mistake in found]
    if profile not in PROFILES:
        problem = f"the judge asks for the profile {shown(profile)}; known: {', '.join(PROFILES)}"
        found.append(Mistake((), problem, document.places[""]))
    if found:
        raise ConfigError(*sorted(dict.fromkeys(found), key=lambda mistake: mistake.place or ()))
    return configs[profile]


def _mapping(value: Any, keys: tuple[str, ...], content: str, found: list[Mistake]) -> dict[str, Any]:
    """A copy of a mapping; an empty one, and a new mistake, if the value is not a mapping."""
    if isinstance(value, dict):
        return dict(value)
    if value is not UNREADABLE:
        found.append(Mistake(keys, f"got {shown(value)}; expected a mapping of {content}"))
    return {}


def _placed(mistake: Mistake, document: Document, profile: str) -> Mistake:
    """A mistake of a merged recipe with its place: of a key it involves, in the profile if it is there."""
    prefix = f"profiles.{profile}."
    for key in mistake.keys:
        if place := document.places.get(prefix + key):
            return mistake._replace(text=f"{mistake.text} (profile {profile})", place=place)
    places = [document.places[key] for key in mistake.keys if key in document.places]
    return mistake._replace(place=[*places, document.places[""]][0])


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _build(tree: dict[str, Any]) -> tuple[Config, list[Mistake]]:
    """The recipe of a merged tree, and its mistakes; a mistaken field has its default."""
    kinds = typing.get_type_hints(Config)
    found, wrong = _unknown_keys(tree, "", [*kinds, "profiles"])
    wrong |= {name for name, value in tree.items() if value is UNREADABLE}
    sections: dict[str, Any] = {
        name: _section(kind, _mapping(tree.get(name, {}), (name,), "fields", found), wrong, found)
        for name, kind in kinds.items()
    }
    try:
        return Config(**sections), found
    except ConfigError as error:
        return Config(), found + _certain(error, wrong)


def _section(kind: type[Any], tree: dict[str, Any], wrong: set[str], found: list[Mistake]) -> Section:
    """A section without its mistakes. These are added to `found`, the fields they involve to `wrong`."""
    hints = typing.get_type_hints(kind)  # without the ranges, which the section checks
    known = [field.name for field in dataclasses.fields(kind)]
    prefix = f"{kind.SECTION}."
    unknown, meant = _unknown_keys(tree, prefix, known)
    found += unknown
    wrong |= meant | {prefix + name for name, value in tree.items() if value is UNREADABLE}
    values = {}
    for name, value in tree.items():
        if name not in known or value is UNREADABLE:
            continue
        try:
            values[name] = _checked(value, hints[name])
        except ValueError as error:
            found.append(Mistake((prefix + name,), str(error)))
            wrong.add(prefix + name)
    while True:
        try:
            return kind(**values)
        except ConfigError as error:
            found += _certain(error, wrong)
            wrong |= {key for mistake in error.mistakes for key in mistake.keys}
            values = {name: value for name, value in values.items() if prefix + name not in wrong}


def _unknown_keys(tree: dict[str, Any], prefix: str, known: list[str]) -> tuple[list[Mistake], set[str]]:
    """The mistakes of the unknown keys, and the known keys that they probably stand for."""
    found, meant = [], set()
    for name in tree.keys() - {*known}:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        found.append(Mistake((prefix + name,), f"unknown key; {hint}"))
        meant |= {prefix + each for each in near}
    return found, meant


def _certain(error: ConfigError, wrong: set[str]) -> list[Mistake]:
    """The mistakes that do not follow from others: no constraint with a field whose value is not known."""
    return [
        mistake
        for mistake in error.mistakes
        if len(mistake.keys) == 1
        or wrong.isdisjoint({*mistake.keys, *(key.split(".")[0] for key in mistake.keys)})
    ]


TYPES = {int: "an integer", float: "a number", bool: "true or false", types.NoneType: "null"}


def _checked(value: Any, hint: Any) -> Any:
    """A value of exactly the type that its annotation names: a bool is no number, and text is no number.

    Raises ValueError that says what was expected.
    """
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        if type(value) is not str or value not in options:
            raise ValueError(f"got {shown(value)}; expected one of {', '.join(options)}")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"got {shown(value)}; expected a list")
        return tuple(_checked(each, typing.get_args(hint)[0]) for each in value)
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) is int and float in allowed and int not in allowed:
        return float(value)
    if type(value) not in allowed:
        raise ValueError(f"got {shown(value)}; expected {' or '.join(TYPES[each] for each in allowed)}")
    return value


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
