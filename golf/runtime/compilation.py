"""When and how golf compiles: on CUDA only, one whole graph for each phase and shape, all before `ready`.

A graph break would leave part of a step uncompiled without a word, so `fullgraph` makes it an error. Shapes
are static. `refuse_from_now_on` ends the warm-up: what would be compiled later is an error too, because it
would take minutes of the judge's clock. #586 lost 35 s of its training to a graph that its warm-up had not
covered.

Not covered: kernels that PyTorch's libraries choose or build at their first call, and the backward pass of a
graph that the warm-up ran only forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from golf.runtime.errors import StageError

BACKEND: str | Callable[..., Any] = "inductor"
MAX_GRAPHS = 64
"""Most graphs of one function, in all phases and shapes; PyTorch's own limit is 8."""
MAX_THREADS = 8
"""Compile processes a rank: eight ranks share the machine's cores."""


def wanted(device: torch.device) -> bool:
    """Whether models on this device are compiled. A CPU would need a C++ compiler, which images lack."""
    return device.type == "cuda"


class Compiled:
    """A function or module as one graph for each combination of shapes and Python values that it is called
    with.

    Raises StageError where a new combination comes after `refuse_from_now_on`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        import torch._inductor.config as inductor  # takes seconds, which a CPU need not pay

        torch._dynamo.config.recompile_limit = MAX_GRAPHS
        inductor.compile_threads = min(MAX_THREADS, inductor.compile_threads or MAX_THREADS)
        self.graph = torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)
        self.called = False

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not self.called and torch._dynamo.config.error_on_recompile:  # PyTorch allows a first graph
            raise StageError(refused("this function was not called before"))
        self.called = True
        try:
            return self.graph(*args, **options)
        except torch._dynamo.exc.RecompileError as error:
            failed = [line.strip(" -") for line in str(error).splitlines()[2:]]
            raise StageError(refused(" | ".join(failed))) from error


def refused(cause: str) -> str:
    """The message of a graph that comes too late."""
    return (
        f"a new graph is needed after the warm-up, and would be compiled inside the judge's clock: {cause}; "
        "run every phase and shape before `ready`"
    )


def refuse_from_now_on() -> None:
    """Make every compilation in this process an error from here on; graphs that exist keep running."""
    torch._dynamo.config.error_on_recompile = True
