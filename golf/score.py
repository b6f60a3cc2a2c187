"""Stage score: answers the judge's `score` frames, or, as a witness, its blind questions. Does not adapt.

What: the scorer is shown the stream chunk by chunk and gives -ln p of every token, and with each chunk but the last
the border row: the distribution of the next chunk's first token, which is not known yet. That token's number in the
next answer is read off the row that was sent. The witness is shown tokens (`reveal`), and asked for the next one's
distribution (`predict`) or for that of many separate contexts at once (`lanes`).

Both know only tokens that were sent to them, and keep the last window of them. With several ranks every rank hears
every frame and computes its share of the blocks or lanes; one sum over the ranks joins them, which is exact, since
each number is computed on one rank and zero on the others.

Not covered: adaptation (golf declares `adapts` false, so that an `adapt` frame is a violation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from golf import dist, pack, windows
from golf.config import Config
from golf.dist import Ranks
from golf.model import kernels
from golf.predict import Predictor
from golf.windows import Tail
from golf.wire import Frame, Setup, Wire, WireError

MOST_LANE_BYTES = 1 << 26


@dataclass
class Server:
    """One score stage: the predictor, the stream so far, and who else computes."""

    wire: Wire
    ranks: Ranks
    predictor: Predictor
    vocab_size: int
    n_tokens: int
    chunk_tokens: int
    tail: Tail = field(default_factory=Tail)

    def tokens(self, frame: Frame, start: int) -> np.ndarray:
        """The tokens that a frame reveals, uint16; WireError unless they follow on and fit stream and vocabulary."""
        if frame.get("start", int) != start or len(frame.payload) % 2 or not frame.payload:
            raise WireError(f"frame {frame.op}: expected whole tokens from position {start} on")
        tokens = np.frombuffer(frame.payload, "<u2")
        if start + len(tokens) > self.n_tokens or int(tokens.max()) >= self.vocab_size:
            raise WireError(f"frame {frame.op}: more than {self.n_tokens} tokens, or one beyond the vocabulary")
        return tokens

    def joined(self, part: np.ndarray, at: int, length: int) -> np.ndarray:
        """This rank's part, put in its place among `length` zeros and summed over the ranks."""
        if self.ranks.world == 1:
            return part
        whole = torch.zeros(length, *part.shape[1:], device=self.ranks.device)
        whole[at : at + len(part)] = torch.from_numpy(part).to(self.ranks.device)
        self.ranks.all_reduce(whole)
        return whole.cpu().numpy()

    def nats(self, start: int, stop: int) -> np.ndarray:
        """Numbers for the targets start .. stop - 1, shared over the ranks."""
        ranks, stride = self.ranks, self.predictor.stride
        low, high = windows.share(start, stop, stride, ranks.rank, ranks.world)

        def progress(part: float) -> None:
            done = start + part * (stop - start)
            self.wire.progress(done / self.n_tokens, f"{done:.0f} of {self.n_tokens} tokens")

        part = self.predictor.nats(self.tail, low, high, progress)
        return self.joined(part, low - start, stop - start)

    def rows(self, tails: list[Tail]) -> np.ndarray:
        """Rows for many contexts, shared over the ranks: float32, k x V."""
        rank, world = self.ranks.rank, self.ranks.world
        low, high = len(tails) * rank // world, len(tails) * (rank + 1) // world
        empty = np.zeros((0, self.vocab_size), np.float32)
        part = self.predictor.rows(tails[low:high]) if low < high else empty
        return self.joined(part, low, len(tails))


def serve_scorer(server: Server) -> None:
    """score -> nats (and the border row), chunk by chunk, until bye."""
    wire, tail, window = server.wire, server.tail, server.predictor.window
    border_V: np.ndarray | None = None
    chunk = 0
    while (frame := wire.receive("score", "bye", most=2 * server.chunk_tokens)).op != "bye":
        if frame.get("chunk", int) != chunk:
            raise WireError(f"chunk {frame.fields['chunk']} was revealed where chunk {chunk} was due")
        start = tail.stop
        tokens = server.tokens(frame, start)
        tail.reveal(tokens, keep=window)
        nats = server.nats(start, tail.stop)
        if border_V is not None:
            nats[0] = -border_V[tokens[0]]
        payload = nats.astype("<f4").tobytes()
        if tail.stop < server.n_tokens:
            border_V = server.predictor.row(tail)
            payload += border_V.astype("<f4").tobytes()
        wire.send("nats", payload, chunk=chunk)
        chunk += 1


