"""Write arrays to .npz files atomically, and read them within bounds and without unpickling."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import UsageError
from harness.base.files import write_bytes

MAX_ARRAYS_BYTES = 1 << 28
"""Limit of one .npz, unpacked: enough for ten million documents."""


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, compress: bool = False) -> None:
    """Write named arrays as one .npz file, atomically."""
    packed = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(packed, allow_pickle=False, **arrays)
    write_bytes(path, packed.getvalue())


def read_arrays(path: Path, *names: str) -> tuple[npt.NDArray[Any], ...]:
    """The named arrays of an .npz file, which anybody may have changed.

    Raises UsageError for a file that is damaged, unpacks to more than MAX_ARRAYS_BYTES or lacks a name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARRAYS_BYTES:
                raise ValueError(f"unpacks to more than {MAX_ARRAYS_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as stored:
            return tuple(np.asarray(stored[name]) for name in names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"{path}: cannot be read ({error})",
            hint="the file was changed after the run; `pgolf run --again` runs the seed anew",
        ) from error
