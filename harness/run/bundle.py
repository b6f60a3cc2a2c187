"""Build code.pyz, the contestant's code: the bytes that are counted are the bytes that run in every stage.

It holds the static import closure of the contestant's package from its entry point
(harness/run/import_closure.py), without docstrings and comments (blank.py), as one compressed stream
(bundle_archive.py) that a short program imports from (bundle_finder.py). Nothing else is left out: training
code counts too. A run keeps the sources as they were written beside it, and `require_source` shows that the
counted form comes from them.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from harness.base import files
from harness.base.errors import UsageError
from harness.run import bundle_archive
from harness.run.blank import blanked
from harness.run.bundle_archive import EPOCH, MAX_BYTES, Contents
from harness.run.import_closure import sources_of

FINDER = Path(__file__).with_name("bundle_finder.py")
ENTRY = """

if __name__ == "__main__":
    install()
    from {}.__main__ import main

    raise SystemExit(main())
"""


class Bundle(NamedTuple):
    """The counted archive, the sources as written, and the digest of what is in the archive."""

    pyz: bytes
    source_zip: bytes
    """Not counted: what the archive's sources were before blanking, for people to read."""
    sha256: str
    modules: tuple[str, ...]


def build(package: Path) -> Bundle:
    """The bundle of the package in the folder `package`, whose name is the import name.

    Raises UsageError for a file that cannot be parsed, for an import of a module that the package lacks, and
    for a package beyond the limits of bundle_archive.py.
    """
    sources = sources_of(package)
    program = FINDER.read_bytes() + ENTRY.format(package.name).encode()
    contents = Contents(blanked(program), _blanked(sources, package.parent))
    pyz = bundle_archive.pack(contents)
    try:
        bundle_archive.unpack(pyz)
    except ValueError as error:
        raise UsageError(
            f"{package}: cannot be bundled: {error}", hint="harness/run/bundle_archive.py has the limits"
        ) from error
    return Bundle(pyz, _zipped(sources), contents.digest(), tuple(sorted(sources)))


def read(pyz: Path) -> Contents:
    """The contents of a bundle on disk. Raises UsageError for a file that is none."""
    try:
        return bundle_archive.unpack(files.read_bounded(pyz, bundle_archive.MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{pyz}: not a code bundle ({error})",
            hint="it was changed or damaged, or an earlier version wrote it: `pgolf run` makes a new run",
        ) from error


def require_source(source: Path, contents: Contents) -> None:
    """Raises UsageError unless blanking the sources in `source` gives exactly the contents' sources."""
    try:
        written = _unzipped(files.read_bounded(source, MAX_BYTES), contents.sources)
        found = _blanked(written, source)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise UsageError(
            f"{source}: the sources of the run cannot be read ({error})",
            hint="the file was changed or damaged: restore it",
        ) from error
    for name, text in contents.sources.items():
        if found[name] != text:
            raise UsageError(
                f"{source}: {name} without docstrings and comments is not what code.pyz holds",
                hint="the file was changed after the run",
            )


def _blanked(sources: dict[str, bytes], place: Path) -> dict[str, bytes]:
    """The sources without docstrings and comments. Raises UsageError that names one that does not parse."""
    found = {}
    for name, text in sources.items():
        try:
            found[name] = blanked(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
            raise UsageError(
                f"{place / name}: {error}", hint="only files of limited size that parse are bundled"
            ) from error
    return found


def _zipped(sources: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, text in sorted(sources.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _unzipped(data: bytes, names: Collection[str]) -> dict[str, bytes]:
    """The members of a zip archive, at most MAX_BYTES. Raises ValueError where the names are others."""
    found, left = {}, MAX_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sorted(archive.namelist()) != sorted(names):
            raise ValueError("its names are not those of code.pyz")
        if any(member.compress_type != zipfile.ZIP_DEFLATED for member in archive.infolist()):
            raise ValueError("a member is not deflated")  # the others are not read within a bound
        for name in names:
            with archive.open(name) as member:
                found[name] = member.read(left + 1)  # the sizes in the directory are the packer's claim
            left -= len(found[name])
            if left < 0:
                raise ValueError(f"its sources are more than {MAX_BYTES:,} bytes")
    return found
