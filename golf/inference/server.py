"""The state of a score stage, for scorer and witness: the stream so far, its predictor, what was learned.

A stage knows only tokens that were sent to it. It keeps the last window of them; the witness keeps a chunk
more, since it must repeat a chunk's pass when it is told to learn from it. With several ranks, every rank
receives every frame and computes its share of the windows or contexts. A sum over the ranks joins the shares
exactly, since each number is computed on one rank and is zero on the others. A single row is computed by the
first rank alone.

If the recipe learns, chunks are those that `ready` announced, and each must be followed by `adapt`:
`adapt_due` says when. See golf/stages/score.py and golf/inference/witness.py for the order of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from golf.inference.adapt import Adaptation, Chunk
from golf.inference.predict import Predictor
from golf.inference.stream import StreamSpec
from golf.inference.windows import TokenBuffer
from golf.runtime.dist import Ranks
from golf.runtime.wire import Frame, Wire, WireError


@dataclass
class Server:
    """`adaptation` is None if nothing is learned. `keep`: earlier tokens to keep when more are revealed."""

    wire: Wire
    ranks: Ranks
    predictor: Predictor
    adaptation: Adaptation | None
    stream: StreamSpec
    keep: int
    buffer: TokenBuffer = field(default_factory=TokenBuffer)
    n_adapted: int = 0
    """Number of chunks that were learned from."""

    @property
    def chunk_end(self) -> int:
        """Where the current chunk ends, if the recipe learns."""
        return min((self.n_adapted + 1) * self.stream.chunk_tokens, self.stream.n_tokens)

    @property
    def adapt_due(self) -> bool:
        """Whether a chunk is complete, so that the next frame must be `adapt`."""
        return self.adaptation is not None and self.buffer.stop == self.chunk_end < self.stream.n_tokens

    def reveal(self, frame: Frame) -> np.ndarray:
        """Append the tokens of a frame, and return them as uint16.

        Raises WireError for tokens that leave a gap, exceed stream or vocabulary, or pass the end of a chunk
        that must be learned from; and, if windows are aligned to documents, for a stream without BOS at its
        start.
        """
        start = self.buffer.stop
        if frame.get("start", int) != start or len(frame.payload) % 2 or not frame.payload:
            raise WireError(f"frame {frame.op}: expected whole tokens from position {start} on")
        tokens = np.frombuffer(frame.payload, "<u2")
        stream = self.stream
        if start + len(tokens) > stream.n_tokens or int(tokens.max()) >= stream.vocab_size:
            allowed = f"{stream.n_tokens} tokens, or one beyond the vocabulary"
            raise WireError(f"frame {frame.op}: more than {allowed}")
        bos = self.predictor.rule.bos
        if bos is not None and start == 0 and tokens[0] != bos:
            hint = "hint: score.bos is the token that opens each document"
            raise WireError(f"score.bos: the stream opens with token {tokens[0]}, not with {bos}; {hint}")
        if self.adaptation is not None and start + len(tokens) > self.chunk_end:
            where = f"{self.chunk_end}, where chunk {self.n_adapted} ends"
            raise WireError(f"frame {frame.op}: tokens beyond {where}: adapt first")
        self.buffer.reveal(tokens, self.keep)
        return tokens

    @torch.inference_mode()
    def nats(self, start: int, stop: int) -> np.ndarray:
        """Nats of targets start .. stop - 1, shared over the ranks; the learners observe."""
        ranks = self.ranks

        def progress(part: float) -> None:
            done = start + part * (stop - start)
            total = self.stream.n_tokens
            self.wire.progress(done / total, f"{done:.0f} of {total} tokens")

        observe = self.adaptation.observe if self.adaptation else None
        nats_N = self.predictor.score(
            self.buffer, start, stop, progress, observe, rank=ranks.rank, world=ranks.world
        )
        ranks.all_reduce(nats_N)
        return nats_N.cpu().numpy()

    def row(self) -> np.ndarray:
        """ln p_V of the next token; zeros on all ranks but the first, which alone sends it."""
        if self.ranks.rank:
            return np.zeros(self.stream.vocab_size, np.float32)
        return self.predictor.row(self.buffer)

    def rows(self, contexts: Sequence[TokenBuffer]) -> np.ndarray:
        """ln p of the next token of k contexts, shared over the ranks: float32 [k, V]."""
        rank, world = self.ranks.rank, self.ranks.world
        low, high = len(contexts) * rank // world, len(contexts) * (rank + 1) // world
        rows_KV = torch.zeros(len(contexts), self.stream.vocab_size, device=self.ranks.device)
        if low < high:
            rows_KV[low:high] = torch.from_numpy(self.predictor.rows(list(contexts[low:high])))
        self.ranks.all_reduce(rows_KV)
        return rows_KV.cpu().numpy()

    def adapt(self, frame: Frame) -> np.ndarray:
        """Learn from the chunk that is due, then send and return the boundary prediction ln p_V."""
        assert self.adaptation is not None
        if frame.get("chunk", int) != self.n_adapted:
            raise WireError(f"adapt to chunk {frame.fields['chunk']}, but chunk {self.n_adapted} is due")
        at = self.n_adapted * self.stream.chunk_tokens - self.buffer.start
        previous = int(self.buffer.tokens[at - 1]) if self.n_adapted else None
        self.adaptation.adapt(Chunk(self.n_adapted, self.buffer.tokens[at:], previous))
        self.n_adapted += 1
        boundary_V = self.row()
        self.wire.send("adapted", boundary_V.astype("<f4").tobytes(), chunk=frame.fields["chunk"])
        return boundary_V
