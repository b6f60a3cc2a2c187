"""YAML as hostile input: plain data comes out, or an error that names the file and the line, and soon."""

from __future__ import annotations

import gzip
import os
import re
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
    "text", ["a: 1\nb: 2\na: 3\n", "{a: 1, 'a': 2}", "x:\n  - y: 1\n    y: 2\n", "1: a\n1: b\n"]
)
def test_a_key_that_appears_twice_is_refused_at_any_depth(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, r"file.yaml:\d+:\d+: key '.*' appears twice")


@pytest.mark.parametrize("text", ["? [1, 2]\n: x\n", "? {a: 1}\n: x\n", "1.5: x\n", "null: x\n", "true: x\n"])
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
        "a: !!int 042",
        "a: !!bool 'yes'",
        "a: ! 12",
        "!!set {a, b}",
        "!!omap [a: 1]",
    ],
)
def test_tags_construct_nothing(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, r"file.yaml:1:\d: tag .* is not allowed: write the value alone")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-12", -12),
        ("1.50", 1.5),
        ("1e-3", 0.001),
        ("2E+2", 200.0),
        ("-0.0", 0.0),
        ("9" * 20, 99999999999999999999),
        ("true", True),
        ("false", False),
        ("null", None),
        ("'042'", "042"),
        ('"yes"', "yes"),
        ("1.2.3", "1.2.3"),
        ("2026-05", "2026-05"),
        ("12 layers", "12 layers"),
        ("y", "y"),
        ("Norway", "Norway"),
        ("Nan", "Nan"),
        ("infinity", "infinity"),
    ],
)
def test_an_unquoted_value_is_what_json_says_or_text(tmp_path: Path, text: str, value: Any) -> None:
    assert read(tmp_path, f"a: {text}\n") == {"a": value}
    assert type(read(tmp_path, f"a: {text}\n")["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("042", '042: write 42, or "042" for text'),
        ("-007", "write -7, or"),
        ("0x10", "write 16, or"),
        ("0b11", "write 3, or"),
        ("0o17", "write 15, or"),
        ("1_000", "write 1000, or"),
        (".5", "write 0.5, or"),
        ("1.", "write 1.0, or"),
        ("+1", "write 1, or"),
        ("+1e3", "write 1000.0, or"),
        ("1:30", 'disagree about 1:30: write "1:30" for text'),
        (".inf", 'write ".inf" for text'),
        ("-.Inf", 'write "-.Inf" for text'),
        (".nan", 'write ".nan" for text'),
        ("yes", 'write true, or "yes" for text'),
        ("On", "write true, or"),
        ("no", "write false, or"),
        ("off", "write false, or"),
        ("True", "write true, or"),
        ("FALSE", "write false, or"),
        ("~", 'write null, or "~" for text'),
        ("Null", "write null, or"),
        ("", 'an empty value: write null, or ""'),
        ("2026-01-01", 'write "2026-01-01" for text'),
        ("2020-13-45", 'write "2020-13-45" for text'),
        ("=", 'write "=" for text'),
        ("<<", 'write "<<" for text'),
        ("1e999", "1e999 is too large for a number"),
        ("9" * 21, "a number of 21 digits: at most 20"),
    ],
)
@pytest.mark.parametrize(
    "layout", ["a: {}\n", "a:\n- x\n- {}\n", "? {}\n: x\n"], ids=["value", "item", "key"]
)
def test_a_value_that_yaml_readers_disagree_about_is_refused_with_what_to_write(
    tmp_path: Path, text: str, write: str, layout: str
) -> None:
    refused(tmp_path, layout.format(text), r"file.yaml:\d:\d: .*" + re.escape(write))


def test_every_ambiguous_value_and_repeated_key_is_shown_on_a_line_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "a: 042\nb:\n  - yes\n  - 1\na: 0x10\n")
    places = [line.split("file.yaml:")[1].split(": ")[0] for line in caught.value.message.splitlines()]
    assert places == ["1:4", "3:5", "5:1", "5:4"]


def test_many_mistakes_are_cut_off_and_counted(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "- 042\n" * 50)
    lines = caught.value.message.splitlines()
    assert len(lines) == strict_yaml.MAX_PROBLEMS + 1
    assert lines[-1].endswith("30 more mistakes are not shown")


def test_a_document_knows_where_every_key_and_value_stands(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\nb:\n  7: [x, {c: d}]\n")
    document = strict_yaml.read(path)
    assert document.data == {"a": 1, "b": {7: ["x", {"c": "d"}]}}
    assert document.keys["b", 7] == (3, 3)
    assert document.values["b", 7] == (3, 6)
    assert document.values["b", 7, 0] == (3, 7)
    assert document.keys["b", 7, 1, "c"] == (3, 11)
    assert document.values[()] == (1, 1)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\xef\xbb\xbfa: 1\n", "starts with a byte order mark: save it as UTF-8 without one"),
        (gzip.compress(b"a: 1\n", mtime=0), "is gzip: unpack it first"),
        ("a: 1\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_plain_text_is_called_what_it_is(tmp_path: Path, raw: bytes, says: str) -> None:
    refused(tmp_path, raw, "file.yaml: " + says)


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
    refused(tmp_path, f"a: {number}\n", r"file.yaml:1:4: a number of [\d,]+ (characters|digits)")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"a: \xff\n", "not UTF-8 at byte 3"),
        ("a: \x00\n", "not valid YAML"),
        ("a: [1\n", "file.yaml:2:1"),
        ("a: 1\n b: 2\n", "file.yaml:2:"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: \x1b[2J\n", "not valid YAML"),
        ("\t- x", "file.yaml:1:1"),
        ('a: "\\ud800"\n', "file.yaml:1:4: half a surrogate pair"),
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


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces.map("".join).map(str.encode) | st.binary(max_size=60))
def test_arbitrary_text_is_data_or_an_error_for_people_and_nothing_else(tmp_path: Path, raw: bytes) -> None:
    try:
        data = read(tmp_path, raw)
    except UsageError:
        return
    assert data == yaml.safe_load(raw.decode())
