"""The score stage in threads of this process, one thread per rank, and a judge that queries it."""

from __future__ import annotations

import copy
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from golf.model.gpt import GPT
from golf.recipe.config import Config
from golf.runtime.dist import Ranks
from golf.runtime.wire import Closed, Setup, Wire
from golf.stages import score
from tests.golf.fakes.recipes import V

NOWHERE = Path("nowhere")


class ThreadReduce:
    """What the threads share to sum tensors over ranks."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=300)
        self.tensors: dict[int, torch.Tensor] = {}


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """Ranks that are threads of this process."""

    reduce: ThreadReduce

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.reduce.tensors[self.rank] = tensor.clone()
        self.reduce.barrier.wait()
        total = sum(self.reduce.tensors[rank] for rank in range(self.world))
        self.reduce.barrier.wait()
        tensor.copy_(total)

    def average(self, tensors) -> None:
        for tensor in tensors:
            self.all_reduce(tensor)
            tensor /= self.world


class Judge:
    """The other end of a running stage: sends frames, and requires answers of exactly the right length."""

    def __init__(self, connection: socket.socket) -> None:
        self.wire = Wire(connection)
        self.progress: list[float] = []

    def answer(self, op: str, n_floats: int) -> np.ndarray:
        """The payload of the next frame other than `progress`."""
        while (frame := self.wire.receive(op, "progress", max_bytes=4 * n_floats)).op == "progress":
            self.progress.append(frame.fields["fraction"])
        assert len(frame.payload) == 4 * n_floats
        return np.frombuffer(frame.payload, "<f4")

    def score(self, chunk: int, start: int, tokens: np.ndarray, row: bool) -> np.ndarray:
        self.wire.send("score", tokens.tobytes(), chunk=chunk, start=start)
        return self.answer("nats", len(tokens) + V * row)

    def adapt(self, chunk: int) -> np.ndarray:
        self.wire.send("adapt", chunk=chunk)
        return self.answer("adapted", V)

    def reveal(self, start: int, tokens: np.ndarray) -> None:
        self.wire.send("reveal", tokens.tobytes(), chunk=0, start=start)
        self.answer("revealed", 0)

    def predict(self) -> np.ndarray:
        self.wire.send("predict")
        return self.answer("row", V)

    def lanes(self, starts: list[int], contexts: list[np.ndarray]) -> np.ndarray:
        payload = b"".join(context.tobytes() for context in contexts)
        self.wire.send("lanes", payload, starts=starts, lengths=[len(context) for context in contexts])
        return self.answer("rows", len(starts) * V).reshape(-1, V)


@contextmanager
def stage(
    model: GPT, config: Config, role: str, n_tokens: int, *, world: int = 1, most_chunk: int = 1 << 18
) -> Iterator[Judge]:
    """Run the stage in one thread per rank; yields its judge. An error of the stage is raised at the end."""
    ours, theirs = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(world - 1)]
    wires = [
        Wire(theirs, peers=tuple(ours for ours, _ in pairs)),
        *(Wire(theirs, muted=True) for _, theirs in pairs),
    ]
    setup = Setup(
        "score",
        1,
        "record",
        V,
        NOWHERE,
        NOWHERE,
        NOWHERE,
        {"chunk_tokens": most_chunk},
        artifact=NOWHERE,
        role=role,
        tokens=n_tokens,
    )
    reduce = ThreadReduce(world)
    errors: list[Exception] = []

    def run(rank: int) -> None:
        ranks = ThreadRanks(rank, world, torch.device("cpu"), reduce)
        try:
            score.serve_role(wires[rank], setup, config, ranks, copy.deepcopy(model))
        except Exception as error:
            errors.append(error)
            reduce.barrier.abort()
        finally:
            wires[rank].close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    with ours:
        judge = Judge(ours)
        judge.ready = judge.wire.receive("ready").fields
        try:
            yield judge
            judge.wire.send("bye")
        except Closed as error:
            # A stage may exit as soon as it reads an invalid frame; its own error takes precedence.
            errors.append(error)
        finally:
            ours.shutdown(socket.SHUT_WR)
            for thread in threads:
                thread.join(300)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Closed))


def stream(n: int, seed: int = 0) -> np.ndarray:
    """Random tokens with a document boundary (token 1) every 37."""
    random = np.random.default_rng(seed)
    tokens = random.integers(2, V, n).astype("<u2")
    tokens[::37] = 1
    return tokens


def score_stream(
    model: GPT, config: Config, tokens: np.ndarray, *, chunk: int = 0, world: int = 1
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A whole run of the scorer: nats of all tokens, and the boundary predictions.

    A chunk has `chunk` tokens, or as many as `ready` announced if that is 0.
    """
    nats, rows = [], []
    with stage(model, config, "scorer", len(tokens), world=world) as judge:
        adapts, chunk = judge.ready["adapts"], chunk or judge.ready["chunk_tokens"]
        for number, start in enumerate(range(0, len(tokens), chunk)):
            part = tokens[start : start + chunk]
            boundary = start + len(part) < len(tokens)
            answer = judge.score(number, start, part, boundary and not adapts)
            nats.append(answer[: len(part)])
            if boundary:
                rows.append(judge.adapt(number) if adapts else answer[len(part) :])
    return np.concatenate(nats), rows
