"""Two trainings on one card in turns, from equal weights, on the same batches, under the same schedule.

The card's speed drifts, so the ratio of two rates is taken round by round. Both log the loss of every step,
which costs no synchronisation. The first is the loss of equal weights on equal tokens; in float32 on a CPU
the next ones agree to six digits. Later ones drift apart even where both do the same, because Muon raises
rounding in weak directions to full size: compare their means. A turn's seconds include waiting for the GPU
at its end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.worker import Process, Requests

EARLY = 5
"""Steps whose losses are compared one by one in the table."""
LATE_SECONDS = 20.0
"""How much longer than asked a turn may take, since a step is never cut."""


class Turn(NamedTuple):
    """What one turn did."""

    steps: int
    seconds: float
    losses: list[float]
    """Nats a token of each step, on the batch before its update."""


class Gate:
    """Called before each training step: true if the step may be taken, false if the race is over.

    Between turns it answers the call's requests by the methods of `handler`. The request `turn` begins a
    turn of so many `seconds`; any other request that `handler` lacks ends the race. `synchronise` waits for
    the GPU.
    """

    def __init__(
        self,
        requests: Requests,
        handler: object,
        synchronise: Callable[[], None],
        read: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.requests, self.handler, self.synchronise, self.read = requests, handler, synchronise, read
        self.began = 0.0
        self.end: float | None = None
        self.losses: list[Tensor] = []

    def __call__(self) -> bool:
        if self.end is not None:
            if self.read() < self.end:
                return True
            self.synchronise()
            losses = torch.stack(self.losses).tolist() if self.losses else []
            self.requests.answer(Turn(len(losses), self.read() - self.began, losses))
            self.end = None
        request = self.requests.serve(self.handler)
        if request.name != "turn":
            self.requests.answer(None)
            return False
        self.losses = []
        self.began = self.read()
        self.end = self.began + request.arguments["seconds_of_turn"]
        return True

    def record(self, loss: Tensor) -> None:
        """Keep the loss of the step that was just launched, on the device."""
        self.losses.append(loss.detach())


class Rates(NamedTuple):
    """Tokens per second of one contestant, turn by turn, and all losses."""

    per_turn: list[float]
    losses: list[float]

    @property
    def median(self) -> float:
        """The median turn."""
        return statistics.median(self.per_turn)


def rates(turns: Sequence[Turn], batch_tokens: int) -> Rates:
    """What the turns of one contestant say."""
    return Rates(
        [turn.steps * batch_tokens / turn.seconds for turn in turns],
        [loss for turn in turns for loss in turn.losses],
    )


def run(
    processes: Sequence[Process],
    turn_seconds: float,
    seconds: float,
    read: Callable[[], float] = time.monotonic,
) -> list[list[Turn]]:
    """The turns of each of two processes, in rounds, as many as fit into `seconds`, but at least one.

    A round is begun only if one as long as the longest so far still fits. Who begins alternates, so that a
    steady drift cancels. Raises Failed for a turn without a step.
    """
    turns = [list[Turn]() for _ in processes]
    end, longest = read() + seconds, 0.0
    while not turns[0] or read() + longest <= end:
        began = read()
        order = list(range(len(processes)))
        for index in order if len(turns[0]) % 2 == 0 else order[::-1]:
            turn = processes[index].ask("turn", turn_seconds + LATE_SECONDS, seconds_of_turn=turn_seconds)
            if not turn.steps:
                raise Failed(f"{processes[index].name} took no step in a turn of {turn_seconds:g} s")
            turns[index].append(turn)
        longest = max(longest, read() - began)
    for process in processes:
        process.ask("finish", LATE_SECONDS)
    return turns


def start_equal(opponent: Process, golf: Process, file: Path, seconds: float) -> None:
    """Give golf the opponent's initial weights, by way of a file."""
    opponent.ask("save_weights", seconds, file=file)
    golf.ask("load_weights", seconds, file=file)
    file.unlink()


def found(golf: Rates, opponent: Rates, batch_tokens: int) -> Found:
    """golf's rate over the opponent's (median and range of the rounds), and how the losses differ."""
    ratios = [a / b for a, b in zip(golf.per_turn, opponent.per_turn, strict=True)]
    steps = min(len(golf.losses), len(opponent.losses))
    apart = [abs(a - b) for a, b in zip(golf.losses[:steps], opponent.losses[:steps], strict=True)]
    late = slice(steps * 3 // 4, steps)
    seen = (
        f"golf at {statistics.median(ratios):.3f} times #586's tokens per second ({min(ratios):.3f} to "
        f"{max(ratios):.3f} in {len(ratios)} rounds): {golf.median:,.0f} and {opponent.median:,.0f} "
        f"tokens/s, {batch_tokens / golf.median * 1e3:.1f} and {batch_tokens / opponent.median * 1e3:.1f} ms "
        f"a step of {batch_tokens:,} tokens; loss of equal weights {golf.losses[0]:.5f} and "
        f"{opponent.losses[0]:.5f}, at most {max(apart[:EARLY]):.1e} apart in the first {EARLY} steps, mean "
        f"of steps {late.start + 1} to {steps} "
        f"{statistics.mean(golf.losses[late]):.4f} and {statistics.mean(opponent.losses[late]):.4f}"
    )
    numbers = {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "batch_tokens": batch_tokens,
        "loss_apart": apart,
        "golf": golf._asdict(),
        "opponent": opponent._asdict(),
    }
    return Found(seen, numbers)
