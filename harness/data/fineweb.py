"""Fetch the challenge's own data: token shards of FineWeb from the Hugging Face hub, at a fixed revision.

    sp1024   willdepueoai/parameter-golf, the challenge's repository; revision and tokenizer hash pinned
    sp8192   kevclark/parameter-golf, used by the records from #1394 on; no revision is known, so the user
             names one with --revision, and the commit that it resolves to is recorded in the dataset

The repository's datasets/manifest.json says how many shards there are; validation is always fetched
whole. Its number of tokens is compared with that of the official logs (62,021,846 and 40,540,803),
because runs on other sets (launch day, 10,000 documents, chunks built in parallel; #2109) reported scores
that were not comparable.

An interrupted or killed call is continued by the same command, inside a shard too: shards collect in
`.<name>.<commit>.download` beside the target, and that folder becomes the dataset when all is verified. Of
two calls for one folder, one waits for the other. Not covered: whether the hub's files are the ones that the
record holders trained on.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.base import disk
from harness.base.errors import UsageError
from harness.base.files import SAFE_NAME, read_bounded
from harness.base.lock import locked
from harness.base.paths import home
from harness.base.progress import ProgressCallback, no_progress
from harness.base.strict_json import strict_json
from harness.data.dataset import MANIFEST, Dataset
from harness.data.hub import COMMIT, Repository, remove_strays
from harness.data.sentencepiece_file import MAX_MODEL_BYTES
from harness.data.shards import HEADER_BYTES, MAX_TOKENS, read_header, read_tokens
from harness.data.writer import TOKENIZER_NAME, Prepared, Split, finish, shard_path, shard_paths

ROOT = "datasets"  # the folder of the repository that holds manifest.json, datasets/ and tokenizers/
MAX_MANIFEST_BYTES = 1 << 20
MAX_SHARD_BYTES = HEADER_BYTES + 2 * MAX_TOKENS


@dataclass(frozen=True)
class Variant:
    """Where a tokenisation of FineWeb is published, and what is known about it; None: unknown."""

    name: str
    repository: str
    revision: str | None
    dataset: str
    vocab_size: int
    tokenizer: str
    tokenizer_sha256: str
    validation_tokens: int | None


VARIANTS = {
    "sp1024": Variant(
        "sp1024",
        "willdepueoai/parameter-golf",
        "a85b0e6035c3c94bc23685a07c81a8f3bf89db80",
        "fineweb10B_sp1024",
        1024,
        "fineweb_1024_bpe.model",
        "4f5e8adb109c66b4886963bc75a7befd73bda36d27fd7102df8e9e66503b0e2a",
        62_021_846,
    ),
    "sp8192": Variant(
        "sp8192",
        "kevclark/parameter-golf",
        None,
        "fineweb10B_sp8192",
        8192,
        "fineweb_8192_bpe.model",
        "0518df93315eaff6bc75ad4d9711b01c1b5e9ac32e8b3da603c040d8653f7f03",
        40_540_803,
    ),
}


class _Stats(BaseModel):
    model_config = ConfigDict(strict=True)
    files_train: int = Field(ge=0, le=10_000)
    files_val: int = Field(ge=1, le=1_000)


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str
    stats: _Stats


class _Manifest(BaseModel):
    """The part of the repository's manifest.json that is used; the rest is ignored."""

    model_config = ConfigDict(strict=True)
    datasets: list[_Entry]


def default_folder(variant: Variant) -> Path:
    """Where the dataset is kept by default."""
    return home() / "datasets" / f"fineweb-{variant.name}"


def _revision(variant: Variant, revision: str | None) -> str:
    chosen = revision or variant.revision
    if chosen is None:
        raise UsageError(
            f"fineweb {variant.name}: no revision of {variant.repository} is known",
            hint="name one with --revision, a commit if you can; the one resolved is recorded",
        )
    if not SAFE_NAME.fullmatch(chosen):
        raise UsageError(
            f"--revision {chosen[:80]!r}: expected a commit, a branch or a tag",
            hint="letters, digits, dots and dashes only",
        )
    return chosen


def _stats(repository: Repository, variant: Variant, folder: Path) -> _Stats:
    path = repository.fetch(f"{ROOT}/manifest.json", folder, max_bytes=MAX_MANIFEST_BYTES)
    try:
        manifest = _Manifest.model_validate(strict_json(read_bounded(path, MAX_MANIFEST_BYTES)))
    except (ValidationError, ValueError) as error:
        raise UsageError(
            f"{repository.name}: {ROOT}/manifest.json cannot be used: {str(error)[:300]}",
            hint="the repository's layout has changed: check --revision",
        ) from None
    for entry in manifest.datasets:
        if entry.name == variant.dataset:
            return entry.stats
    raise UsageError(
        f"{repository.name}: {ROOT}/manifest.json names no dataset {variant.dataset}",
        hint=f"found {', '.join(entry.name for entry in manifest.datasets)[:200] or 'none'}",
    )


@dataclass(frozen=True)
class _Download:
    """What is fetched from where, and the folder that is to become the dataset."""

    variant: Variant
    repository: Repository
    staging: Path
    progress: ProgressCallback

    @property
    def folder(self) -> Path:
        """Where files lie while they arrive."""
        return self.staging / "download"


