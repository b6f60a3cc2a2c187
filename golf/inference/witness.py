"""The witness: a second contestant that is shown strict prefixes and asked for distributions, never for
numbers.

It is shown tokens (`reveal`), asked for the next one's distribution (`predict`) or for that of many separate
contexts at once (`lanes`), and at the scorer's borders told to learn (`adapt`). It then makes the very pass
over the chunk by which the scorer's learners saw its predictions, in the same batches, and so learns the
same: on a CPU bit for bit.

Not covered: lanes where something is learned, since their contexts would be those of different chunks.
"""

from __future__ import annotations

import numpy as np

from golf.inference import windows
from golf.inference.server import Server
from golf.inference.windows import TokenBuffer
from golf.runtime.wire import Frame, WireError

MOST_LANE_BYTES = 1 << 26


def lanes(server: Server, frame: Frame) -> list[TokenBuffer]:
    """A `lanes` frame -> its contexts. starts[i] is the stream position of context i's first token."""
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
    if len(tokens) and int(tokens.max()) >= server.vocab_size:
        raise WireError("frame lanes: a token beyond the vocabulary")
    ends = np.cumsum(lengths)
    tails = [
        TokenBuffer(start, tokens[end - n : end]) for start, n, end in zip(starts, lengths, ends, strict=True)
    ]
    for tail in tails:
        if not 1 <= tail.stop < server.n_tokens:
            raise WireError(f"frame lanes: token {tail.stop} of {server.n_tokens} is not predicted")
        asked = windows.target_window(tail.stop, server.predictor.window, server.predictor.stride)
        if tail.start > asked.start:
            raise WireError(
                f"frame lanes: token {tail.stop} needs the tokens from {asked.start} on, "
                f"got those from {tail.start} on"
            )
    return tails


def serve(server: Server) -> None:
    """reveal -> revealed, predict -> row, and lanes -> rows or adapt -> adapted, until bye."""
    wire, tail = server.wire, server.tail
    asked = ["reveal", "predict"] + ["lanes"] * (server.adaptation is None)
    most = max(2 * server.chunk_tokens, MOST_LANE_BYTES)
    while (frame := wire.receive(*(["adapt"] if server.due else asked), "bye", max_bytes=most)).op != "bye":
        if frame.op == "reveal":
            server.reveal(frame)
            wire.send("revealed")
        elif frame.op == "predict":
            if not 1 <= tail.stop < server.n_tokens:
                raise WireError(f"predict after {tail.stop} of {server.n_tokens} tokens")
            wire.send("row", server.predictor.row(tail).astype("<f4").tobytes())
        elif frame.op == "lanes":
            wire.send("rows", server.rows(lanes(server, frame)).astype("<f4").tobytes())
        else:
            server.nats(server.adapted * server.chunk_tokens, tail.stop)  # for those who watch
            server.adapt(frame)
