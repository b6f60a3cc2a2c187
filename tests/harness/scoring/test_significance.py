"""Mean, interval and Welch's test against published numbers, a hand computation and an
independent implementation.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy import stats as scipy_stats

from harness.edition import SIGNIFICANCE, Significance
from harness.scoring.significance import has_spread, summarise, welch

NO_MARGIN = Significance("none", 0.05, 0.0, "a test")
SP1024, SP8192, CASEOPS = 2.4359, 3.7266, 3.1572
"""Bytes a token of the official validation text, by tokenizer."""


def test_the_published_test_of_1019_is_reproduced() -> None:
    """Its three seeds are public; of its baseline (#549) the difference of the means and t,
    which leave df no choice.
    """
    ours = [1.11508120, 1.11437394, 1.11475014]
    difference, t = -0.00464458, -11.8339
    v_ours = np.var(ours, ddof=1) / 3
    sd_baseline = math.sqrt(3 * ((difference / t) ** 2 - v_ours))
    middle = float(np.mean(ours)) - difference
    test = welch(ours, [middle - sd_baseline, middle, middle + sd_baseline], NO_MARGIN, SP1024)
    assert test.t == pytest.approx(-11.8339, abs=1e-4)
    assert test.df == pytest.approx(3.3063, abs=1e-3)


@pytest.mark.parametrize(("t", "p"), [(31.42, 0.00051), (9.06, 0.006)])
def test_against_a_constant_it_is_the_one_sample_test_of_the_early_records(t: float, p: float) -> None:
    """2026-03-18/19: three seeds against a constant, df 2."""
    sd, mean = 0.0005, 1.2
    constant = mean + t * sd / math.sqrt(3)
    test = welch([mean - sd, mean, mean + sd], [constant, constant, constant], NO_MARGIN, SP1024)
    assert test.t == pytest.approx(-t)
    assert test.df == pytest.approx(2)
    assert test.p == pytest.approx(p, rel=0.02)


def test_a_small_case_by_hand() -> None:
    """ours 1, 2, 3: mean 2, v = 1/3. baseline 4, 8: mean 6, v = 4. t = -4 / sqrt(13/3), df = (13/3)^2 / (1/18
    + 16).
    """
    test = welch([1, 2, 3], [4, 8], NO_MARGIN, 1.0)
    assert test.t == pytest.approx(-4 / math.sqrt(13 / 3))
    assert test.df == pytest.approx((13 / 3) ** 2 / (1 / 18 + 16))


samples = st.lists(st.floats(0.5, 3.0, width=32), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(samples, samples, st.floats(0, 0.01))
def test_it_agrees_with_an_independent_implementation(
    ours: list[float], baseline: list[float], margin: float
) -> None:
    assume(np.std(ours) > 1e-3 and np.std(baseline) > 1e-3)
    test = welch(ours, baseline, Significance("x", 0.01, margin, "a test"), SP1024)
    twin = scipy_stats.ttest_ind(
        ours, [value - test.margin_bpb for value in baseline], equal_var=False, alternative="less"
    )
    assert (test.t, test.df, test.p) == pytest.approx(
        (twin.statistic, twin.df, twin.pvalue), rel=1e-6, abs=1e-12
    )


@pytest.mark.parametrize(("bytes_per_token", "bpb"), [(SP1024, 0.0030), (SP8192, 0.0019), (CASEOPS, 0.0023)])
def test_five_thousandths_of_a_nat_are_other_bits_per_byte_in_each_tokenizer(
    bytes_per_token: float, bpb: float
) -> None:
    readme = next(rule for rule in SIGNIFICANCE if rule.name == "readme")
    test = welch([1.0, 1.1], [1.0, 1.1], readme, bytes_per_token)
    assert round(test.margin_bpb, 4) == bpb


def test_the_margin_must_be_gained_beside_the_significance() -> None:
    readme, progression = SIGNIFICANCE
    baseline = [1.1200, 1.1201, 1.1199]
    ours = [value - 0.0028 for value in baseline]  # 0.0047 nats in SP1024: significant, but not by 0.005
    assert (progression.p_below, progression.margin_nats) == (0.25, 0.0)
    assert welch(ours, baseline, progression, SP1024).better
    assert not welch(ours, baseline, readme, SP1024).better
    assert welch([value - 0.0010 for value in ours], baseline, readme, SP1024).better


def test_lower_is_better_and_the_test_is_one_sided() -> None:
    low, high = [1.0, 1.01, 1.02], [1.1, 1.11, 1.12]
    better, worse = welch(low, high, NO_MARGIN, 1.0), welch(high, low, NO_MARGIN, 1.0)
    assert (better.better, worse.better) == (True, False)
    assert better.p + worse.p == pytest.approx(1)


@pytest.mark.parametrize(
    ("ours", "baseline"), [([1.0], [1.1, 1.2]), ([1.0, 1.1], [1.2]), ([1.0, 1.0], [1.1, 1.1])]
)
def test_where_it_is_undefined_it_gives_no_number(ours: list[float], baseline: list[float]) -> None:
    with pytest.raises(AssertionError):
        welch(ours, baseline, NO_MARGIN, 1.0)


def test_spread_is_any_difference_within_a_sample_not_between_samples() -> None:
    assert not has_spread([1.0, 1.0], [2.0, 2.0, 2.0])
    assert has_spread([1.0, 1.0], [2.0, 2.0, 2.0000001])


def test_the_interval_of_three_values_uses_student_with_two_degrees() -> None:
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.mean, summary.sd) == (2.0, 1.0)
    assert summary.ci95 == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))


def test_one_value_has_a_mean_and_neither_spread_nor_interval() -> None:
    assert tuple(summarise([1.5])) == (1.5, None, None)


def test_equal_values_have_no_spread_and_an_interval_of_one_point() -> None:
    summary = summarise([1.1, 1.1, 1.1])
    assert summary.sd == pytest.approx(0, abs=1e-15)
    assert summary.ci95 == pytest.approx((1.1, 1.1))
