"""Read a submission: manifest.yaml (who submits what, under which rules, with which claim) and its recipe.

The schema is strict: of 43 public submission.json files, only 24 name their seeds and 18 their code bytes, so
here every field is required or has one meaning when it is absent. `schema()` is published as
docs/manifest.schema.json, so each docstring of a model below stays on one line. The recipe, config.yaml, is
not parsed: only the contestant understands it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from harness.base import strict_yaml
from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.base.text import quote
from harness.edition import EDITION, ProfileName
from harness.run import manifest_mistakes

Text = Annotated[str, Field(min_length=1, max_length=400)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Bpb = Annotated[float, Field(gt=0, le=32)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=200)]


SHIPPED = ROOT / "submissions"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Claim(_Strict):
    """The submitter's own score: bits per byte on the official validation text, by seed."""

    dataset: Text = Field(description="the text it was measured on, e.g. fineweb-sp1024")
    profile: ProfileName = "record"
    bpb: dict[Seed, Bpb] = Field(min_length=1, description="bits per byte by seed")


class Baseline(_Strict):
    """The score to beat, in bits per byte by seed. Compared only with runs on the same text and profile."""

    name: Text
    source: Text
    dataset: Text
    profile: ProfileName = "record"
    bpb: dict[Seed, Bpb] = Field(min_length=2, description="bits per byte by seed")


class Image(_Strict):
    """The hash of each image's lock (`pgolf image lock NAME`); another environment is another submission."""

    cpu: Digest
    cuda: Digest


class Manifest(_Strict):
    """One submission. Unknown keys are errors."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = Field(
        alias="schema", description="version of this layout"
    )
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$", description="equals the folder's name")]
    title: Text
    authors: list[Text] = Field(min_length=1, max_length=20)
    source: Text = Field(description="where the idea comes from: pull request, paper")
    parents: list[Text] = Field(default=[], max_length=50, description="what it builds on")
    edition: Literal["official-2026-05"] = EDITION  # type: ignore[assignment]
    track: Literal["A", "B"] = Field(description="A: fixed predictor; B: learns from text already scored")
    dataset: Literal["sp1024", "sp8192"] = Field(
        description="variant of the official text, for the profiles record and solo"
    )
    seeds: list[Seed] = Field(min_length=1, max_length=32)
    config: RelativePath = Field("config.yaml", description="the recipe, inside the submission's folder")
    image: Image
    claim: Claim | None = Field(None, description="the submitter's own score; absent where none was stated")
    baseline: Baseline | None = None

    @field_validator("name")
    @classmethod
    def _names_the_folder(cls, name: str, info: ValidationInfo) -> str:
        """The context of a validation, where there is one, is the folder's name."""
        if info.context is not None and name != info.context:
            raise PydanticCustomError(
                manifest_mistakes.IN_WORDS,
                "expected '{folder}', as the folder is called; found '{name}'",
                {"folder": quote(info.context), "name": name},
            )
        return name

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        repeated = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if repeated is not None:
            raise PydanticCustomError(
                manifest_mistakes.IN_WORDS, "each seed once; {seed} is written twice", {"seed": repeated}
            )
        return seeds

    def digest(self) -> str:
        """sha256 (hex) of what a run depends on: everything but prose, claims and the list of seeds."""
        data = self.model_dump(
            mode="json", include={"schema_version", "name", "edition", "track", "dataset", "image"}
        )
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


class Submission:
    """A submission's folder, its manifest, and the bytes of the recipe that the manifest names."""

    def __init__(self, folder: Path, manifest: Manifest, config: bytes) -> None:
        self.folder, self.manifest, self.config = folder, manifest, config


def schema() -> dict[str, Any]:
    """The JSON schema of manifest.yaml."""
    return Manifest.model_json_schema()


def load(folder: Path) -> Submission:
    """The submission in `folder`.

    Raises UsageError with the place of every mistake and what was expected; for an unknown key or folder with
    the most similar one.
    """
    if not folder.is_dir():
        near = difflib.get_close_matches(folder.name, _siblings(folder), n=1)
        if (SHIPPED / folder.name).is_dir():
            near = [str(SHIPPED / folder.name)]
        hint = f"did you mean {folder.parent / near[0]}?" if near else f"submissions live under {SHIPPED}"
        raise UsageError(f"{folder}: no such submission", hint=hint)
    manifest = read_manifest(folder)
    return Submission(folder, manifest, _read_config(folder, manifest.config))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the submission in `folder`. Raises UsageError with every mistake in it, a line each."""
    path = folder / "manifest.yaml"
    document = strict_yaml.read(path)
    if not isinstance(document.data, dict):
        raise UsageError(
            f"{path}: expected a mapping, found {manifest_mistakes.shown(document.data)}",
            hint="see docs/manifest.md",
        )
    problems = manifest_mistakes.ambiguous(document)
    try:
        manifest = Manifest.model_validate(document.data, context=folder.resolve().name)
    except ValidationError as error:
        taken = {place for place, _ in problems}
        found = manifest_mistakes.problems(error, document, Manifest)
        problems += [problem for problem in found if problem.place not in taken]
    if problems:
        raise strict_yaml.refusal(path, problems, "docs/manifest.md lists every key")
    return manifest


def _siblings(folder: Path) -> list[str]:
    return (
        [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    )


def _read_config(folder: Path, name: str) -> bytes:
    """The recipe's bytes. Raises UsageError for a path that leaves the folder by `..` or by a link."""
    path = Path(os.path.realpath(folder / name))  # Path.resolve may raise RuntimeError for links in a circle
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(
            f"{folder / 'manifest.yaml'}: config: {name!r} leads out of the submission's folder",
            hint="keep the recipe beside its manifest",
        )
    if not path.is_file():
        raise UsageError(f"{path}: no such recipe", hint="manifest.yaml names it under `config`")
    if path.stat().st_size > strict_yaml.MAX_BYTES:
        raise UsageError(
            f"{path}: larger than {strict_yaml.MAX_BYTES} bytes", hint="the recipe counts towards the 16 MB"
        )
    return path.read_bytes()
