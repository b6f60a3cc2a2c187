"""What a number of probes can decide: close to the bound of an exact program, for good and bad scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.scoring.certificate import sampling
from harness.scoring.certificate.certificate import certify
from harness.scoring.certificate.forecast import decisive_nats, forecast
from tests.harness.fakes.certificates import SEED, responses, scored_text


@pytest.mark.parametrize("probes", [50, 500, 4000])
@pytest.mark.parametrize("worse_nats", [0.0, 3.0])
def test_the_forecast_is_close_to_the_bound_of_an_exact_program(probes: int, worse_nats: float) -> None:
    """Also of one that predicts worse than the judge's n-gram, whose bound must not come out negative."""
    text = scored_text()
    nats_T = text.nats_T + np.where(np.arange(len(text.nats_T)) > 0, worse_nats, 0.0)
    text = replace(text, nats_T=nats_T)
    plan = sampling.draw(SEED, text, probes)
    expected = forecast(text, plan, "pocket")
    exact = certify(text, plan, [responses(plan, nats_T.astype(float))])
    assert 0 < expected.G_bpb == pytest.approx(exact.G_bpb, rel=0.1)


@pytest.mark.parametrize("profile", ["pocket", "record"])
def test_the_number_of_probes_that_it_asks_for_decides_and_one_less_does_not(profile: str) -> None:
    text = scored_text()
    needed = forecast(text, sampling.draw(SEED, text, 100), profile).probes_to_decide
    assert needed is not None
    enough = forecast(text, sampling.draw(SEED, text, needed + 1), profile)
    too_few = forecast(text, sampling.draw(SEED, text, needed - 2), profile)
    assert enough.G_bpb <= enough.decisive_bpb < too_few.G_bpb
    assert decisive_nats("record") < decisive_nats("pocket")


def test_a_witness_that_covers_a_small_part_of_the_text_can_decide_nothing() -> None:
    text = scored_text()
    plan = sampling.draw(SEED, text, 100, covered=len(text.nats_T) // 10)
    expected = forecast(text, plan, "pocket")
    assert expected.probes_to_decide is None
    assert expected.G_bpb > expected.decisive_bpb
