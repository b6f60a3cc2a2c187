"""The made-up programs of the simulations: honest ones are not accused, plain cheats are, and those are
honest at borders."""

from __future__ import annotations

import numpy as np
import pytest

from harness.scoring.certificate.simulation.scenarios import CHEATS, CHUNK_TOKENS, HELD_OUT, HONEST, Scenario
from harness.scoring.certificate.simulation.experiments import certificates, outcomes
from tests.harness.scoring.certificate.certificates import scored_text

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


@pytest.mark.parametrize("world", [*HONEST, *HELD_OUT], ids=lambda world: world.name)
def test_an_honest_program_is_not_accused(world: Scenario) -> None:
    assert outcomes(np.random.default_rng(11), TEXT, world, 1_024, 4)["fail"] == 0


@pytest.mark.parametrize(
    "world", [world for world in CHEATS if world.name in PLAIN], ids=lambda world: world.name
)
def test_a_plain_cheat_is_proved_in_every_draw(world: Scenario) -> None:
    assert outcomes(np.random.default_rng(12), TEXT, world, 4_096, 4)["fail"] == 4


@pytest.mark.parametrize("world", CHEATS, ids=lambda world: world.name)
def test_a_cheat_is_honest_where_it_had_to_answer_blind(world: Scenario) -> None:
    claims_T, first_T, _ = world.make(np.random.default_rng(13), TEXT, 512)
    assert np.abs(claims_T - first_T)[::CHUNK_TOKENS].max() < 0.1
    assert (claims_T < first_T - 1e-4).any(), "it gains somewhere"


def test_noise_in_an_adapting_scorer_hides_a_shave_and_never_lets_it_pass_unseen() -> None:
    noisy = next(world for world in CHEATS if world.name == "adapting: the same in noise of 0.0125")
    for seed in range(4):
        looks = certificates(np.random.default_rng(seed), TEXT, noisy, 4_096)
        assert looks[-1].conditions[0].outcome in ("unknown", "fail")
