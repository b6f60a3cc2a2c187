"""YAML as hostile input: plain data comes out, or an error that names the file and the line, and soon."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from harness.base import strict_yaml
from harness.base.errors import UsageError


def read(folder: Path, text: str | bytes) -> Any:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return strict_yaml.load(path)


def refused(folder: Path, text: str | bytes, match: str) -> None:
    begun = time.process_time()
    with pytest.raises(UsageError, match=match) as caught:
        read(folder, text)
    assert time.process_time() - begun < 5
    assert "file.yaml" in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 1000


def test_plain_data_is_read_as_the_safe_loader_reads_it(tmp_path: Path) -> None:
    text = (
        "a: 1\nb: [1.5, true, null, 'x', \"y\\n\"]\nc:\n  d: {e: f}\n  g: |\n    two\n    lines\n1337: 1.1\n"
    )
    assert read(tmp_path, text) == yaml.safe_load(text)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (BOMB, r"file.yaml:2:8: alias \*a is not allowed"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", r"file.yaml:3:7: alias \*x"),
        ("&a [*a]", r"alias \*a"),
    ],
)
def test_aliases_are_refused_where_they_stand_before_anything_grows(
    tmp_path: Path, text: str, match: str
) -> None:
    refused(tmp_path, text, match)


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3\n", "{a: 1, 'a': 2}", "x:\n  - y: 1\n    y: 2\n", "1: a\n0x1: b\n", "1: a\ntrue: b\n"],
)
def test_a_key_that_appears_twice_is_refused_at_any_depth(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, r"file.yaml:\d+:\d+: key '.*' appears twice")


@pytest.mark.parametrize(
    "text", ["? [1, 2]\n: x\n", "? {a: 1}\n: x\n", "1.5: x\n", "null: x\n", "2020-01-01: x\n"]
)
def test_keys_that_are_no_text_or_integer_are_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, "must be text")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 400 + "]" * 400,
        "{a: " * 50_000,
        "- " * 1000 + "x",
        "\n".join(" " * level + "a:" for level in range(500)),
    ],
)
def test_deep_nesting_is_refused_before_anything_recurses(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, f"nested deeper than {strict_yaml.MAX_DEPTH} levels")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "a: !custom 1",
        "!!python/object:harness.base.errors.UsageError {}",
        "a: {<<: {b: 1}}",
    ],
)
def test_tags_construct_nothing(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, "could not determine a constructor")


@pytest.mark.parametrize(
    "number",
    [
        "9" * 5000,
        "1" + ":59" * 300_000,
        "1" + ":59" * 400 + ".5",
        "0x" + "f" * 900_000,
        "-" + "7" * 65,
        "0." + "3" * 1000,
    ],
)
def test_numbers_of_absurd_length_are_refused_at_once(tmp_path: Path, number: str) -> None:
    refused(tmp_path, f"a: {number}\n", r"file.yaml:1:4: a number of \d+ characters")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"a: \xff\n", "not UTF-8 at byte 3"),
        (b"\xff\xfea\0:\0 \0001\0", "not UTF-8"),
        ("a: \x00\n", "not valid YAML"),
        ("a: [1\n", "file.yaml:2:1"),
        ("a: 1\n b: 2\n", "file.yaml:2:"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: 2020-13-45\n", "not valid YAML"),
        ("a: \x1b[2J\n", "not valid YAML"),
        ("\t- x", "file.yaml:1:1"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(tmp_path: Path, text: str | bytes, match: str) -> None:
    refused(tmp_path, text, match)


def test_a_file_at_the_cap_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    text = "a: " + "x" * (strict_yaml.MAX_BYTES - 3)
    assert len(read(tmp_path, text)["a"]) == strict_yaml.MAX_BYTES - 3
    refused(tmp_path, text + "x", "larger than 1048576 bytes")


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, match in (
        ("fifo", "not a regular file"),
        ("endless", "not a regular file"),
        (".", "not a regular file"),
        ("absent", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=match):
            strict_yaml.load(tmp_path / name)


pieces = st.lists(
    st.sampled_from([*"a:-[]{},'\"&*!|>?#%@`1.~=é \n\t", "!!", "<<", "---", "...", "\\x", "0x", ": "]),
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces.map("".join).map(str.encode) | st.binary(max_size=60))
def test_arbitrary_text_is_data_or_an_error_for_people_and_nothing_else(tmp_path: Path, raw: bytes) -> None:
    try:
        data = read(tmp_path, raw)
    except UsageError:
        return
    assert data == yaml.safe_load(raw.decode())
