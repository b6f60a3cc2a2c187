"""Gradients as views of one buffer: the place of each rank's share, clipping, and the exchange over gloo."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from golf.optim.gradients import FlatGradients, in_banks
from golf.runtime.dist import Ranks
from tests.golf.fakes.gloo import on_ranks
from tests.golf.fakes.tensors import random_tensor

SHAPES = [(6, 10), (4, 6), (6, 10), (6, 10), (4, 6), (6, 10), (6, 10)]
OTHERS = [(7, 3), (5,)]


def parameters(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    return [nn.Parameter(random_tensor(*shape, seed=i)) for i, shape in enumerate(shapes)]


def gradients_of(seed: int) -> list[torch.Tensor]:
    return [random_tensor(*shape, seed=100 * seed + i) for i, shape in enumerate([*SHAPES, *OTHERS])]


def filled(ranks: Ranks, **options) -> FlatGradients:
    """Gradients that differ from rank to rank."""
    flat = FlatGradients(parameters(SHAPES), parameters(OTHERS), ranks, **options)
    for view, gradient in zip(flat.views.values(), gradients_of(ranks.rank), strict=True):
        view.copy_(gradient)
    return flat


def test_backward_adds_into_the_buffer_and_one_call_clears_it():
    matrices = parameters([(6, 10)])
    flat = FlatGradients(matrices, [])
    for _ in range(2):
        (3 * matrices[0]).sum().backward()
    assert torch.equal(flat.flat[:60], torch.full((60,), 6.0))
    flat.zero()
    assert not matrices[0].grad.any()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_matrix_has_its_own_place_in_the_segment_of_one_rank(world):
    matrices = parameters(SHAPES)
    banks = in_banks(matrices, world)
    segments = torch.zeros(world, 10_000)
    for bank in banks:
        for matrix, view in zip(bank.matrices, bank.split(segments), strict=True):
            assert not view.any()
            view.copy_(matrix.detach())
    for bank in banks:
        shares = torch.cat([bank.share(segment) for segment in segments])
        assert torch.equal(shares[: len(bank.matrices)], torch.stack(bank.matrices))
        assert not shares[len(bank.matrices) :].any(), "padding"
        assert len(shares) < len(bank.matrices) + world


@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_clipping_scales_as_the_library_does(limit):
    flat = filled(Ranks(0, 1, torch.device("cpu")))
    expected = parameters([*SHAPES, *OTHERS])
    for parameter, gradient in zip(expected, gradients_of(0), strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(expected, limit, foreach=True)
    flat.clip(limit)
    assert all(torch.equal(p.grad, view) for p, view in zip(expected, flat.views.values(), strict=True))


@pytest.mark.parametrize("method", ["average", "reduce"])
def test_a_gradient_that_was_replaced_is_refused(method):
    flat = filled(Ranks(0, 1, torch.device("cpu")))
    next(iter(flat.views)).grad = None
    with pytest.raises(AssertionError, match=r"gradients of \[\(6, 10\)\] are no views"):
        getattr(flat, method)()


def exchanged(ranks: Ranks, banks: bool, exchange: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A rank's segment and the other gradients, averaged and clipped."""
    flat = filled(ranks, banks=banks, exchange=exchange)
    flat.reduce()
    flat.clip(1.0)
    return flat.own_S, flat.others


@pytest.mark.slow
@pytest.mark.parametrize(
    ("banks", "exchange", "tolerance"),
    [(True, torch.float32, 1e-7), (False, torch.float32, 1e-7), (True, torch.bfloat16, 2e-3)],
)
def test_ranks_receive_the_mean_of_their_own_matrices_clipped_by_the_norm_of_all(banks, exchange, tolerance):
    world = 3
    means = [torch.stack(g).mean(0) for g in zip(*map(gradients_of, range(world)), strict=True)]
    factor = 1.0 / (torch.cat([mean.flatten() for mean in means]).norm() + 1e-6)
    ranks = on_ranks(world, exchanged, banks, exchange)
    segments = torch.stack([own for own, _ in ranks])
    expected = dict(zip(range(len(SHAPES)), means, strict=False))
    order = [i for shape in ((6, 10), (4, 6)) for i, each in enumerate(SHAPES) if each == shape]
    found = [view for bank in in_banks(parameters(SHAPES), world) for view in bank.split(segments)]
    for i, view in zip(order, found, strict=True):
        torch.testing.assert_close(view, factor * expected[i], atol=tolerance, rtol=0)
    for _, others in ranks:
        torch.testing.assert_close(others[:21].view(7, 3), factor * means[-2], atol=tolerance, rtol=0)
        torch.testing.assert_close(others[64:69], factor * means[-1], atol=tolerance, rtol=0)
