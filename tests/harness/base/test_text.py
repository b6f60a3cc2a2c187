"""Words for values, counts and kinds, so that no message shows what Python writes of itself."""

from __future__ import annotations

from typing import Any

import pytest

from harness.base.text import count, kind, literal


@pytest.mark.parametrize(
    ("value", "words", "written"),
    [
        (None, "nothing", "null"),
        (True, "true or false", "true"),
        (1.5, "a number", "1.5"),
        ("a\u202e", "text", '"a\\u202e"'),
        ([None], "a list", "[null]"),
        ({"a": 1}, "a mapping", '{"a": 1}'),
        (object(), "a value of another kind", "a value of another kind"),
    ],
)
def test_a_value_is_told_in_the_words_of_json(value: Any, words: str, written: str) -> None:
    assert (kind(value), literal(value)) == (words, written)


def test_a_long_value_is_cut() -> None:
    assert literal("a" * 1000) == '"' + 76 * "a" + "..."


def test_a_count_agrees_with_its_noun() -> None:
    assert [count(n, "seed") for n in (0, 1, 2, 4096)] == ["0 seeds", "1 seed", "2 seeds", "4,096 seeds"]
