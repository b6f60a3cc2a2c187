"""What pins an image: pins.yaml, requirements.lock, its stages in the Dockerfile, and one hash of all three.

The manifest names this hash, the image carries it as a label, and a run refuses an image whose label
differs. The hash does not cover a base given with `--base`: the image carries that base's own hash in
a second label.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.markers import Marker
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.base import strict_yaml
from harness.base.errors import UsageError
from harness.base.paths import ROOT

SHA256 = r"^[0-9a-f]{64}$"


class Requirement(NamedTuple):
    """One locked release and the hashes of its files; `marker` is "" if it applies to every platform."""

    name: str
    version: str
    marker: str
    sha256s: frozenset[str]

    def applies_to(self, environment: dict[str, str]) -> bool:
        return not self.marker or Marker(self.marker).evaluate(environment)

    def text(self) -> str:
        """The requirement as a line for pip, without its marker."""
        hashes = [f"--hash=sha256:{sha256}" for sha256 in sorted(self.sha256s)]
        return " ".join([f"{self.name}=={self.version}", *hashes]) + "\n"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Strict):
    """The image that ours builds on, by digest."""

    reference: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    status: Literal["verified", "unverified"]
    provenance: str

    @property
    def pinned(self) -> str:
        """`name@sha256:...`: an engine pulls this digest, wherever the tag points today."""
        return f"{self.reference.rsplit(':', 1)[0]}@{self.digest}"


class Wheel(_Strict):
    """A wheel that is not in the package index. An image can be built without it (`--without NAME`)."""

    name: str
    version: str
    file: str = Field(pattern=r"^[A-Za-z0-9._+-]+\.whl$")
    url: str
    sha256: str | None = Field(pattern=SHA256)
    imports: list[str] = []
    status: Literal["verified", "unverified"]
    provenance: str


class Pins(_Strict):
    """images/<name>/pins.yaml: base, Python versions, modules that must import, wheels from elsewhere."""

    base: Base
    python: str
    compiles: bool = False
    """Whether torch.compile must work there: the base then needs what rootfs.COMPILER lists."""
    imports: list[str]
    wheels: list[Wheel]

    @property
    def modules(self) -> list[str]:
        """Every module that must import, those of the wheels from elsewhere included."""
        return [*self.imports, *(module for wheel in self.wheels for module in wheel.imports)]

    def without(self, names: Collection[str]) -> Pins:
        """The same pins without some of their wheels. Raises UsageError for a name that no wheel has."""
        known = [wheel.name for wheel in self.wheels]
        if unknown := sorted(set(names) - set(known)):
            raise UsageError(
                f"--without {unknown[0]}: no wheel of the pins has this name",
                hint=f"what an image can do without: {', '.join(known) or 'nothing'}",
            )
        return self.model_copy(update={"wheels": [wheel for wheel in self.wheels if wheel.name not in names]})


def names(root: Path = ROOT) -> list[str]:
    return sorted(path.parent.name for path in (root / "images").glob("*/pins.yaml"))


def folder(name: str, root: Path = ROOT) -> Path:
    """images/<name>; raises UsageError for an unknown name."""
    known = names(root)
    if name not in known:
        raise UsageError(f"no image is called {name!r}", hint=f"the images are: {', '.join(known)}")
    return root / "images" / name


def load(name: str, root: Path = ROOT) -> Pins:
    path = folder(name, root) / "pins.yaml"
    try:
        return Pins.model_validate(strict_yaml.load(path))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UsageError(
            f"{path}: {'; '.join(wrong)}", hint="images/cpu/pins.yaml shows every key"
        ) from error


def read_lock(path: Path) -> list[Requirement]:
    """The requirements of a lock file; every one must have a version and at least one sha256."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror})", hint="images/relock.py makes it"
        ) from error
    lines = text.replace("\\\n", " ").splitlines()
    return [_requirement(line, path) for line in lines if line.strip() and not line.startswith("#")]


def _requirement(line: str, path: Path) -> Requirement:
    head, *hashes = line.split(" --hash=")
    found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)\s*(?:;\s*(.*?))?\s*", head)
    sha256s = [text.strip() for text in hashes]
    if not found or not sha256s or not all(re.fullmatch("sha256:[0-9a-f]{64}", text) for text in sha256s):
        raise UsageError(
            f"{path}: expected `name==version --hash=sha256:...`, found {line[:80]!r}",
            hint="make the lock again with images/relock.py",
        )
    return Requirement(
        canonicalize_name(found[1]),
        found[2],
        found[3] or "",
        frozenset(text.removeprefix("sha256:") for text in sha256s),
    )


def requirements(name: str, root: Path = ROOT, without: Collection[str] = ()) -> list[Requirement]:
    """Every package of an image: the wheels of its pins, without some of them, and then its lock.

    The wheels of the pins come first: a build that cannot get one then stops before it downloads the rest.
    Raises UsageError for a wheel whose hash is not known.
    """
    pins, lock = load(name, root).without(without), folder(name, root) / "requirements.lock"
    for wheel in pins.wheels:
        if wheel.sha256 is None:
            raise UsageError(
                f"the {name} image's pin {wheel.name}=={wheel.version} has no sha256 ({wheel.status})",
                hint=f"run `pgolf image lock {name}` on a machine that reaches {wheel.url}, look at what "
                "changed in pins.yaml, and commit it",
            )
    extra = [
        Requirement(canonicalize_name(wheel.name), wheel.version, "", frozenset([wheel.sha256]))
        for wheel in pins.wheels
        if wheel.sha256
    ]
    return [*extra, *read_lock(lock)]


def dockerfile_target(text: str, target: str) -> str:
    """The instructions that produce `target`: its stage, the stages that it builds on or copies
    from, and what comes before the first stage. Leaves out comments and blank lines. Raises KeyError
    for an unknown target.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: dict[str, list[str]] = {"": []}
    current = ""
    for line in lines:
        if line.startswith("FROM "):
            current = line.split()[-1]
        stages.setdefault(current, []).append(line)
    wanted, pending = {""}, [target]
    while pending:
        name = pending.pop()
        wanted.add(name)
        text = "\n".join(stages[name])
        used = re.findall(r"^FROM (\S+)|--from=(\S+)", text, flags=re.MULTILINE)
        pending += [stage for pair in used for stage in pair if stage in stages and stage not in wanted]
    return "\n".join(line for name, body in stages.items() if name in wanted for line in body) + "\n"


def lock_sha256(name: str, root: Path = ROOT) -> str:
    """The lock's hash, over the files of images/<name>/ (path and bytes) and its part of the Dockerfile."""
    base = folder(name, root)
    parts = {
        path.relative_to(base).as_posix(): path.read_bytes()
        for path in base.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    parts["../Dockerfile"] = dockerfile_target(
        (root / "Dockerfile").read_text(encoding="utf-8"), name
    ).encode()
    digest = hashlib.sha256()
    for path, content in sorted(parts.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
