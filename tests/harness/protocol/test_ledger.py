"""The ledger: any change to the tokens, the numbers or the chunks changes its last link."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from harness.protocol.ledger import Ledger, replay

TOKENS_T = np.array([1, 5, 7, 1, 9, 65_535], np.uint16)
NATS_T = np.array([0, 1.5, 2.25, 3, 0.125, 7], np.float32)


def chain_by_hand(chunks: list[tuple[list[int], list[float]]]) -> str:
    """The chain computed with the standard library alone."""
    link = hashlib.sha256(b"pgolf ledger 1").digest()
    for index, (tokens, nats) in enumerate(chunks):
        body = struct.pack(f"<QQ{len(tokens)}H{len(nats)}f", index, len(tokens), *tokens, *nats)
        link = hashlib.sha256(link + body).digest()
    return link.hex()


@pytest.mark.parametrize("chunk", [1, 2, 4, 6, 100])
def test_the_chain_equals_one_computed_by_hand(chunk: int) -> None:
    parts = [
        (TOKENS_T[at : at + chunk].tolist(), NATS_T[at : at + chunk].tolist()) for at in range(0, 6, chunk)
    ]
    assert replay(TOKENS_T, NATS_T, chunk) == chain_by_hand(parts)


def test_an_empty_ledger_has_a_link_and_no_numbers() -> None:
    assert Ledger().sha256 == chain_by_hand([])
    assert len(Ledger().nats()) == 0


def test_the_same_numbers_in_other_chunks_are_another_ledger() -> None:
    assert len({replay(TOKENS_T, NATS_T, chunk) for chunk in range(1, 7)}) == 6


@pytest.mark.parametrize("position", range(6))
def test_one_bit_of_a_token_or_a_number_changes_the_last_link(position: int) -> None:
    tokens_T, nats_T = TOKENS_T.copy(), NATS_T.copy()
    tokens_T[position] ^= 1
    nats_T.view(np.uint32)[position] ^= 1
    assert len({replay(TOKENS_T, NATS_T, 4), replay(tokens_T, NATS_T, 4), replay(TOKENS_T, nats_T, 4)}) == 3


def test_swapping_two_chunks_changes_the_last_link() -> None:
    order = [3, 4, 5, 0, 1, 2]
    assert replay(TOKENS_T, NATS_T, 3) != replay(TOKENS_T[order], NATS_T[order], 3)


def test_committed_numbers_cannot_be_changed_through_the_arrays_passed_in_or_returned() -> None:
    ledger, nats_T = Ledger(), NATS_T.copy()
    ledger.commit(TOKENS_T, nats_T)
    nats_T[:] = 0
    ledger.nats()[:] = 0
    assert ledger.nats().tolist() == NATS_T.tolist()
    assert replay(TOKENS_T, ledger.nats(), 6) == ledger.sha256


def test_the_byte_order_of_the_arrays_does_not_matter() -> None:
    assert replay(TOKENS_T.astype(">u2"), NATS_T.astype(">f4"), 4) == replay(TOKENS_T, NATS_T, 4)


def test_tokens_and_numbers_of_different_counts_are_refused() -> None:
    with pytest.raises(AssertionError):
        Ledger().commit(TOKENS_T, NATS_T[:5])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 65_535), st.floats(0, 100, width=32)), min_size=1, max_size=40),
    st.integers(1, 50),
)
def test_a_stored_stream_replays_to_the_ledger_it_was_committed_to(
    pairs: list[tuple[int, float]], chunk: int
) -> None:
    tokens_T, nats_T = np.array([t for t, _ in pairs], np.uint16), np.array([n for _, n in pairs], np.float32)
    ledger = Ledger()
    for start in range(0, len(pairs), chunk):
        ledger.commit(tokens_T[start : start + chunk], nats_T[start : start + chunk])
    assert replay(tokens_T, ledger.nats(), chunk) == ledger.sha256
    assert ledger.chunks == -(-len(pairs) // chunk)
