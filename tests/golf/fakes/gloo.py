"""Run a function on several ranks over gloo, each in a process of its own, and collect what they return."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed

from golf.runtime.dist import Ranks

SECONDS = 120


def _rank(work: Callable[..., Any], rank: int, world: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = work(Ranks(rank, world, torch.device("cpu")), *arguments)
    distributed.destroy_process_group()
    torch.save(found, f"{folder}/{rank}")


def on_ranks(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`work(ranks, *arguments)` of each rank, in their order; `work` is a function of a module.

    A server forks the processes. It has imported all that AdamW needs, which takes over a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "golf.training.trainer", __name__])
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_rank, args=(work, rank, world, folder, arguments))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
        try:
            assert [process.exitcode for process in processes] == [0] * world
            return [torch.load(Path(folder) / str(rank)) for rank in range(world)]
        finally:
            for process in processes:
                process.kill()
