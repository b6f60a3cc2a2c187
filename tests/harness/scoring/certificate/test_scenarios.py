"""The scenarios of the simulation: honest ones do not fail, plain cheats do, and those are
honest at chunk boundaries.
"""

from __future__ import annotations

import numpy as np
import pytest

from harness.scoring.certificate.simulation.experiments import certificates, outcomes
from harness.scoring.certificate.simulation.scenarios import CHEATS, CHUNK_TOKENS, HELD_OUT, HONEST, Scenario
from tests.harness.fakes.certificates import scored_text

TEXT = scored_text(60_000, chunk_tokens=CHUNK_TOKENS)
PLAIN = {
    "peek everywhere",
    "peek at 1 %",
    "shift of 0.004 nats",
    "the same in noise of 0.0125",
    "adapting: shift of 0.004 nats",
    "half the nats, last 20 % of the text",
    "adapting: peek at 1 %",
}


@pytest.mark.parametrize("scenario", [*HONEST, *HELD_OUT], ids=lambda scenario: scenario.name)
def test_an_honest_program_does_not_fail(scenario: Scenario) -> None:
    assert outcomes(np.random.default_rng(11), TEXT, scenario, 1_024, 4)["fail"] == 0


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in CHEATS if scenario.name in PLAIN],
    ids=lambda scenario: scenario.name,
)
def test_a_plain_cheat_is_proved_in_every_draw(scenario: Scenario) -> None:
    assert outcomes(np.random.default_rng(12), TEXT, scenario, 4_096, 4)["fail"] == 4


@pytest.mark.parametrize("scenario", CHEATS, ids=lambda scenario: scenario.name)
def test_a_cheat_is_honest_at_chunk_boundaries(scenario: Scenario) -> None:
    reported_T, first_T, _ = scenario.make(np.random.default_rng(13), TEXT, 512)
    assert np.abs(reported_T - first_T)[::CHUNK_TOKENS].max() < 0.1
    assert (reported_T < first_T - 1e-4).any(), "it gains somewhere"


def test_noise_in_an_adapting_scorer_hides_a_gain_but_never_passes() -> None:
    noisy = next(scenario for scenario in CHEATS if scenario.name == "adapting: the same in noise of 0.0125")
    for seed in range(4):
        rounds = certificates(np.random.default_rng(seed), TEXT, noisy, 4_096)
        assert rounds[-1].conditions[0].outcome in ("unknown", "fail")
