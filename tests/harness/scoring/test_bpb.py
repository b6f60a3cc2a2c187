"""Bits per byte: what is summed, what is divided by, and which document each part belongs to."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from harness.data.byte_table import ByteTable
from harness.data.shards import read_tokens
from harness.scoring.bpb import document_starts, measure

BOS, WORD, LETTER, BYTE = 1, 4, 5, 6
TABLE = ByteTable(
    base_V=np.array([0, 0, 0, 0, 3, 1, 1]),
    leading_V=np.array([0, 0, 0, 0, 1, 0, 0], bool),
    absorbs_space_V=np.array([1, 1, 1, 1, 0, 0, 0], bool),
)
"""Ids 0-3 control; 4 a word of three letters with a leading space; 5 a letter; 6 a byte."""


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint16)


def nats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_bits_over_bytes_by_hand() -> None:
    """BOS ` the` a: 3 + 1 bytes (the space after BOS counts 0), 2 + 1 nats."""
    measured = measure(tokens(BOS, WORD, LETTER), nats(0, 2, 1), TABLE)
    assert measured.scored_bytes == 4
    assert measured.scored_tokens == 2
    assert measured.bpb == pytest.approx(3 / math.log(2) / 4)
    assert measured.nats_per_token == pytest.approx(1.5)


def test_the_first_token_is_neither_scored_nor_counted_whatever_it_is() -> None:
    with_bos = measure(tokens(BOS, LETTER), nats(0, 1), TABLE)
    with_text = measure(tokens(LETTER, LETTER), nats(5, 1), TABLE)
    for measured in (with_bos, with_text):
        assert (measured.scored_tokens, measured.scored_bytes) == (1, 1)
        assert measured.bpb == pytest.approx(1 / math.log(2))


def test_the_nats_of_a_bos_count_its_bytes_do_not_and_both_belong_to_the_document_it_opens() -> None:
    measured = measure(tokens(BOS, LETTER, BOS, WORD, BYTE), nats(0, 1, 7, 2, 3), TABLE)
    assert measured.starts_D.tolist() == [0, 2]
    assert measured.bytes_D.tolist() == [1, 4]
    assert (measured.bits_D * math.log(2)).tolist() == pytest.approx([1, 12])
    assert measured.scored_tokens == 4


def test_a_stream_that_opens_without_bos_has_a_document_there_too() -> None:
    assert document_starts(tokens(LETTER, BOS, LETTER)).tolist() == [0, 1]
    assert document_starts(tokens(BOS, LETTER)).tolist() == [0]
    assert document_starts(tokens(LETTER)).tolist() == [0]


def test_empty_documents_have_a_place_of_their_own() -> None:
    measured = measure(tokens(BOS, BOS, BOS, LETTER), nats(0, 1, 2, 4), TABLE)
    assert measured.bytes_D.tolist() == [0, 0, 1]
    assert (measured.bits_D * math.log(2)).tolist() == pytest.approx([0, 1, 6])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([BOS, 3, WORD, LETTER, BYTE]), st.floats(0, 30, width=32)),
        min_size=1,
        max_size=60,
    )
)
def test_sums_equal_those_of_a_plain_loop(pairs: list[tuple[int, float]]) -> None:
    ids, values = [BOS, LETTER, *(i for i, _ in pairs)], [0.0, 1.0, *(n for _, n in pairs)]
    total_nats, total_bytes, documents = 0.0, 0, []
    for position, (token, value) in enumerate(zip(ids, values, strict=True)):
        if position == 0 or token == BOS:
            documents.append([0.0, 0])
        if position == 0:
            continue
        space = token == WORD and ids[position - 1] not in (BOS, 3)
        size = {BOS: 0, 3: 0, WORD: 3, LETTER: 1, BYTE: 1}[token] + space
        total_nats, total_bytes = total_nats + value, total_bytes + size
        documents[-1] = [documents[-1][0] + value / math.log(2), documents[-1][1] + size]
    measured = measure(tokens(*ids), nats(*values), TABLE)
    assert measured.scored_bytes == total_bytes == measured.bytes_D.sum()
    assert measured.bpb == pytest.approx(total_nats / math.log(2) / total_bytes)
    assert measured.bits_D.tolist() == pytest.approx([bits for bits, _ in documents])
    assert measured.bytes_D.tolist() == [size for _, size in documents]


def test_a_long_stream_of_small_numbers_loses_nothing_to_float32() -> None:
    count = 300_000
    measured = measure(np.full(count, LETTER, np.uint16), np.full(count, 0.1, np.float32), TABLE)
    assert measured.nats_per_token == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize(("ids", "values"), [([1], [0.0]), ([], []), ([1, 5], [0.0])])
def test_streams_that_cannot_be_scored_are_refused(ids: list[int], values: list[float]) -> None:
    with pytest.raises(AssertionError):
        measure(tokens(*ids), nats(*values), TABLE)


@pytest.mark.parametrize(
    ("variant", "vocabulary", "n_bytes", "documents"),
    [("sp1024", 1024, 2_504_867, 902), ("sp8192", 8192, 2_504_310, 901)],
)
def test_a_uniform_model_on_the_real_prefix_scores_what_the_formula_says(
    shared: Path, variant: str, vocabulary: int, n_bytes: int, documents: int
) -> None:
    tokens_T = np.asarray(read_tokens(shared / "fineweb" / f"fineweb_val_prefix_{variant}.bin", vocabulary))
    table = ByteTable.from_tokenizer(shared / "tokenizers" / f"fineweb_{vocabulary}_bpe.model", vocabulary)
    measured = measure(tokens_T, np.full(len(tokens_T), math.log(vocabulary), np.float32), table)
    assert measured.scored_bytes == n_bytes
    assert len(measured.bytes_D) == documents
    assert measured.bpb == pytest.approx(math.log2(vocabulary) * (len(tokens_T) - 1) / n_bytes, rel=1e-6)