def _fetch_shard(download: _Download, split: Split, index: int, place: tuple[int, int]) -> None:
    """Bring one shard to the staging folder, checked.

    One that is there already was checked before. `place`: its number, from 0, and the number of all
    shards.
    """
    target = shard_path(download.staging, split, index)
    if target.exists():
        return
    done, total = place
    name = f"fineweb_{split}_{index:06d}.bin"
    text = f"{name} ({done + 1} of {total})"
    low, high = 0.9 * done / total, 0.9 * (done + 1) / total
    path = f"{ROOT}/datasets/{download.variant.dataset}/{name}"

    def more(received: int, n_bytes: int) -> None:
        download.progress(low + (high - low) * received / max(n_bytes, 1), text)

    download.progress(low, text)
    local = download.repository.fetch(path, download.folder, max_bytes=MAX_SHARD_BYTES, progress=more)
    try:
        read_tokens(local, download.variant.vocab_size)
    except UsageError:
        local.unlink()  # the hub's file is no shard: another call must not find it here and resume
        raise
    local.rename(target)


def _check_validation(variant: Variant, validation: list[Path]) -> None:
    found = sum(read_header(path) for path in validation)
    if variant.validation_tokens is not None and found != variant.validation_tokens:
        raise UsageError(
            f"fineweb {variant.name}: validation tokens: expected {variant.validation_tokens:,}, found "
            f"{found:,}",
            hint="this is not the official validation split (another build of the data?): use another "
            "--revision",
        )


def _fill(download: _Download, shards: int | None) -> None:
    """Fetch everything into the staging folder and write dataset.json."""
    variant, repository, staging = download.variant, download.repository, download.staging
    remove_strays(download.folder)
    for partial in staging.glob(".*"):
        partial.unlink()  # a file that a killed call was writing
    stats = _stats(repository, variant, download.folder)
    wanted = stats.files_train if shards is None else shards
    if not 0 < wanted <= stats.files_train:
        raise UsageError(
            f"--shards {wanted}: expected 1 to {stats.files_train}",
            hint=f"{variant.dataset} has {stats.files_train} train shards",
        )
    model = repository.fetch(
        f"{ROOT}/tokenizers/{variant.tokenizer}",
        download.folder,
        max_bytes=MAX_MODEL_BYTES,
        sha256=variant.tokenizer_sha256,
    )
    model.replace(staging / TOKENIZER_NAME)
    total = stats.files_val + wanted
    for index in range(stats.files_val):
        _fetch_shard(download, "val", index, (index, total))
    _check_validation(variant, shard_paths(staging, "val"))
    for index in range(wanted):
        _fetch_shard(download, "train", index, (stats.files_val + index, total))
    shutil.rmtree(download.folder)
    for stray in shard_paths(staging, "train")[wanted:]:
        stray.unlink()  # left by an interrupted call that wanted more shards
    source = {
        "text": "FineWeb, ODC-By 1.0",
        "repository": repository.name,
        "revision": repository.revision,
        "dataset": variant.dataset,
        "train_shards_published": stats.files_train,
    }
    finish(
        staging,
        f"fineweb-{variant.name}",
        source,
        progress=lambda share, what: download.progress(0.9 + 0.1 * share, what),
    )


def _there_already(folder: Path, repository: Repository, shards: int | None) -> Dataset | None:
    """The dataset in `folder`, if it is the one asked for; None if nothing is there. Raises UsageError."""
    if not (folder.exists() or folder.is_symlink()):
        return None
    if (folder / MANIFEST).exists():
        dataset = Dataset.open(folder)
        source = dataset.source
        asked = (repository.name, repository.revision, shards or source.get("train_shards_published"))
        if asked == (source.get("repository"), source.get("revision"), len(dataset.train)):
            return dataset
    raise UsageError(
        f"{folder}: exists already, and is not the dataset asked for",
        hint="`pgolf data verify` says what it is; remove it, or choose another folder with --out",
    )


def _remove_other_downloads(folder: Path) -> None:
    """Remove what interrupted calls with other revisions left beside the finished dataset."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{12}}\.download")
    for path in folder.parent.iterdir():
        if pattern.fullmatch(path.name):
            shutil.rmtree(path)


def prepare(
    variant: Variant,
    folder: Path | None = None,
    *,
    shards: int | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Prepared:
    """Fetch `shards` train shards (default: all) and the whole validation split into `folder`, unless it has
    them already.

    Raises UsageError for options or files that cannot be used, MachineFault for a failed download or
    write.
    """
    folder = (folder or default_folder(variant)).absolute()
    repository = Repository(variant.repository, _revision(variant, revision), endpoint)
    if not COMMIT.fullmatch(repository.revision):
        repository.revision = repository.metadata(f"{ROOT}/manifest.json").commit
    if (dataset := _there_already(folder, repository, shards)) is not None:
        return Prepared(dataset, made=False)
    with locked(folder):
        if (dataset := _there_already(folder, repository, shards)) is not None:
            return Prepared(dataset, made=False)  # by the process that was waited for
        staging = folder.with_name(f".{folder.name}.{repository.revision[:12]}.download")
        try:
            staging.mkdir(parents=True, exist_ok=True)
            _fill(_Download(variant, repository, staging, progress), shards)
            staging.rename(folder)
            _remove_other_downloads(folder)
        except OSError as error:
            raise disk.machine_fault(error, staging, f"{folder}: cannot be written") from error
    return Prepared(Dataset.open(folder), made=True)
