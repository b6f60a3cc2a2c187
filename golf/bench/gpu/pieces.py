"""Folders as archives in pieces: what comes back from the machine is limited in files and in bytes a file.

`pack` compresses a folder into NAME.000, NAME.001, ...; `unpack` joins the pieces of a folder again. A folder
that needs more pieces than may come back is not packed at all, since a part of an archive is of no use.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Literal

from golf.bench.gpu.results import Failed, Found, Skipped

PIECE_BYTES = 15_000_000
"""Below the limit of 16 MiB a file."""
MOST_PIECES = 4
PRESET: Literal[1] = 1
"""LZMA's fastest: 5 s for 100 MB."""


def pack(source: Path, folder: Path, name: str, most: int = MOST_PIECES, size: int = PIECE_BYTES) -> Found:
    """Pack `source` into pieces in `folder`, in place of an earlier call's.

    Raises Failed if there are too many, Skipped for no source; then `folder` has none.
    """
    for old in _pieces(folder, name):
        old.unlink()
    if not source.is_dir():
        raise Skipped(f"there is no folder {source}")
    whole = io.BytesIO()
    with tarfile.open(None, "w:xz", whole, preset=PRESET) as archive:
        archive.add(source, arcname=source.name)
    content = whole.getvalue()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    if len(pieces) > most:
        raise Failed(f"{source.name}: {len(content):,} bytes packed, and {most * size:,} may come back")
    for number, piece in enumerate(pieces):
        (folder / f"{name}.{number:03d}").write_bytes(piece)
    return Found(f"{len(content):,} bytes in {len(pieces)} files", {"bytes": len(content)})


def _pieces(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}.[0-9][0-9][0-9]"))


def unpack(folder: Path, name: str, target: Path) -> Found:
    """Unpack the pieces NAME.* of a folder under `target`. Raises Skipped if there are none."""
    found = _pieces(folder, name)
    if not found:
        raise Skipped(f"{folder} holds no {name}.000; copy the pieces of the first call there")
    content = b"".join(piece.read_bytes() for piece in found)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # new in Python 3.11.4
        archive.extractall(target)
    return Found(f"{len(content):,} bytes from {len(found)} files")
