"""What golf compiles: whole graphs only, and none after the warm-up."""

from __future__ import annotations

import pytest
import torch

from golf.runtime import compilation
from golf.runtime.errors import StageError


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    yield
    torch._dynamo.config.error_on_recompile = False


def doubled(x, times):
    return x * times


def test_after_the_warm_up_known_shapes_run_and_a_new_shape_is_an_error_that_names_it():
    double = compilation.Compiled(doubled)
    small, large = torch.ones(2), torch.ones(3)
    double(small, 2), double(large, 2)
    compilation.refuse_from_now_on()
    assert double(small, 2).tolist() == [2, 2]
    assert double(large, 2).tolist() == [2, 2, 2]
    with pytest.raises(StageError, match=r"inside the judge's clock: .*size mismatch.*actual 5"):
        double(torch.ones(5), 2)
    assert double(small, 2).tolist() == [2, 2]


def test_after_the_warm_up_a_new_python_value_and_a_first_call_are_errors():
    double, later = compilation.Compiled(doubled), compilation.Compiled(lambda x: x + 1)
    double(torch.ones(2), 2)
    compilation.refuse_from_now_on()
    with pytest.raises(StageError, match=r"times == 2"):
        double(torch.ones(2), 3)
    with pytest.raises(StageError, match=r"not called before; run every phase and shape before `ready`"):
        later(torch.ones(2))


def test_more_shapes_than_pytorch_allows_by_itself_get_a_graph_each():
    double = compilation.Compiled(doubled)
    for n in range(2, 22):
        assert double(torch.ones(n), 2).sum() == 2 * n
    assert compilation.MAX_GRAPHS > 20


def test_a_graph_break_is_an_error():
    def broken(x):
        torch._dynamo.graph_break()
        return x

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compilation.Compiled(broken)(torch.ones(2))


def test_an_error_of_the_function_itself_stays_what_it_is():
    with pytest.raises(Exception, match="same reduction dim") as caught:
        compilation.Compiled(lambda x: x @ x)(torch.ones(2, 3))
    assert not isinstance(caught.value, StageError)
