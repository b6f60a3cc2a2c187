"""One score stage as both roles see it: the stream so far, its predictor, what it learned, and who else
computes.

A stage knows only tokens that were sent to it, and keeps the last of them: a window, and in the witness's
case, which must be able to repeat a chunk's pass when it is told to learn from it, a chunk more. With several
ranks every rank hears every frame and computes its share of the blocks or lanes; one sum over the ranks joins
them, which is exact, since each number is computed on one rank and zero on the others.

Where something is learned, the chunks are those that `ready` announced, and nothing may follow a chunk before
`adapt` does: `due` says when. Not covered: who may ask what (golf/stages/score.py,
golf/inference/witness.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from golf.inference import windows
from golf.inference.adapt import Adaptation, Chunk
from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer
from golf.runtime.dist import Ranks
from golf.runtime.wire import Frame, Wire, WireError


@dataclass
class Server:
    """`adaptation` is None where nothing is learned. `keep`: tokens that stay when more are revealed."""

    wire: Wire
    ranks: Ranks
    predictor: Predictor
    adaptation: Adaptation | None
    vocab_size: int
    n_tokens: int
    chunk_tokens: int
    keep: int
    tail: TokenBuffer = field(default_factory=TokenBuffer)
    adapted: int = 0
    """Chunks that were learned from."""

    @property
    def border(self) -> int:
        """Where the chunk ends that comes next or is being revealed, if chunks mean anything here."""
        return min((self.adapted + 1) * self.chunk_tokens, self.n_tokens)

    @property
    def due(self) -> bool:
        """Whether a chunk is known as a whole and must be learned from before anything else."""
        return self.adaptation is not None and self.tail.stop == self.border < self.n_tokens

    def reveal(self, frame: Frame) -> np.ndarray:
        """Append the tokens of a frame, and return them as uint16.

        WireError unless they follow on, fit stream and vocabulary, and do not pass a border where `adapt` is
        due."""
        start = self.tail.stop
        if frame.get("start", int) != start or len(frame.payload) % 2 or not frame.payload:
            raise WireError(f"frame {frame.op}: expected whole tokens from position {start} on")
        tokens = np.frombuffer(frame.payload, "<u2")
        if start + len(tokens) > self.n_tokens or int(tokens.max()) >= self.vocab_size:
            raise WireError(
                f"frame {frame.op}: more than {self.n_tokens} tokens, or one beyond the vocabulary"
            )
        if self.adaptation is not None and start + len(tokens) > self.border:
            raise WireError(
                f"frame {frame.op}: tokens beyond {self.border}, where chunk {self.adapted} ends: adapt first"
            )
        self.tail.reveal(tokens, self.keep)
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
        """Numbers for the targets start .. stop - 1, shared over the ranks, while learners watch."""
        ranks, stride = self.ranks, self.predictor.stride
        low, high = windows.share(start, stop, stride, ranks.rank, ranks.world)

        def progress(part: float) -> None:
            done = start + part * (stop - start)
            self.wire.progress(done / self.n_tokens, f"{done:.0f} of {self.n_tokens} tokens")

        watch = self.adaptation.watch if self.adaptation else None
        part = self.predictor.nats(self.tail, low, high, progress, watch)
        return self.joined(part, low - start, stop - start)

    def rows(self, tails: Sequence[TokenBuffer]) -> np.ndarray:
        """Rows for many contexts, shared over the ranks: float32, k x V."""
        rank, world = self.ranks.rank, self.ranks.world
        low, high = len(tails) * rank // world, len(tails) * (rank + 1) // world
        empty = np.zeros((0, self.vocab_size), np.float32)
        part = self.predictor.rows(list(tails[low:high])) if low < high else empty
        return self.joined(part, low, len(tails))

    def adapt(self, frame: Frame) -> np.ndarray:
        """Learn from the chunk that is due, whose pass was watched; sends `adapted` and returns its border
        row_V."""
        assert self.adaptation is not None
        if frame.get("chunk", int) != self.adapted:
            raise WireError(f"adapt to chunk {frame.fields['chunk']} where chunk {self.adapted} is due")
        at = self.adapted * self.chunk_tokens - self.tail.start
        before = int(self.tail.tokens[at - 1]) if self.adapted else None
        self.adaptation.adapt(Chunk(self.adapted, self.tail.tokens[at:], before))
        self.adapted += 1
        border_V = self.predictor.row(self.tail)
        self.wire.send("adapted", border_V.astype("<f4").tobytes(), chunk=frame.fields["chunk"])
        return border_V
