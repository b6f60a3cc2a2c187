"""Reading code.pyz: what was packed comes back, and nothing else is accepted, whatever a stranger sends."""

from __future__ import annotations

import io
import lzma
import random
import zipfile
from pathlib import Path

import pytest

from harness.base.errors import UsageError
from harness.run import bundle, bundle_archive
from harness.run.bundle_archive import MAX_BYTES, MAX_SOURCES, PROGRAM, STREAM, Contents, pack, unpack

CONTENTS = Contents(
    b"print('hello')\n",
    {"p/__init__.py": b"", "p/__main__.py": b"x = 1\n" * 50, "p/q/r_2.py": "é = '\n'".encode()},
)


def stream(*fields: bytes) -> bytes:
    return lzma.compress(b"\0".join(fields), lzma.FORMAT_ALONE)


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def laid_out(packed: bytes) -> bytes:
    """A code bundle around a stream, laid out as `pack` does."""
    return bundle_archive.stored({PROGRAM: b"", STREAM: packed})


def test_what_was_packed_comes_back() -> None:
    assert unpack(pack(CONTENTS)) == CONTENTS
    assert unpack(pack(CONTENTS)).digest() == CONTENTS.digest()


def test_the_digest_covers_contents_and_not_the_compressors_choices() -> None:
    fields = [field for name, text in CONTENTS.sources.items() for field in (name.encode(), text)]
    otherwise = lzma.compress(b"\0".join(fields), lzma.FORMAT_ALONE, preset=0)
    other = bundle_archive.stored({PROGRAM: CONTENTS.program, STREAM: otherwise})
    assert other != pack(CONTENTS)
    assert unpack(other).digest() == CONTENTS.digest()


def test_the_digest_changes_with_every_name_source_and_the_program() -> None:
    sources = CONTENTS.sources
    changed = [
        Contents(b"print('bye')\n", sources),
        Contents(CONTENTS.program, {**sources, "p/__init__.py": b"\n"}),
        Contents(CONTENTS.program, {**sources, "p/more.py": b""}),
        Contents(CONTENTS.program, {name.replace("r_2", "r_3"): text for name, text in sources.items()}),
    ]
    assert len({CONTENTS.digest(), *(each.digest() for each in changed)}) == 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no zip archive"),
        (b"PK", "no zip archive"),
        (pack(CONTENTS)[:-1], "no zip archive"),
        (pack(CONTENTS) + b"\n", "it holds more"),
        (b"#!/bin/sh\n" + pack(CONTENTS), "it holds more"),
        (archive((PROGRAM, b""), (STREAM, stream(b"p.py", b""))), "another layout"),
        (archive((PROGRAM, b"x = 1\n")), "expected the members"),
        (archive((PROGRAM, b""), (STREAM, b""), ("p.py", b"")), "expected the members"),
        (archive((PROGRAM, b"x" * 99), (STREAM, b"x" * 99), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (bytes(bundle_archive.MAX_FILE_BYTES + 1), "expected at most 16,000,000"),
        (laid_out(b""), "its end is missing"),
        (laid_out(b"no stream"), STREAM),
        (laid_out(lzma.compress(b"p.py\0")), STREAM),
        (laid_out(stream(b"p.py", b"")[:-3]), "its end is missing"),
        (laid_out(stream(b"p.py", b"") + b"x"), "something follows"),
        (laid_out(stream(b"p.py")), "expected pairs"),
        (laid_out(stream(b"b.py", b"", b"a.py", b"")), "ascending"),
        (laid_out(stream(b"a.py", b"", b"a.py", b"")), "ascending"),
        (laid_out(stream(b"x" * (MAX_BYTES + 1))), "unpacks to more"),
        (laid_out(stream(*[b""] * (2 * MAX_SOURCES + 2))), "more than 2,000 sources"),
        *(
            (laid_out(stream(name, b"")), "is not the path of a module")
            for name in (
                b"",
                b"p",
                b"/p.py",
                b"../p.py",
                b"p//q.py",
                b"p/q.pyc",
                b"p\\q.py",
                b"1.py",
                b"p.py\n",
                b"\xff.py",
                "é.py".encode(),
                b"p" * 300 + b".py",
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_pack_does_not_write_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(data)


def test_a_stream_that_asks_for_much_memory_is_refused() -> None:
    asks = bytearray(stream(b"p.py", b""))
    asks[1:5] = (1 << 30).to_bytes(4, "little")  # the header's size of the dictionary
    with pytest.raises(ValueError, match=r"[Mm]emory"):
        unpack(laid_out(bytes(asks)))


def test_damaged_bundles_are_refused_or_read_but_never_fail_otherwise() -> None:
    whole, chance = pack(CONTENTS), random.Random(1)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            unpack(bytes(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))]))
        except ValueError:
            pass


def test_a_file_that_is_no_bundle_is_refused_with_its_path(tmp_path: Path) -> None:
    for content in (b"", b"PK", archive(("__main__.py", b"x = 1\n"))):
        (tmp_path / "code.pyz").write_bytes(content)
        with pytest.raises(UsageError, match=r"code\.pyz: not a code bundle"):
            bundle.read(tmp_path / "code.pyz")
    (tmp_path / "code.pyz").unlink()
    (tmp_path / "code.pyz").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="regular file"):
        bundle.read(tmp_path / "code.pyz")
