"""Stage score: as the scorer, give every token's nats; as a witness, predict tokens that are not shown yet.

The scorer receives the stream chunk by chunk and gives -ln p of every token. Before each chunk but the first
it also gives the boundary prediction: the distribution of the chunk's first token, which is not known yet.
The nats of that token in the next answer are read off the distribution that was sent. A recipe that learns
from scored text announces `adapts`, and the model changes only in response to `adapt`; the boundary
prediction then comes with `adapted`, from the updated model.

See golf/inference/witness.py for the witness and golf/inference/adapt.py for the learning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from golf.inference import deterministic, witness
from golf.inference.adapt import Adaptation
from golf.inference.predict import Predictor
from golf.inference.server import Server
from golf.inference.stream import StreamSpec
from golf.model import kernels
from golf.model.gpt import GPT
from golf.recipe.config import Config
from golf.runtime import compilation, dist
from golf.runtime.dist import Ranks
from golf.runtime.wire import Setup, Wire, WireError
from golf.stages import pack


def serve(server: Server) -> None:
    """Answer score -> nats, with the boundary prediction, and adapt -> adapted, until `bye`."""
    wire, buffer, stream = server.wire, server.buffer, server.stream
    boundary_V: np.ndarray | None = None
    chunk = 0
    while True:
        expected = "adapt" if server.adapt_due else "score"
        frame = wire.receive(expected, "bye", max_bytes=2 * stream.chunk_tokens)
        if frame.op == "bye":
            return
        if frame.op == "adapt":
            boundary_V = server.adapt(frame)
            continue
        if frame.get("chunk", int) != chunk:
            raise WireError(f"chunk {frame.fields['chunk']} was revealed, but chunk {chunk} was due")
        start = buffer.stop
        tokens = server.reveal(frame)
        if server.adaptation is not None and buffer.stop < server.chunk_end:
            required = f"chunks to learn from have {stream.chunk_tokens} tokens"
            raise WireError(f"chunk {chunk} ends at {buffer.stop}, but {required}")
        nats = server.nats(start, buffer.stop)
        if boundary_V is not None:
            nats[0] = -boundary_V[tokens[0]]
        payload = nats.astype("<f4").tobytes()
        if buffer.stop < stream.n_tokens and not server.adapt_due:
            boundary_V = server.row()
            payload += boundary_V.astype("<f4").tobytes()
        wire.send("nats", payload, chunk=chunk)
        chunk += 1


class Role(NamedTuple):
    """How a role serves the judge, and whether it may have to repeat a chunk's pass."""

    serve: Callable[[Server], None]
    repeats: bool


ROLES = {"scorer": Role(serve, repeats=False), "witness": Role(witness.serve, repeats=True)}


def load(setup: Setup, config: Config, ranks: Ranks) -> GPT:
    """Load the artifact's model onto this rank's device."""
    assert setup.artifact is not None
    dtype = dist.precision(config, ranks.device)
    kernel = kernels.choose(ranks.device, dtype, config, kernels.scoring_calls(config))
    max_bytes = setup.limits["counted_bytes"]
    model = pack.load(setup.artifact, config, setup.vocab_size, max_bytes, dtype=dtype, attention=kernel.name)
    ranks.log(f"{dtype}, {ranks.world} x {ranks.device}, attention {kernel.name} ({kernel.why})")
    return model.to(ranks.device)


def make_server(wire: Wire, setup: Setup, config: Config, ranks: Ranks, model: GPT) -> Server:
    """The server, after every kernel has run once on synthetic tokens and what was learned is undone."""
    score, compiles = config.score, compilation.wanted(ranks.device)
    chunk_tokens = min(score.chunk_tokens, setup.limits["chunk_tokens"] // score.stride * score.stride)
    stream = StreamSpec(setup.vocab_size, setup.tokens, chunk_tokens)
    compiled = compilation.Compiled(model) if compiles else model
    adaptation = Adaptation(compiled, model.parameters(), config, stream, ranks) if config.adapt.on else None
    forward, full = (adaptation.biased(each) if adaptation else each for each in (model, compiled))
    predictor = Predictor(
        forward,
        window=score.window,
        stride=score.stride,
        batch=score.batch_windows,
        bos=score.bos if score.align == "documents" else None,
        device=ranks.device,
        full=full if compiles else None,
        singles=score.single_windows,
    )
    predictor.warm_up(adaptation.observe if adaptation else None)
    if adaptation is not None:
        adaptation.warm_up(np.arange(chunk_tokens, dtype=np.int64) % setup.vocab_size)
    if compiles:
        compilation.refuse_from_now_on()
    keep = score.window + (chunk_tokens if ROLES[setup.role].repeats else 0)
    return Server(wire, ranks, predictor, adaptation, stream, keep)


def serve_role(wire: Wire, setup: Setup, config: Config, ranks: Ranks, model: GPT) -> None:
    """Send `ready`, then serve the judge in its role."""
    server = make_server(wire, setup, config, ranks, model)
    wire.send(
        "ready",
        chunk_tokens=server.stream.chunk_tokens,
        adapts=config.adapt.on,
        context=config.score.window,
        world=ranks.world,
        attention=model.attention,
    )
    ROLES[setup.role].serve(server)


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """Run the stage, from the artifact to the judge's `bye`."""
    if setup.role not in ROLES:
        raise WireError(f"role {setup.role!r}; known: {', '.join(ROLES)}")
    deterministic.fix_workspace(config, ranks.device)
    serve_role(wire, setup, config, ranks, load(setup, config, ranks))
