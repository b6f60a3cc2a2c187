"""The score stage in threads of this process, a thread for each rank, and a judge who asks it."""

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
from tests.golf.recipes import V

NOWHERE = Path("nowhere")


class Meeting:
    """What one thread for each rank needs to sum tensors."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=60)
        self.tensors: dict[int, torch.Tensor] = {}


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """Ranks that are threads of this process."""

    meeting: Meeting

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.meeting.tensors[self.rank] = tensor.clone()
        self.meeting.barrier.wait()
        total = sum(self.meeting.tensors[rank] for rank in range(self.world))
        self.meeting.barrier.wait()
        tensor.copy_(total)

    def average(self, tensors) -> None:
        for tensor in tensors:
            self.all_reduce(tensor)
            tensor /= self.world


class Judge:
    """The other end of a running stage: asks, and reads answers of exactly the lawful length."""

    def __init__(self, connection: socket.socket) -> None:
        self.wire = Wire(connection)
        self.progress: list[float] = []

    def answer(self, op: str, n_floats: int) -> np.ndarray:
        """The payload of the next frame that is no progress."""
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
    """The stage in a thread for each rank, its judge here. An error of the stage is raised at the end."""
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
    meeting = Meeting(world)
    errors: list[Exception] = []

    def run(rank: int) -> None:
        ranks = ThreadRanks(rank, world, torch.device("cpu"), meeting)
        try:
            score.answer(wires[rank], setup, config, ranks, copy.deepcopy(model))
        except Exception as error:
            errors.append(error)
            meeting.barrier.abort()
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
        except (
            Closed
        ) as error:  # a stage may leave the moment it reads a foul line; its own error counts for more
            errors.append(error)
        finally:
            ours.shutdown(socket.SHUT_WR)
            for thread in threads:
                thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Closed))


def stream(n: int, seed: int = 0) -> np.ndarray:
    """Random tokens with a document border (1) now and then."""
    random = np.random.default_rng(seed)
    tokens = random.integers(2, V, n).astype("<u2")
    tokens[::37] = 1
    return tokens


def scored(
    model: GPT, config: Config, tokens: np.ndarray, *, chunk: int = 0, world: int = 1
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A whole run of the scorer: numbers of all tokens, and the border rows; `chunk` tokens a chunk, 0: as
    announced."""
    nats, rows = [], []
    with stage(model, config, "scorer", len(tokens), world=world) as judge:
        adapts, chunk = judge.ready["adapts"], chunk or judge.ready["chunk_tokens"]
        for number, start in enumerate(range(0, len(tokens), chunk)):
            part = tokens[start : start + chunk]
            border = start + len(part) < len(tokens)
            answer = judge.score(number, start, part, border and not adapts)
            nats.append(answer[: len(part)])
            if border:
                rows.append(judge.adapt(number) if adapts else answer[len(part) :])
    return np.concatenate(nats), rows
