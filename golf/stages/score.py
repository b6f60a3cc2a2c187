"""Stage score: answers the judge's `score` frames, or, as a witness, its blind questions
(golf/inference/witness.py).

What: the scorer is shown the stream chunk by chunk and gives -ln p of every token, and before each chunk but
the first the border row: the distribution of its first token, which is not known yet. That token's number in
the next answer is read off the row that was sent. Where the recipe learns from scored text it says `adapts`,
and changes nothing but in answer to `adapt`; then the border row comes with `adapted`, from what was learned.

Not covered: what is learned, and how (golf/inference/adapt.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from golf.inference import witness
from golf.inference.adapt import Adaptation
from golf.inference.predict import Predictor
from golf.inference.server import Server
from golf.inference.windows import TokenBuffer
from golf.model import kernels
from golf.model.gpt import GPT
from golf.recipe.config import Config
from golf.runtime import dist
from golf.runtime.dist import Ranks
from golf.runtime.wire import Setup, Wire, WireError
from golf.stages import pack


def serve(server: Server) -> None:
    """score -> nats, with the border row or followed by adapt -> adapted, chunk by chunk, until bye."""
    wire, tail = server.wire, server.tail
    border_V: np.ndarray | None = None
    chunk = 0
    while (
        frame := wire.receive("adapt" if server.due else "score", "bye", max_bytes=2 * server.chunk_tokens)
    ).op != "bye":
        if frame.op == "adapt":
            border_V = server.adapt(frame)
            continue
        if frame.get("chunk", int) != chunk:
            raise WireError(f"chunk {frame.fields['chunk']} was revealed where chunk {chunk} was due")
        start = tail.stop
        tokens = server.reveal(frame)
        if server.adaptation is not None and tail.stop < server.border:
            raise WireError(
                f"chunk {chunk} ends at {tail.stop}, but chunks to learn from have {server.chunk_tokens} "
                "tokens"
            )
        nats = server.nats(start, tail.stop)
        if border_V is not None:
            nats[0] = -border_V[tokens[0]]
        payload = nats.astype("<f4").tobytes()
        if tail.stop < server.n_tokens and not server.due:
            border_V = server.predictor.row(tail)
            payload += border_V.astype("<f4").tobytes()
        wire.send("nats", payload, chunk=chunk)
        chunk += 1


class Role(NamedTuple):
    """How a role answers, and whether it must be able to repeat a chunk's pass."""

    serve: Callable[[Server], None]
    repeats: bool


ROLES = {"scorer": Role(serve, repeats=False), "witness": Role(witness.serve, repeats=True)}


def load(setup: Setup, config: Config, ranks: Ranks) -> GPT:
    """The artifact's model on this rank's device."""
    assert setup.artifact is not None
    dtype = dist.precision(config, ranks.device)
    kernel = kernels.choose(ranks.device, dtype)
    most = setup.limits["counted_bytes"]
    model = pack.load(setup.artifact, config, setup.vocab_size, most, dtype=dtype, attention=kernel.name)
    ranks.log(f"{dtype}, {ranks.world} x {ranks.device}, attention {kernel.name} ({kernel.why})")
    return model.to(ranks.device)


def make_server(wire: Wire, setup: Setup, config: Config, ranks: Ranks, model: GPT) -> Server:
    """Everything that the stage needs, every kernel run once on made-up tokens, what that taught undone."""
    score, cuda = config.score, ranks.device.type == "cuda"
    chunk_tokens = min(score.chunk_tokens, setup.limits["chunk_tokens"] // score.stride * score.stride)
    compiled = torch.compile(model, dynamic=False) if cuda else model
    adaptation = (
        Adaptation(
            compiled,
            model.parameters(),
            config.adapt,
            vocab_size=setup.vocab_size,
            n_tokens=setup.tokens,
            chunk_tokens=chunk_tokens,
            ranks=ranks,
            micro_tokens=config.hardware.micro_tokens,
        )
        if config.adapt.on
        else None
    )
    forward, full = (adaptation.biased(each) if adaptation else each for each in (model, compiled))
    predictor = Predictor(
        forward,
        window=score.window,
        stride=score.stride,
        batch=score.batch_windows,
        device=ranks.device,
        full=full if cuda else None,
    )
    made_up = np.arange(max(chunk_tokens, 2 * score.window), dtype=np.int64) % setup.vocab_size
    a_batch = TokenBuffer(0, made_up[: 2 * score.window])
    predictor.nats(a_batch, score.window, 2 * score.window, watch=adaptation.watch if adaptation else None)
    predictor.rows([a_batch] * score.batch_windows)
    if adaptation is not None:
        adaptation.rehearse(made_up[:chunk_tokens])
    keep = score.window + (chunk_tokens if ROLES[setup.role].repeats else 0)
    return Server(wire, ranks, predictor, adaptation, setup.vocab_size, setup.tokens, chunk_tokens, keep)


def answer(wire: Wire, setup: Setup, config: Config, ranks: Ranks, model: GPT) -> None:
    """`ready`, and then what the role demands."""
    server = make_server(wire, setup, config, ranks, model)
    wire.send(
        "ready",
        chunk_tokens=server.chunk_tokens,
        adapts=config.adapt.on,
        context=config.score.window,
        world=ranks.world,
        attention=model.attention,
    )
    ROLES[setup.role].serve(server)


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage, from the artifact to the judge's `bye`."""
    if setup.role not in ROLES:
        raise WireError(f"role {setup.role!r}; known: {', '.join(ROLES)}")
    answer(wire, setup, config, ranks, load(setup, config, ranks))
