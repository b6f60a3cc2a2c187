"""No position sees a later token: changing token t changes no logits before t, and all from t on."""

from __future__ import annotations

import pytest
import torch

from golf.model.inputs import bigram_rows
from golf.recipe.config import load
from tests.golf.fakes.recipes import FULL, MODEL_TECHNIQUES, V, config_without, lively, some_ids

CONFIGS = {"all": load(FULL)} | {f"without {t.name}": config_without(t.name) for t in MODEL_TECHNIQUES}


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("t", [0, 1, 7, 19])
def test_changing_a_token_changes_no_logits_before_it(name, t):
    model, ids = lively(CONFIGS[name]), some_ids(2, 20)
    other = ids.clone()
    other[:, t] = (other[:, t] + 1) % V
    before, after = model(ids), model(other)
    torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-6, rtol=0)
    assert (after[:, t:] - before[:, t:]).abs().amax(dim=(0, 2)).min() > 1e-5


def test_the_hash_reads_a_token_and_its_predecessor():
    ids = torch.tensor([[3, 5, 3, 5]])
    assert bigram_rows(ids, 2048).tolist() == [
        [27191 * 3 % 2048, *((36313 * a + 27191 * b) % 2048 for a, b in ((3, 5), (5, 3), (3, 5)))]
    ]
