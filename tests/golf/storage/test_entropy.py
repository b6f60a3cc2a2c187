"""The entropy coder is lossless, reaches its Shannon bound, and rejects inconsistent arrays."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from constriction import stream
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from golf.storage import codec, entropy

MATRICES = st.lists(
    st.sampled_from([(-1, 0), (0, 0), (-8, 7), (-32, 31), (-128, 127), (3, 5)]).flatmap(
        lambda ends: hnp.arrays(
            np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(*ends)
        )
    ),
    min_size=1,
    max_size=4,
)


def _shapes(matrices: list[np.ndarray]) -> list[tuple[int, int]]:
    return [(each.shape[0], each.shape[1]) for each in matrices]


def _normal(rows: int, columns: int, sigmas: float, largest: int, spread: float = 0.0) -> np.ndarray:
    """Normal rows quantised up to so many standard deviations; with `spread`, the rows differ in scale."""
    random = np.random.default_rng(7)
    weight_RC = random.normal(size=(rows, columns)) * np.exp(spread * random.normal(size=(rows, 1)))
    return np.clip(np.round(weight_RC * largest / sigmas), -largest - 1, largest).astype(np.int8)


def _side_bytes(coded: entropy.Coded) -> int:
    return sum(len(codec.compress_brotli(part.tobytes(), 11)) for part in (coded.counts_XA, coded.levels))


@settings(deadline=None, max_examples=150)
@given(matrices=MATRICES)
@pytest.mark.slow
def test_coding_is_lossless_and_deterministic(matrices):
    coded = entropy.encode(matrices)
    again = entropy.decode(coded, _shapes(matrices))
    assert all(
        one.dtype == np.int8 and np.array_equal(one, two) for one, two in zip(matrices, again, strict=True)
    )
    assert all(np.array_equal(one, two) for one, two in zip(coded, entropy.encode(again), strict=True))
    assert all(part.size for part in coded)


@settings(deadline=None, max_examples=60)
@given(matrices=MATRICES)
def test_the_words_reach_the_bound_of_the_histograms_within_a_thousandth_and_64_bytes(matrices):
    coded = entropy.encode(matrices)
    assert coded.words.nbytes <= 1.001 * entropy.entropy_bytes(coded.counts_XA) + 64
    assert int(coded.counts_XA.sum()) == sum(each.size for each in matrices)


@pytest.mark.parametrize(("sigmas", "largest", "gain"), [(12.85, 31, 0.012), (20.0, 127, 0.003)])
def test_rows_of_one_scale_reach_their_shannon_bound_and_beat_brotli(sigmas, largest, gain):
    codes_RC = _normal(512, 512, sigmas, largest)
    coded = entropy.encode([codes_RC])
    bound = entropy.shannon_bytes(codes_RC)
    assert bound * 0.998 < coded.words.nbytes < bound * 1.001 + 64
    brotli = len(codec.compress_brotli(codes_RC.tobytes(), 11))
    assert coded.words.nbytes + _side_bytes(coded) < (1 - gain) * brotli


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_or_columns_of_unequal_scale_beat_the_bound_of_one_histogram(transposed):
    codes_RC = _normal(512, 512, 4.0, 31, spread=0.5)
    codes_RC = np.ascontiguousarray(codes_RC.T) if transposed else codes_RC
    coded = entropy.encode([codes_RC])
    assert coded.words.nbytes + _side_bytes(coded) < 0.97 * entropy.shannon_bytes(codes_RC)


def test_matrices_of_one_scale_share_a_histogram_whatever_their_shape():
    codes_RC = _normal(256, 256, 12.85, 31)
    coded = entropy.encode([codes_RC, codes_RC[:100], codes_RC[:, :100]])
    assert coded.counts_XA.any(axis=1).sum() == 1
    assert coded.counts_XA.sum() == 256 * 456


def test_doubling_a_row_raises_its_level_by_four_and_leaves_the_columns():
    scale_R1 = np.array([[1], [2], [4], [64]], np.int8)
    levels_R = [entropy.UNIT_LEVEL + step for step in (0, 4, 8, 24)]
    codes_RC = scale_R1 * np.where(np.random.default_rng(0).random((4, 64)) < 0.5, np.int8(-1), np.int8(1))
    coded = entropy.encode([codes_RC])
    assert coded.levels.tolist() == levels_R + 64 * [entropy.UNIT_LEVEL]
    assert entropy.entropy_bytes(coded.counts_XA) <= codes_RC.size / 8  # one bit each, for the sign
    assert entropy.encode([np.zeros((2, 3), np.int8)]).levels.tolist() == [0, 0] + 3 * [entropy.UNIT_LEVEL]


def test_the_bound_equals_shannons_formula():
    assert entropy.shannon_bytes(np.repeat(np.arange(-8, 8, dtype=np.int8), 2)) == 32 * 4 / 8
    assert entropy.shannon_bytes(np.full((3, 3), -5, np.int8)) == 0
    assert entropy.entropy_bytes(np.array([[1, 1, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]])) == (2 * 1 + 8 * 2) / 8


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=256).filter(any))
def test_the_coder_uses_exactly_the_given_probabilities(counts):
    counts_A = np.array(counts, np.uint32)
    model = entropy._model(counts_A)
    exact = counts_A.astype(object) * (2**24 - len(counts)) // sum(counts) + 1
    exact[counts_A.argmax()] += 2**24 - sum(exact)
    for symbol, bound in enumerate(np.cumsum(exact)):
        last = (
            stream.stack.AnsCoder(np.array([bound - 1], np.uint32)) if bound > 1 else stream.stack.AnsCoder()
        )
        assert last.decode(model, 1)[0] == symbol
        if bound < 2**24:
            assert stream.stack.AnsCoder(np.array([bound], np.uint32)).decode(model, 1)[0] == symbol + 1


def test_the_bytes_are_the_same_on_every_machine():
    places_RC = np.arange(8000).reshape(40, 200)
    codes_RC = ((places_RC**2 % 61 % 17 - 8) * (1 + places_RC // 200 % 4 * 4)).astype(np.int8)
    coded = entropy.encode([codes_RC, codes_RC.T])
    assert coded.counts_XA.any(axis=1).sum() > 1
    digest = hashlib.blake2b(
        b"".join(part.astype(part.dtype.newbyteorder("<")).tobytes() for part in coded), digest_size=8
    )
    assert digest.hexdigest() == "90731c75815db44e"


SAMPLES = [_normal(6, 20, 4.0, 7), _normal(3, 8, 4.0, 31, spread=1.0)]


def _refused(coded: entropy.Coded, shapes: list[tuple[int, int]] | None = None) -> None:
    with pytest.raises(ValueError):
        entropy.decode(coded, shapes or _shapes(SAMPLES))


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(words=hnp.arrays(np.uint32, st.integers(0, 60)))
def test_foreign_words_are_an_error(words):
    coded = entropy.encode(SAMPLES)
    if not np.array_equal(words, coded.words):
        _refused(coded._replace(words=words))


@settings(deadline=None, max_examples=100)
@given(bit=st.integers(0, 32 * len(entropy.encode(SAMPLES).words) - 1))
def test_a_flipped_bit_in_the_words_never_gives_the_same_matrices(bit):
    coded = entropy.encode(SAMPLES)
    words = coded.words.copy()
    words[bit // 32] ^= np.uint32(1 << bit % 32)
    try:
        again = entropy.decode(coded._replace(words=words), _shapes(SAMPLES))
    except ValueError:
        return
    assert not all(np.array_equal(one, two) for one, two in zip(SAMPLES, again, strict=True))


def test_truncated_and_extended_words_are_errors():
    coded = entropy.encode(SAMPLES)
    for words in (
        coded.words[:-1],
        coded.words[1:],
        coded.words[:0],
        np.append(coded.words, np.uint32(1)),
        np.insert(coded.words, 0, 0),
        np.append(coded.words, np.uint32(0)),
        np.ones(10**6, np.uint32),
    ):
        _refused(coded._replace(words=words.astype(np.uint32)))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
@pytest.mark.slow
def test_histograms_with_wrong_counts_are_an_error(data):
    coded = entropy.encode(SAMPLES)
    counts_XA = coded.counts_XA.copy()
    place = data.draw(st.tuples(*(st.integers(0, size - 1) for size in counts_XA.shape)))
    counts_XA[place] = data.draw(st.integers(0, 2**32 - 1).filter(lambda count: count != counts_XA[place]))
    _refused(coded._replace(counts_XA=counts_XA))
    moved_XA = coded.counts_XA.copy()  # the sums stay the same
    moved_XA[moved_XA.any(axis=1)] = np.roll(moved_XA[moved_XA.any(axis=1)], 1, axis=1)
    _refused(coded._replace(counts_XA=moved_XA))


@settings(deadline=None, max_examples=100)
@given(
    words=hnp.arrays(np.uint32, st.integers(1, 20)),
    levels=hnp.arrays(np.uint8, st.integers(0, 12)),
    counts_XA=hnp.arrays(
        np.uint32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 9)
    ),
)
def test_random_arrays_are_an_error_or_decode_to_the_requested_shapes(words, levels, counts_XA):
    try:
        matrices = entropy.decode(entropy.Coded(words, counts_XA, levels), [(2, 3), (1, 2)])
    except ValueError:
        return
    assert _shapes(matrices) == [(2, 3), (1, 2)]


def test_arrays_of_wrong_types_shapes_and_lengths_are_errors():
    words, counts_XA, levels = coded = entropy.encode(SAMPLES)
    wide_XA = np.zeros((len(counts_XA), 257), np.uint32)
    wide_XA[:, : counts_XA.shape[1]] = counts_XA
    for wrong in (
        coded._replace(words=words.astype(np.int64)),
        coded._replace(words=words[None]),
        coded._replace(counts_XA=counts_XA.astype(np.int32)),
        coded._replace(counts_XA=counts_XA[0]),
        coded._replace(counts_XA=wide_XA),
        coded._replace(counts_XA=counts_XA[:, :1]),
        coded._replace(counts_XA=np.append(counts_XA, counts_XA[:1] * 0, axis=0)),
        coded._replace(levels=levels.astype(np.int8)),
        coded._replace(levels=levels[:-1]),
        coded._replace(levels=levels + np.uint8(1)),
    ):
        _refused(wrong)
    _refused(coded, [(6, 20), (8, 3 + 8)])
    _refused(coded, [(1 << 40, 1 << 40)])


def test_only_nonempty_int8_matrices_are_encoded():
    for wrong in ([], [np.zeros(3, np.int8)], [np.zeros((2, 0), np.int8)], [np.zeros((2, 2), np.int16)]):
        with pytest.raises(ValueError, match="int8 matrices"):
            entropy.encode(wrong)
