"""The bit allocator: its choice fits, a smaller budget is never better or larger, cheap steps come first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from golf.quant.bits import Option, allocate

OPTIONS = st.lists(st.tuples(st.floats(0, 100), st.floats(1, 1000)), min_size=1, max_size=7).map(
    lambda pairs: [Option(2 + i, loss, n_bytes) for i, (loss, n_bytes) in enumerate(pairs)]
)
TENSORS = st.dictionaries(st.sampled_from("abcdefgh"), OPTIONS, min_size=1)


def size(chosen: dict[str, Option]) -> float:
    return sum(option.n_bytes for option in chosen.values())


def lost(chosen: dict[str, Option]) -> float:
    return sum(option.loss for option in chosen.values())


def convex(weight: float, numbers: int, most: int = 8) -> list[Option]:
    """Rounding error falls by 4 a bit."""
    return [Option(bits, weight * 4.0**-bits, numbers * bits / 8) for bits in range(2, most + 1)]


@settings(deadline=None, max_examples=200)
@given(options=TENSORS, budget=st.floats(1, 5000))
@pytest.mark.slow
def test_the_choice_fits_the_budget_or_nothing_does(options, budget):
    least = sum(min(option.n_bytes for option in each) for each in options.values())
    if least > budget:
        with pytest.raises(ValueError, match="fewest bits"):
            allocate(options, budget)
    else:
        chosen = allocate(options, budget)
        assert size(chosen) <= budget
        assert set(chosen) == set(options) and all(chosen[name] in options[name] for name in options)


@settings(deadline=None, max_examples=100)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    budgets=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_smaller_budget_takes_the_same_steps_and_then_more(weights, budgets):
    options = {str(i): convex(weight, 1000 * (i + 1)) for i, weight in enumerate(weights)}
    least, most = (sum(each[end].n_bytes for each in options.values()) for end in (0, -1))
    small, large = (allocate(options, least + share * (most - least) + 1e-6) for share in sorted(budgets))
    assert all(small[name].bits <= large[name].bits for name in options)
    assert size(small) <= size(large) and lost(small) >= lost(large)


def test_a_large_budget_keeps_the_requested_bits():
    options = {"a": convex(1.0, 1000), "b": convex(5.0, 1000, most=6)}
    assert {name: option.bits for name, option in allocate(options, 10_000).items()} == {"a": 8, "b": 6}


def test_bits_are_removed_where_the_loss_per_byte_is_least():
    options = {"sensitive": convex(1000.0, 1000), "robust": convex(1.0, 1000)}
    chosen = allocate(options, 1500)
    assert chosen["sensitive"].bits == 8 and chosen["robust"].bits == 4
    assert allocate({"small": convex(1.0, 100), "large": convex(1.0, 10_000)}, 10_000)["small"].bits == 8


def test_for_convex_losses_no_choice_of_at_most_that_size_is_better():
    options = {"a": convex(3.0, 700, 5), "b": convex(1.0, 1000, 5), "c": convex(20.0, 300, 5)}
    found = allocate(options, 900)
    others = [{"a": a, "b": b, "c": c} for a in options["a"] for b in options["b"] for c in options["c"]]
    assert lost(found) == min(lost(other) for other in others if size(other) <= size(found))


def test_a_step_that_saves_no_bytes_is_not_taken():
    options = {"a": [Option(4, 9.0, 80), Option(5, 4.0, 120), Option(6, 1.0, 100)]}
    assert allocate(options, 100)["a"].bits == 6 and allocate(options, 99)["a"].bits == 4