def lanes(server: Server, frame: Frame) -> list[Tail]:
    """A `lanes` frame -> its contexts. starts[i] is the stream position of context i's first token."""
    starts, lengths = frame.get("starts", list), frame.get("lengths", list)
    if len(starts) != len(lengths) or not starts or any(type(n) is not int or n < 0 for n in starts + lengths):
        raise WireError("frame lanes: starts and lengths must be equally many whole numbers, at least one")
    if sum(lengths) * 2 != len(frame.payload):
        raise WireError(f"frame lanes: {sum(lengths)} tokens announced, {len(frame.payload)} bytes came")
    tokens = np.frombuffer(frame.payload, "<u2")
    if len(tokens) and int(tokens.max()) >= server.vocab_size:
        raise WireError("frame lanes: a token beyond the vocabulary")
    ends = np.cumsum(lengths)
    tails = [Tail(start, tokens[end - n : end]) for start, n, end in zip(starts, lengths, ends, strict=True)]
    for tail in tails:
        asked = windows.target_window(tail.stop, server.predictor.window, server.predictor.stride)
        if tail.start > asked.start or tail.stop >= server.n_tokens:
            raise WireError(f"frame lanes: token {tail.stop} needs the tokens from {asked.start} on, "
                            f"got those from {tail.start} on")  # fmt: skip
    return tails


def serve_witness(server: Server) -> None:
    """reveal -> revealed, predict -> row, lanes -> rows, in any order, until bye."""
    wire, tail = server.wire, server.tail
    most = max(2 * server.chunk_tokens, MOST_LANE_BYTES)
    while (frame := wire.receive("reveal", "predict", "lanes", "bye", most=most)).op != "bye":
        if frame.op == "reveal":
            tail.reveal(server.tokens(frame, tail.stop), keep=server.predictor.window)
            wire.send("revealed")
        elif frame.op == "predict":
            if not 1 <= tail.stop < server.n_tokens:
                raise WireError(f"predict after {tail.stop} of {server.n_tokens} tokens")
            wire.send("row", server.predictor.row(tail).astype("<f4").tobytes())
        else:
            wire.send("rows", server.rows(lanes(server, frame)).astype("<f4").tobytes())


ROLES: dict[str, Callable[[Server], None]] = {"scorer": serve_scorer, "witness": serve_witness}


def predictor_of(config: Config, setup: Setup, ranks: Ranks) -> Predictor:
    """The artifact's model under the recipe's windows, on this rank's device, every kernel run once."""
    assert setup.artifact is not None
    dtype = dist.precision(config, ranks.device)
    kernel = kernels.choose(ranks.device, dtype)
    most = setup.limits["counted_bytes"]
    model = pack.load(setup.artifact, config, setup.vocab_size, most, dtype=dtype, attention=kernel.name)
    model = model.to(ranks.device)
    predictor = Predictor(
        model, window=config.score.window, stride=config.score.stride, batch=config.score.batch_windows,
        device=ranks.device, full=torch.compile(model, dynamic=False) if ranks.device.type == "cuda" else None,
    )  # fmt: skip
    made_up = np.arange(2 * config.score.window, dtype=np.uint16) % setup.vocab_size
    predictor.rows([Tail(0, made_up)] * config.score.batch_windows)
    print(f"{dtype}, {ranks.world} x {ranks.device}, attention {kernel.name} ({kernel.why})", flush=True)
    return predictor


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage, from `ready` to the judge's `bye`."""
    if setup.role not in ROLES:
        raise WireError(f"role {setup.role!r}; known: {', '.join(ROLES)}")
    predictor = predictor_of(config, setup, ranks)
    stride = predictor.stride
    chunk_tokens = min(config.score.chunk_tokens, setup.limits["chunk_tokens"] // stride * stride)
    server = Server(wire, ranks, predictor, setup.vocab_size, setup.tokens, chunk_tokens)
    wire.send("ready", chunk_tokens=chunk_tokens, adapts=False, context=predictor.window, world=ranks.world,
              attention=kernels.choose(ranks.device, dist.precision(config, ranks.device)).name)
    ROLES[setup.role](server)
