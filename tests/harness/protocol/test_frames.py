"""The parser of hostile frames: every line gives a Frame or a Violation, in bounded time."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings, strategies as st

from harness.base.errors import Violation
from harness.base.text import MAX_QUOTED, quote
from harness.protocol.frames import (
    MAX_DEPTH,
    MAX_LINE,
    Adapted,
    Description,
    Frame,
    Hello,
    Nats,
    Packed,
    Progress,
    Ready,
    ScoreReady,
    Trained,
    parse,
    parse_object,
)

KINDS: dict[str, type[Frame]] = {
    "hello": Hello,
    "ready": Ready,
    "trained": Trained,
    "packed": Packed,
    "nats": Nats,
    "adapted": Adapted,
    "progress": Progress,
    "description": Description,
}
GOOD: dict[str, dict[str, object]] = {
    "hello": {"op": "hello", "protocol": 1, "stage": "score"},
    "ready": {
        "op": "ready",
        "chunk_tokens": 4096,
        "adapts": False,
        "context": None,
        "world": 8,
        "attention": "flash3",
    },
    "trained": {"op": "trained", "steps": 8098, "tokens": 4_245_684_224},
    "nats": {"op": "nats", "chunk": 3, "bytes": 16},
    "progress": {"op": "progress", "fraction": 0.5, "text": "step 10"},
}


def refused(line: bytes, *expected: type[Frame]) -> str:
    """The message of the violation that `line` raises."""
    with pytest.raises(Violation) as caught:
        parse(line, expected or (Hello, Trained, Nats, Progress))
    assert caught.value.rule == "protocol"
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("op", "kind"),
    [("hello", Hello), ("ready", ScoreReady), ("trained", Trained), ("nats", Nats), ("progress", Progress)],
)
def test_a_lawful_frame_keeps_its_values_and_loses_unknown_keys(op: str, kind: type[Frame]) -> None:
    line = json.dumps({**GOOD[op], "remark": [1, {"nested": None}]}).encode()
    frame = parse(line, (kind,))
    assert type(frame) is kind
    assert {**frame.model_dump(by_alias=True)} == {**GOOD[op]}


@pytest.mark.parametrize(
    ("op", "kind", "key", "value"),
    [
        ("hello", Hello, "protocol", True),
        ("hello", Hello, "protocol", 1.0),
        ("hello", Hello, "protocol", "1"),
        ("hello", Hello, "protocol", 2),
        ("hello", Hello, "stage", None),
        ("hello", Hello, "stage", 3),
        ("trained", Trained, "steps", True),
        ("trained", Trained, "steps", 1.0),
        ("trained", Trained, "steps", "1"),
        ("trained", Trained, "steps", -1),
        ("trained", Trained, "tokens", 2**53),
        ("nats", Nats, "chunk", False),
        ("nats", Nats, "bytes", 4.0),
        ("nats", Nats, "bytes", -4),
        ("ready", ScoreReady, "adapts", 0),
        ("ready", ScoreReady, "adapts", "false"),
        ("ready", ScoreReady, "chunk_tokens", 0),
        ("ready", ScoreReady, "chunk_tokens", True),
        ("ready", ScoreReady, "context", 0),
        ("ready", ScoreReady, "context", 2048.0),
        ("ready", ScoreReady, "world", 5000),
        ("progress", Progress, "fraction", 1.5),
        ("progress", Progress, "fraction", -0.1),
        ("progress", Progress, "fraction", True),
        ("progress", Progress, "fraction", "0.5"),
        ("progress", Progress, "text", "x" * 1001),
    ],
)
def test_types_and_ranges_are_exact(op: str, kind: type[Frame], key: str, value: object) -> None:
    message = refused(json.dumps({**GOOD[op], key: value}).encode(), kind)
    assert repr(key) in message, "the key is named"


@pytest.mark.parametrize(
    "line",
    [
        b'{"op":"trained","steps":NaN,"tokens":1}',
        b'{"op":"trained","steps":1,"tokens":Infinity}',
        b'{"op":"trained","steps":-Infinity,"tokens":1}',
        b'{"op":"progress","fraction":1e999}',
        b'{"op":"progress","fraction":NaN}',
        b'{"op":"progress","fraction":0.5,"spare":-1e400}',
    ],
)
def test_numbers_that_are_not_json_or_not_finite_are_refused_even_under_unknown_keys(line: bytes) -> None:
    refused(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"op":"trained","steps":1,"tokens":1,"steps":2}',
        b'{"op":"hello","op":"trained","steps":1,"tokens":1}',
        b'{"op":"trained","steps":1,"tokens":1,"x":{"a":1,"a":1}}',
        b'{"op":"trained","steps":1,"tokens":1,"\\u006fp":"x"}',
    ],
)
def test_a_key_that_appears_twice_is_refused_at_any_depth(line: bytes) -> None:
    assert "twice" in refused(line)


@pytest.mark.parametrize("digits", [21, 5_000, 60_000])
@pytest.mark.parametrize(
    "head", [b'{"op":"trained","tokens":1,"steps":', b'{"op":"trained","tokens":1,"steps":1,"spare":']
)
def test_integers_of_thousands_of_digits_are_refused_at_once(digits: int, head: bytes) -> None:
    begun = time.process_time()
    assert f"{digits:,} digits" in refused(head + b"9" * digits + b"}")
    assert time.process_time() - begun < 3


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_deep_nesting_is_refused_before_the_parser_recurses(opening: bytes, closing: bytes) -> None:
    levels = MAX_LINE // (len(opening) + len(closing)) - 10
    for closed in (closing * levels, b""):
        begun = time.process_time()
        assert "deeper" in refused(b'{"op":"trained","x":' + opening * levels + b"0" + closed + b"}")
        assert time.process_time() - begun < 3


def test_brackets_inside_strings_do_not_count_as_nesting_even_after_escapes() -> None:
    text = "[{" * 100 + '\\"' + "[" * 100
    frame = parse(json.dumps({**GOOD["progress"], "text": text}).encode(), (Progress,))
    assert isinstance(frame, Progress)
    assert frame.text == text


def test_the_deepest_lawful_nesting_is_parsed_and_one_more_is_not() -> None:
    inner = MAX_DEPTH - 1
    good = b'{"op":"packed","x":' + b"[" * inner + b"]" * inner + b"}"
    assert isinstance(parse(good, (Packed,)), Packed)
    refused(b'{"op":"packed","x":' + b"[" * (inner + 1) + b"]" * (inner + 1) + b"}", Packed)


@pytest.mark.parametrize(
    "line",
    [
        b'{"op":"hello","protocol":1,"stage":"\\ud800"}',
        b'{"op":"hello","protocol":1,"stage":"score","\\udfff":1}',
        b'{"op":"hello","protocol":1,"stage":"score","x":["\\ud800\\u0041"]}',
        b'{"op":"\\ud800"}',
        b'{"op":"hello","protocol":1,"stage":"\xed\xa0\x80"}',
    ],
)
def test_lone_surrogates_are_refused_with_a_printable_message(line: bytes) -> None:
    refused(line).encode("ascii")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"op"',
        b"{",
        b"{}",
        b'{"op":null}',
        b'{"op":[]}',
        b'{"op":{}}',
        b'\xef\xbb\xbf{"op":"packed"}',
        b"\xff\xfe{}",
        b'{"op":"packed"} {"op":"packed"}',
        b'{"op":"packed",}',
        b"{'op':'packed'}",
        b'{"op":"packed"}\x00',
        b'{"op":"bye"}',
    ],
)
def test_anything_but_one_object_with_an_expected_op_is_refused(line: bytes) -> None:
    assert "expected packed" in refused(line, Packed)


def test_a_frame_out_of_turn_is_refused_with_what_was_expected_and_a_quote_of_it() -> None:
    message = refused(json.dumps(GOOD["trained"]).encode(), Nats, Progress)
    assert "expected nats or progress" in message
    assert "trained" in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"op":"bye"}', "op 'bye' is out of turn"),
        (b"{}", "op is nothing, expected text"),
        (b'{"op":true}', "op is true or false, expected text"),
        (b'{"op":{"a":1}}', "op is a mapping, expected text"),
        (b"[1]", "expected an object, found a list"),
        (b"null", "expected an object, found nothing"),
    ],
)
def test_a_refusal_names_kinds_of_json_and_no_types_of_python(line: bytes, says: str) -> None:
    assert says in refused(line, Packed)


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "line\nbreak\r\u2028",
        "\u202eright to left",
        "\x00",
        "\ud83d\ude00",
        "n\u0336a\u0336n\u0336",
    ],
)
def test_messages_are_short_printable_ascii(hostile: str) -> None:
    raw = json.dumps({"op": hostile, "x": hostile * 1000}, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    message = refused(raw)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 4 * MAX_QUOTED
    for quoted in (quote(raw), quote(hostile)):
        assert quoted.isascii()
        assert quoted.isprintable()
        assert len(quoted) <= MAX_QUOTED + 3


def test_quoting_never_fails_on_bytes_that_are_not_utf8() -> None:
    assert quote(b"\xff\xfe\xed\xa0\x80" * 100).isascii()


expected = st.sampled_from(
    [(Hello,), (Nats, Progress), (ScoreReady, Progress), (Description,), (Trained, Packed)]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
near_frames = st.builds(
    lambda op, extra: json.dumps({"op": op, **extra}).encode(),
    st.sampled_from([*KINDS, "score", ""]),
    st.dictionaries(
        st.sampled_from(["protocol", "stage", "chunk", "bytes", "steps", "tokens", "fraction", "variants"]),
        json_values,
        max_size=6,
    ),
)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=400) | near_frames, expected)
def test_arbitrary_bytes_give_a_frame_or_a_violation_and_nothing_else(
    line: bytes, kinds: tuple[type[Frame], ...]
) -> None:
    try:
        frame = parse(line, kinds)
    except Violation as violation:
        outcome = violation.rule, violation.message.isprintable()
        assert outcome == ("protocol", True)
    else:
        assert type(frame) in kinds
        assert json.loads(line)["op"] == frame.op


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(
        [b'"', b"\\", b"[", b"{", b'{"a":', b'",', b"-", b"1", b"1e", b"0.", b"\\u00", b"\xff", b" ", b"n"]
    ),
    st.sampled_from([b'{"op":"', b'{"op":', b"", b'{"x":"']),
)
def test_the_longest_line_of_one_repeated_piece_takes_bounded_time(piece: bytes, head: bytes) -> None:
    line = (head + piece * MAX_LINE)[: MAX_LINE - 1]
    begun = time.process_time()
    with pytest.raises(Violation):
        parse(line, (Trained, Progress))
    assert time.process_time() - begun < 3


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "", "x" * 101, "\u202e", "é"])
def test_names_in_a_description_are_printable_ascii_because_terminals_show_them(name: str) -> None:
    described = {"op": "description", "parameters": 1, "estimated_bytes": 1, "techniques": [], "variants": []}
    good = parse(json.dumps({**described, "techniques": ["QK gain 5.25"]}).encode(), (Description,))
    assert isinstance(good, Description)
    refused(json.dumps({**described, "techniques": ["fine", name]}).encode(), Description)
    refused(json.dumps({**described, "variants": [{"name": name, "config": ""}]}).encode(), Description)


@pytest.mark.parametrize("remarks", [["x" * 201], [""], ["two\nlines"], ["\x1b[2J"], ["x"] * 21, "x", [1]])
def test_remarks_of_a_description_are_few_short_and_printable(remarks: object) -> None:
    described = {"op": "description", "parameters": 1, "estimated_bytes": 1, "techniques": []}
    good = parse(json.dumps({**described, "remarks": ["x" * 200] * 20}).encode(), (Description,))
    assert isinstance(good, Description)
    assert len(good.remarks) == 20
    refused(json.dumps({**described, "remarks": remarks}).encode(), Description)


@settings(max_examples=50, deadline=None)
@given(json_values)
def test_what_the_strict_parser_accepts_it_reads_as_the_json_module_does(value: object) -> None:
    line = json.dumps({"value": value}).encode()
    try:
        strict = parse_object(line)
    except ValueError:
        return
    assert strict == json.loads(line)
