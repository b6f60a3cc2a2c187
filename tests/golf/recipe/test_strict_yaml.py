"""Strict YAML: what a plain scalar may be, and what is refused, with its place."""

from __future__ import annotations

import pytest

from golf.recipe.mistakes import ConfigError
from golf.recipe.strict_yaml import read, read_text

READ = {
    "42": 42,
    "-0": 0,
    "9" * 20: 10**20 - 1,
    "1.5": 1.5,
    "1e3": 1000.0,
    "1e-3": 0.001,
    "1.0e-08": 1e-8,
    "true": True,
    "false": False,
    "null": None,
    "text": "text",
    "nan": "nan",
    "1.2.3": "1.2.3",
    "'042'": "042",
    '"yes"': "yes",
    "|\n  042": "042\n",
    "''": "",
}
AMBIGUOUS = {
    "042": '42, or "042" for text',
    "-042": '-42, or "-042" for text',
    "0x10": '16, or "0x10" for text',
    "-0x10": '-16, or "-0x10" for text',
    "0b11": '3, or "0b11" for text',
    "0o17": '15, or "0o17" for text',
    "1_000": '1000, or "1_000" for text',
    "+1": '1, or "+1" for text',
    ".5": '0.5, or ".5" for text',
    "1.": '1.0, or "1." for text',
    "1.e3": '1000.0, or "1.e3" for text',
    "1:30": 'a finite decimal number, or "1:30" for text',
    ".inf": 'a finite decimal number, or ".inf" for text',
    ".nan": 'a finite decimal number, or ".nan" for text',
    "yes": 'true, or "yes" for text',
    "On": 'true, or "On" for text',
    "NO": 'false, or "NO" for text',
    "FALSE": 'false, or "FALSE" for text',
    "~": 'null, or "~" for text',
    "Null": 'null, or "Null" for text',
    "2026-01-01": '"2026-01-01" for text',
    "=": '"=" for text',
    "<<": '"<<" for text',
}
LONG = {
    "9" * 21: "an integer of 21 digits; expected at most 20",
    "9" * 5000: "an integer of 5000 digits; expected at most 20",
    "1." + "0" * 63: "is too large or too long; expected at most 64 characters",
    "1e999": "1e999 is too large or too long; expected at most 64 characters",
}
REFUSED = {
    "a: 1\na: 2": "2:1: a: duplicate key; expected each key once",
    "a: {b: 1, b: 2}": "1:11: a.b: duplicate key; expected each key once",
    "a: &x [1]": "1:4: anchors and aliases are not accepted",
    "a: *x": "1:4: anchors and aliases are not accepted",
    "a: !!python/name:os.system {}": "1:4: explicit tags are not accepted",
    "a: {1: 2}": "1:5: a: the key is 1, which is not text",
    "yes: 2": "1:1: the key is yes, which is not text",
    "<<: {a: {}}": "1:1: the key is <<, which is not text",
    "? [a]\n: 1": "1:3: the key is a collection, which is not text",
    "--- {}\n--- {}": "2:1: expected a single document",
    "[" * 50: "1:9: nested deeper than 8 levels",
    "a: [1": "1:6: while parsing a flow sequence, expected ',' or ']'",
    "a: 1\n\tb: 2": "2:1: while scanning",
    "a: @x": "1:4: while scanning for the next token, found character '@'",
    "a: 1\nb: \x00": "2:4: the character U+0000 is not accepted",
    'a: "\\UFFFFFFFF"': "1:7: the number of an escape or a version is out of range",
    "%YAML " + "1" * 5000 + ".1": "1:7: the number of an escape or a version is out of range",
    "#" * 70_000: "1:1: the recipe is too long; at most 65536 characters are read",
}


def refusal(text: str) -> str:
    """The message about a text, which must be one printable line."""
    try:
        (message,) = map(str, read(text, "config.yaml").mistakes)
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 300
    return message


@pytest.mark.parametrize("text", READ, ids=lambda text: text[:30])
def test_a_scalar_is_what_json_says_or_text(text):
    document = read(f"a: {text}\n", "config.yaml")
    assert (document.tree, document.mistakes) == ({"a": READ[text]}, [])
    assert type(document.tree["a"]) is type(READ[text])


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_a_scalar_that_yaml_reads_in_its_own_way_is_refused_with_what_to_write(text):
    expected = f"config.yaml:2:6: a.b: {text} is ambiguous in YAML; write {AMBIGUOUS[text]}"
    assert refusal(f"a:\n  b: {text}\n") == expected
    assert refusal(f"a: [1, {text}]") == expected.replace("2:6: a.b", "1:8: a")


def test_an_empty_value_is_refused_with_what_to_write():
    assert (
        refusal("a:\nb: 1")
        == 'config.yaml:1:3: a: an empty value is ambiguous in YAML; write null, or "" for text'
    )


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:30])
def test_a_number_of_too_many_digits_is_refused(text):
    assert refusal(f"a: {text}").startswith("config.yaml:1:4: a: ")
    assert LONG[text] in refusal(f"a: {text}")


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_yaml_of_another_kind_is_refused_in_one_line_with_its_place(text):
    assert refusal(text).startswith(f"config.yaml:{REFUSED[text]}")


def test_a_yaml_alias_bomb_is_refused_before_it_expands():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert "anchors and aliases" in refusal("\n".join(lines))


def test_what_a_stranger_wrote_is_escaped_and_cut():
    assert refusal('"\\e[31mred": yes').startswith("config.yaml:1:14: \\x1b[31mred: yes is ambiguous")
    assert refusal(f"{'k' * 1000}: yes").startswith(f"config.yaml:1:1003: {'k' * 60}...: yes")


def test_a_file_that_is_not_utf_8_or_too_long_is_refused_with_the_place(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("a: é\nb: ".encode() + b"\xff\n")
    with pytest.raises(ConfigError, match=r"^recipe\.yaml:2:4: not UTF-8; save the file as UTF-8$"):
        read_text(path)
    path.write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigError, match=r"^recipe\.yaml:1:1: the recipe is too long"):
        read_text(path)
    path.write_text("a: é")
    assert read_text(path) == "a: é"
