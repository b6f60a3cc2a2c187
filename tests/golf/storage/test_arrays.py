"""The array file: round trips, and a ValueError for every malformed or damaged file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from golf.runtime import strict_json
from golf.storage import arrays

HEADER = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ).filter(lambda value: _depth(value) <= 5),
    max_size=4,
)
ARRAYS = st.dictionaries(
    st.from_regex(arrays.NAME, fullmatch=True),
    st.sampled_from(sorted(arrays.DTYPES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5))
    ),
    max_size=5,
)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def _sample() -> bytes:
    return arrays.to_bytes(
        {"schema": 1, "name": "x"},
        {
            "a": np.arange(5, dtype=np.int8),
            "b.weight": np.ones((2, 3), np.float32),
            "c": np.float16(2.5).reshape(()),
        },
    )


def _forge(text: bytes, body: bytes = b"") -> bytes:
    """A file with a valid digest around any header, as an attacker who knows the format can write it."""
    prefix = arrays._PREFIX.pack(arrays.MAGIC, arrays.VERSION, len(text), bytes(arrays.DIGEST_BYTES))
    digest = arrays._digest(prefix, text + body)
    return arrays._PREFIX.pack(arrays.MAGIC, arrays.VERSION, len(text), digest) + text + body


@settings(deadline=None, max_examples=60)
@given(header=HEADER, content=ARRAYS)
def test_what_is_written_is_read_back_byte_for_byte(header, content):
    data = arrays.to_bytes(header, content)
    header_again, content_again = arrays.from_bytes(data)
    assert header_again == header
    assert _same(content, content_again)
    assert arrays.to_bytes(header_again, content_again) == data


@settings(deadline=None, max_examples=60)
@given(length=st.integers(0, len(_sample()) - 1))
def test_every_truncation_is_an_error(length):
    with pytest.raises(ValueError):
        arrays.from_bytes(_sample()[:length])


@settings(deadline=None, max_examples=200)
@given(bit=st.integers(0, 8 * len(_sample()) - 1))
def test_every_flipped_bit_is_an_error(bit):
    data = bytearray(_sample())
    data[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ValueError):
        arrays.from_bytes(bytes(data))


@settings(deadline=None, max_examples=100)
@given(garbage=st.binary(max_size=300), keep=st.integers(0, len(_sample())))
def test_garbage_is_an_error_even_after_a_valid_beginning(garbage, keep):
    data = _sample()[:keep] + garbage
    if data != _sample():
        with pytest.raises(ValueError):
            arrays.from_bytes(data)


@settings(deadline=None, max_examples=100)
@given(text=st.binary(max_size=120) | HEADER.map(strict_json.dumps), body=st.binary(max_size=40))
def test_a_forged_header_with_a_valid_digest_is_an_error(text, body):
    with pytest.raises(ValueError):
        arrays.from_bytes(_forge(text, body))


@pytest.mark.parametrize(
    ("entries", "body", "message"),
    [
        ('["a","int8",[4]],["a","int8",[4]]', 20, "twice"),
        ('["a","object",[1]]', 8, "dtype"),
        ('["a","int8",[true]]', 1, "whole number"),
        ('["a","int8",[-1]]', 1, "whole number"),
        ('["a","int8",[0]]', 0, "whole number"),
        ('["a","int8",[4294967296,4294967296,4294967296,4294967296]]', 8, "declares"),
        ('["a","int8",[1,1,1,1,1]]', 1, "at most 4 sizes"),
        ('["../a","int8",[1]]', 1, "name"),
        ('["a\\u0000","int8",[1]]', 1, "name"),
        ('["a","int8",[1e2]]', 100, "whole number"),
        ('["a","int8"]', 1, "is not [name, dtype, shape]"),
        ('["a","int8",[1]],' * 5000 + '["b","int8",[1]]', 1, "at most 4096"),
    ],
)
def test_hostile_headers_raise_an_error_with_the_reason(entries, body, message):
    text = ('{"arrays":[' + entries + '],"header":{}}').encode()
    pad = -(arrays._PREFIX.size + len(text)) % arrays.ALIGN
    with pytest.raises(ValueError, match="(?s)" + message.replace("[", r"\[")):
        arrays.from_bytes(_forge(text, bytes(pad + body)))


def test_padding_must_be_zero():
    text = b'{"arrays":[["a","int8",[1]]],"header":{}}'
    pad = -(arrays._PREFIX.size + len(text)) % arrays.ALIGN
    assert pad
    arrays.from_bytes(_forge(text, bytes(pad) + b"x"))
    with pytest.raises(ValueError, match="not zero"):
        arrays.from_bytes(_forge(text, b"\1" * pad + b"x"))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"arrays":[],"header":{"x":' + b"9" * 5000 + b"}}",
        b'{"a":1,"a":1}',
        b'{"arrays":[],"header":{"x":NaN}}',
        b'{"arrays":[],"header":{"x":1e999}}',
        b"\xff\xfe",
        b'"\\ud800"',
    ],
)
def test_json_that_parsers_disagree_on_is_an_error(text):
    with pytest.raises(ValueError):
        arrays.from_bytes(_forge(text))


def test_a_header_longer_than_the_file_or_the_limit_is_refused_before_it_is_read():
    for n_header in (1 << 20, (1 << 32) - 1):
        data = struct.pack("<8sHI8s", arrays.MAGIC, arrays.VERSION, n_header, b"") + bytes(100)
        with pytest.raises(ValueError, match="header of"):
            arrays.from_bytes(data)


def test_what_cannot_be_read_back_cannot_be_written():
    for header, content in [
        ({"x": float("nan")}, {}),
        ({"x": object()}, {}),
        ({}, {"bad name": np.zeros(1)}),
        ({}, {"a": np.zeros(0)}),
        ({}, {"a": np.zeros(1, bool)}),
        ({}, {"a": np.array(["x"], object)}),
        ({}, {"a": np.zeros((1, 1, 1, 1, 1))}),
    ]:
        with pytest.raises(ValueError):
            arrays.to_bytes(header, content)


def test_files_are_mapped_read_only_and_written_atomically(tmp_path: Path):
    path = tmp_path / "w.bin"
    big_endian = np.arange(6, dtype=">i4").reshape(2, 3).T
    arrays.write(path, {"n": 1}, {"w": big_endian})
    arrays.write(path, {"n": 2}, {"w": big_endian})
    header, content = arrays.read(path)
    assert header == {"n": 2}
    assert np.array_equal(content["w"], big_endian)
    assert not content["w"].flags.writeable
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.bin"]
    with pytest.raises(ValueError, match=r"w\.bin.*no plain file"):
        arrays.read(path, max_bytes=10)


def test_a_failed_write_leaves_the_old_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "w.bin"
    arrays.write(path, {"n": 1}, {})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        arrays.write(path, {"n": 2}, {})
    assert arrays.read(path)[0] == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.bin"]


def test_links_pipes_folders_and_missing_files_are_errors_and_do_not_block(tmp_path: Path):
    arrays.write(tmp_path / "w.bin", {}, {})
    (tmp_path / "link").symlink_to(tmp_path / "w.bin")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name in ("link", "pipe", "empty", "absent", "."):
        with pytest.raises(ValueError):
            arrays.read(tmp_path / name)
