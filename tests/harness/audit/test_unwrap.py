"""Packed code: every packing of public wrappers is undone within limits, and the rest is reported."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import resource
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from harness.audit.audit import audit_folder
from harness.audit.unwrap import MAX_BYTES, MAX_DEPTH, MAX_MEMBERS, archived, unwrapped
from harness.run.bundle_archive import Contents, pack

WORDS = random.Random(0)
SOURCE = "import torch\n" + "".join(
    f"x{WORDS.getrandbits(40)} = {WORDS.getrandbits(60)}\n" for _ in range(200)
)
RAW = [{"id": lzma.FILTER_LZMA2, "preset": 9}]


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lzma.compress,
    "lzma raw": lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=RAW),
    "lzma alone": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "deflate": deflated,
    "bz2": bz2.compress,
    "brotli": brotli.compress,
    "nothing": bytes,
}
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "b85": base64.b85encode,
    "b64": base64.b64encode,
    "a85": base64.a85encode,
}


def wrapper(source: str, packer: str = "lzma", coder: str = "b85") -> str:
    return f"exec(unpack(decode({CODERS[coder](PACKERS[packer](source.encode())).decode()!r})))\n"


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("packer", PACKERS)
def test_every_packing_is_undone(packer: str, coder: str) -> None:
    assert [packed.text for packed in unwrapped(wrapper(SOURCE, packer, coder))] == [SOURCE]


def test_bytes_literals_and_literals_over_several_lines_are_undone() -> None:
    data = zlib.compress(SOURCE.encode())
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    for source in (
        f"exec(zlib.decompress({data!r}))",
        f"exec(unpack('''\n{lines}\n'''))",
        "exec(unpack(" + "\n".join(repr(line) for line in lines.split()) + "))",
    ):
        assert [packed.text for packed in unwrapped(source)] == [SOURCE]


def test_wrappers_in_wrappers_are_undone_to_a_depth_that_is_said() -> None:
    source = SOURCE
    for _ in range(MAX_DEPTH + 2):
        source = wrapper(source, "zlib", "b64")
    found = list(unwrapped(source))
    assert [packed.text is None for packed in found] == [False] * MAX_DEPTH + [True]
    assert f"more than {MAX_DEPTH} times" in found[-1].reason


def test_long_docstrings_before_the_packed_code_hide_nothing() -> None:
    prose = "".join(f"note{number} = '''{'many words of prose ' * 60}'''\n" for number in range(40))
    assert [packed.text for packed in unwrapped(prose + wrapper(SOURCE))] == [SOURCE]


@pytest.mark.parametrize("packer", [packer for packer in PACKERS if packer != "nothing"])
def test_a_bomb_ends_at_the_limit_and_is_said(packer: str, tmp_path: Path) -> None:
    bomb = wrapper(SOURCE + "#" * 20_000_000, packer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = list(unwrapped(bomb))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # kB: the 64 MiB window of lzma, a few copies
    assert [(packed.text, f"more than {MAX_BYTES:,} bytes" in packed.reason) for packed in found] == [
        (None, True)
    ]
    (tmp_path / "train_gpt.py").write_text(bomb)
    assert {
        finding["rule"] for finding in audit_folder(tmp_path)["findings"] if finding["outcome"] != "unknown"
    } == set()
    assert any("2,000,000" in finding["message"] for finding in audit_folder(tmp_path)["findings"])


def test_code_that_is_run_and_cannot_be_unpacked_is_unknown_not_silence(tmp_path: Path) -> None:
    secret = bytes(byte ^ 0x5A for byte in zlib.compress(SOURCE.encode()))
    (tmp_path / "train_gpt.py").write_text(
        f"exec(unlock({base64.b85encode(secret).decode()!r}))\n" + wrapper(SOURCE)
    )
    (tmp_path / "other_train.py").write_text(f"exec(unlock({base64.b85encode(secret).decode()!r}))\n")
    (tmp_path / "README.md").write_text("x")
    found = [finding for finding in audit_folder(tmp_path)["findings"] if finding["rule"] == "unread-code"]
    assert [finding["outcome"] for finding in found] == ["unknown"]
    assert "other_train.py runs code" in found[0]["message"]


def test_packed_text_that_is_no_code_is_left_alone() -> None:
    for text in ("just prose, packed " * 100, "0123456789" * 100):
        assert list(unwrapped(wrapper(text))) == []


def zipped(**members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.py", text)
    return content.getvalue()


def test_an_archive_is_read_within_limits_and_its_directory_is_not_believed() -> None:
    assert list(archived(zipped(a="import a", b="b"))) == [("a.py", "import a"), ("b.py", "b")]
    for broken in (
        b"",
        b"PK",
        zipped(a="x" * 1000)[:-9],
        zipped(bomb="#" * (MAX_BYTES + 1)),
        zipped(**{f"m{number}": "" for number in range(MAX_MEMBERS + 1)}),
    ):
        with pytest.raises(ValueError):
            list(archived(broken))


BUNDLE = Contents(b"import p.__main__\n", {"p/__main__.py": b"import os\n", "p/work.py": b"x = 1\n"})


def test_the_sources_in_the_stream_of_a_code_bundle_are_read() -> None:
    assert [name for name, _ in archived(pack(BUNDLE))] == ["__main__.py", "p/__main__.py", "p/work.py"]
    assert dict(archived(pack(BUNDLE)))["p/__main__.py"] == "import os\n"


def test_a_bundle_beyond_the_limits_or_with_more_beside_its_stream_is_not_read() -> None:
    large = pack(Contents(b"", {"p.py": b"#" * (MAX_BYTES + 1)}))
    many = pack(Contents(b"", {f"m{number}.py": b"" for number in range(MAX_MEMBERS)}))
    shadowed = io.BytesIO(pack(BUNDLE))
    with zipfile.ZipFile(shadowed, "a") as archive:
        archive.writestr("p/work.py", "import requests\n")
    for hostile in (large, many, shadowed.getvalue()):
        with pytest.raises(ValueError):
            list(archived(hostile))
