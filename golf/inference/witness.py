"""The witness: a copy of the scorer that predicts the tokens that the judge picks before it is shown them.

It receives tokens (`reveal`) and gives the distribution of the next one (`predict`), or those of many
separate contexts at once (`lanes`). At the scorer's chunk boundaries it is told to learn (`adapt`). It then
repeats the pass over the chunk that the scorer's learners observed, in the same batches, and so learns the
same: on a CPU bit for bit.

`lanes` is not allowed if the recipe learns, since the contexts would belong to different chunks.
"""

from __future__ import annotations

import numpy as np

from golf.inference.server import Server
from golf.inference.windows import TokenBuffer
from golf.runtime.wire import Frame, WireError

MAX_LANES_BYTES = 1 << 26


def read_contexts(server: Server, frame: Frame) -> list[TokenBuffer]:
    """The contexts of a `lanes` frame; starts[i] is the stream position of context i's first token."""
    starts, lengths = frame.get("starts", list), frame.get("lengths", list)
    if (
        len(starts) != len(lengths)
        or not starts
        or any(type(n) is not int or n < 0 for n in starts + lengths)
    ):
        raise WireError("frame lanes: starts and lengths must be equally many whole numbers, at least one")
    if sum(lengths) * 2 != len(frame.payload):
        raise WireError(f"frame lanes: {sum(lengths)} tokens announced, {len(frame.payload)} bytes came")
    tokens = np.frombuffer(frame.payload, "<u2")
    if len(tokens) and int(tokens.max()) >= server.stream.vocab_size:
        raise WireError("frame lanes: a token beyond the vocabulary")
    ends = np.cumsum(lengths)
    contexts = [
        TokenBuffer(start, tokens[end - n : end]) for start, n, end in zip(starts, lengths, ends, strict=True)
    ]
    for context in contexts:
        if not 1 <= context.stop < server.stream.n_tokens:
            n_tokens = server.stream.n_tokens
            raise WireError(f"frame lanes: token {context.stop} of {n_tokens} is not predicted")
        needed = server.predictor.rule.windows(context, context.stop, context.stop + 1)[0].start
        if context.start > needed:
            raise WireError(
                f"frame lanes: token {context.stop} needs the tokens from {needed} on, "
                f"got those from {context.start} on"
            )
    return contexts


def serve(server: Server) -> None:
    """Answer frames until `bye`: reveal -> revealed, predict -> row, lanes -> rows or adapt -> adapted."""
    wire, buffer = server.wire, server.buffer
    questions = ["reveal", "predict"] + ["lanes"] * (server.adaptation is None)
    max_bytes = max(2 * server.stream.chunk_tokens, MAX_LANES_BYTES)
    while True:
        expected = ["adapt"] if server.adapt_due else questions
        frame = wire.receive(*expected, "bye", max_bytes=max_bytes)
        if frame.op == "bye":
            return
        if frame.op == "reveal":
            server.reveal(frame)
            wire.send("revealed")
        elif frame.op == "predict":
            if not 1 <= buffer.stop < server.stream.n_tokens:
                raise WireError(f"predict after {buffer.stop} of {server.stream.n_tokens} tokens")
            wire.send("row", server.row().astype("<f4").tobytes())
        elif frame.op == "lanes":
            wire.send("rows", server.rows(read_contexts(server, frame)).astype("<f4").tobytes())
        else:
            # The learners observe the chunk's predictions; its nats are not needed.
            server.nats(server.n_adapted * server.stream.chunk_tokens, buffer.stop)
            server.adapt(frame)
