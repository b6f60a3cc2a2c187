"""The score stage over a real socket: scorer and witness tell the same story, frame by frame as protocol.md says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from golf import pack, score
from golf.config import load
from golf.dist import Ranks
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.wire import Closed, Setup, Wire, WireError

V = 64
WINDOW, STRIDE, CHUNK = 32, 8, 64
TOLERANCE_NATS = 2e-5
CONFIG = load(f"""
model: {{layers: 3, width: 48, heads: 4, kv_heads: 2, mlp_hidden: 96, bigram_buckets: 32, bigram_dim: 16,
        smear: true, ve_dim: 16, ve_layers: [2], attn_gate: true, xsa_last: 1, init: orthogonal}}
quant: {{rotate: true, fp16_limit: 400}}
score: {{window: {WINDOW}, stride: {STRIDE}, chunk_tokens: {CHUNK}, batch_windows: 3}}
""")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed model whose predictions depend on everything: random weights, none of them at its quiet start."""
    model = GPT(CONFIG.model, V)
    initialise(model, CONFIG.model, 0)
    random = torch.Generator().manual_seed(1)
    state = {n: t + 0.15 * torch.randn(t.shape, generator=random) for n, t in model.state_dict().items()}
    path = tmp_path_factory.mktemp("packed") / "artifact.bin"
    path.write_bytes(pack.to_artifact(state, CONFIG))
    return path


class Judge:
    """The other end of a running stage: asks, and reads answers of exactly the lawful length."""

    def __init__(self, connection: socket.socket) -> None:
        self.wire = Wire(connection)
        self.progress: list[float] = []

    def answer(self, op: str, n_floats: int) -> np.ndarray:
        """The payload of the next frame that is no progress."""
        while (frame := self.wire.receive(op, "progress", most=4 * n_floats)).op == "progress":
            self.progress.append(frame.fields["fraction"])
        assert len(frame.payload) == 4 * n_floats
        return np.frombuffer(frame.payload, "<f4")

    def score(self, chunk: int, start: int, tokens: np.ndarray, row: bool) -> np.ndarray:
        self.wire.send("score", tokens.tobytes(), chunk=chunk, start=start)
        return self.answer("nats", len(tokens) + V * row)

    def reveal(self, start: int, tokens: np.ndarray) -> None:
        self.wire.send("reveal", tokens.tobytes(), chunk=start // CHUNK, start=start)
        self.answer("revealed", 0)

    def predict(self) -> np.ndarray:
        self.wire.send("predict")
        return self.answer("row", V)

    def lanes(self, starts: list[int], contexts: list[np.ndarray]) -> np.ndarray:
        payload = b"".join(context.tobytes() for context in contexts)
        self.wire.send("lanes", payload, starts=starts, lengths=[len(context) for context in contexts])
        return self.answer("rows", len(starts) * V).reshape(-1, V)


@contextmanager
def stage(artifact: Path, role: str, n_tokens: int, most_chunk: int = 1 << 18) -> Iterator[Judge]:
    """The stage in a thread, its judge here. An error of the stage is raised at the end."""
    ours, theirs = socket.socketpair()
    setup = Setup("score", 1, "record", V, artifact, artifact, artifact.parent,
                  {"counted_bytes": 1 << 20, "chunk_tokens": most_chunk},
                  artifact=artifact, role=role, tokens=n_tokens)  # fmt: skip
    errors: list[Exception] = []

    def run() -> None:
        try:
            score.run(Wire(theirs), setup, CONFIG, Ranks(0, 1, torch.device("cpu")))
        except Exception as error:
            errors.append(error)
        finally:
            theirs.close()

    thread = threading.Thread(target=run)
    thread.start()
    with ours:
        judge = Judge(ours)
        ready = judge.wire.receive("ready").fields
        judge.ready = {key: ready[key] for key in ("chunk_tokens", "adapts", "context", "world")}
        try:
            yield judge
            with suppress(Closed):  # a stage that ended early says why below
                judge.wire.send("bye")
        finally:
            ours.shutdown(socket.SHUT_WR)
            thread.join(30)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def stream(n: int, seed: int = 0) -> np.ndarray:
    """Random tokens with a document border (1) now and then."""
    random = np.random.default_rng(seed)
    tokens = random.integers(2, V, n).astype("<u2")
    tokens[:: 37] = 1
    return tokens


def scored(artifact: Path, tokens: np.ndarray, chunk: int = CHUNK) -> tuple[np.ndarray, list[np.ndarray]]:
    """A whole run of the scorer: numbers of all tokens, and the border rows."""
    nats, rows = [], []
    with stage(artifact, "scorer", len(tokens)) as judge:
        for number, start in enumerate(range(0, len(tokens), chunk)):
            part = tokens[start : start + chunk]
            border = start + len(part) < len(tokens)
            answer = judge.score(number, start, part, border)
            nats.append(answer[: len(part)])
            if border:
                rows.append(answer[len(part) :])
    return np.concatenate(nats), rows


def test_ready_declares_what_the_judge_plans_by(artifact):
    with stage(artifact, "scorer", 10) as judge:
        assert judge.ready == {"chunk_tokens": CHUNK, "adapts": False, "context": WINDOW, "world": 1}
    with stage(artifact, "scorer", 10, most_chunk=50) as judge:
        assert judge.ready["chunk_tokens"] == 48  # the judge's limit, down to a multiple of the stride


@pytest.mark.parametrize("n", [1, 2, STRIDE, STRIDE + 1, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
def test_every_token_gets_one_number_and_the_first_none(artifact, n):
    nats, rows = scored(artifact, stream(n))
    assert nats.shape == (n,)
    assert nats[0] == 0
    assert np.isfinite(nats).all()
    assert (nats[1:] > 0).all()
    assert len(rows) == (n - 1) // CHUNK


def test_a_border_row_is_a_distribution_and_holds_the_next_chunks_first_number_exactly(artifact):
    tokens = stream(4 * CHUNK)
    nats, rows = scored(artifact, tokens)
    for row, start in zip(rows, range(CHUNK, len(tokens), CHUNK), strict=True):
        assert abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5
        assert -row[tokens[start]] == nats[start]


def test_chunks_of_any_length_give_the_same_numbers(artifact):
    tokens = stream(200)
    whole, _ = scored(artifact, tokens)
    for chunk in (5, STRIDE, 61):
        np.testing.assert_allclose(scored(artifact, tokens, chunk)[0], whole, atol=TOLERANCE_NATS)


def test_scorer_predict_and_lanes_agree_everywhere(artifact):
    tokens = stream(3 * CHUNK + 11)
    nats, _ = scored(artifact, tokens)
    borders = np.flatnonzero(tokens == 1)[1:]
    at_borders = {int(t) for border in borders for t in (border, border + 1)}
    probes = sorted({1, 2, STRIDE, WINDOW, CHUNK - 1, CHUNK, CHUNK + 1, len(tokens) - 1} | at_borders)
    with stage(artifact, "witness", len(tokens)) as judge:
        known = 0
        for t in probes:
            judge.reveal(known, tokens[known:t])
            known = t
            row = judge.predict()
            assert abs(np.logaddexp.reduce(row.astype(np.float64))) < 1e-5
            assert abs(-row[tokens[t]] - nats[t]) < TOLERANCE_NATS, f"token {t}"
    with stage(artifact, "witness", len(tokens)) as judge:
        starts = [max(0, t - WINDOW) for t in probes]
        rows = judge.lanes(starts, [tokens[start:t] for start, t in zip(starts, probes, strict=True)])
        honest = -rows[np.arange(len(probes)), tokens[probes]]
        np.testing.assert_allclose(honest, nats[probes], atol=TOLERANCE_NATS)


def test_a_number_depends_on_the_whole_window_and_on_nothing_after_it(artifact):
    tokens = stream(150)
    nats, _ = scored(artifact, tokens)
    changed = tokens.copy()
    changed[100:] = 2 + (changed[100:] + 7) % (V - 2)
    again, _ = scored(artifact, changed)
    np.testing.assert_array_equal(again[:100], nats[:100])
    changed = tokens.copy()
    changed[103 - (WINDOW - STRIDE)] = 3  # the farthest input of the block of 104 .. 111
    again, _ = scored(artifact, changed)
    assert np.abs(again[104:112] - nats[104:112]).min() > 0
    np.testing.assert_allclose(again[112:], nats[112:], atol=TOLERANCE_NATS)


def test_progress_reaches_the_judge_within_a_chunk(artifact):
    tokens = stream(CHUNK)
    with stage(artifact, "scorer", CHUNK) as judge:
        judge.score(0, 0, tokens, False)
        assert judge.progress
        assert all(0 <= fraction <= 1 for fraction in judge.progress)


FOUL = {
    "an adapt frame, though adapts is false": lambda j, x: j.wire.send("adapt", chunk=0),
    "a chunk out of turn": lambda j, x: j.wire.send("score", x.tobytes(), chunk=1, start=0),
    "a gap in the stream": lambda j, x: j.wire.send("score", x.tobytes(), chunk=0, start=8),
    "half a token": lambda j, x: j.wire.send("score", b"\1", chunk=0, start=0),
    "a token beyond the vocabulary": lambda j, x: j.wire.send("score", (x * 0 + V).tobytes(), chunk=0, start=0),
    "more tokens than announced": lambda j, x: j.wire.send("score", np.tile(x, 2).tobytes(), chunk=0, start=0),
    "a witness's question": lambda j, x: j.wire.send("predict"),
}
FOUL_WITNESS = {
    "a scorer's frame": lambda j, x: j.wire.send("score", x.tobytes(), chunk=0, start=0),
    "predict before anything is known": lambda j, x: j.wire.send("predict"),
    "a lane too short for its window": lambda j, x: j.wire.send("lanes", x[:9].tobytes(), starts=[1], lengths=[9]),
    "lanes that do not add up": lambda j, x: j.wire.send("lanes", x[:9].tobytes(), starts=[0], lengths=[8]),
    "no lane": lambda j, x: j.wire.send("lanes", starts=[], lengths=[]),
    "a lane of bools": lambda j, x: j.wire.send("lanes", x[:1].tobytes(), starts=[True], lengths=[True]),
    "a lane beyond the stream": lambda j, x: j.wire.send("lanes", x.tobytes(), starts=[8], lengths=[len(x)]),
}


@pytest.mark.parametrize(("role", "foul"), [("scorer", f) for f in FOUL] + [("witness", f) for f in FOUL_WITNESS])
def test_a_frame_out_of_turn_ends_the_stage_with_an_error(artifact, role, foul):
    tokens = stream(CHUNK)
    with pytest.raises(WireError), stage(artifact, role, CHUNK) as judge:
        {**FOUL, **FOUL_WITNESS}[foul](judge, tokens)


def test_an_unknown_role_is_an_error(artifact):
    setup = Setup("score", 1, "record", V, artifact, artifact, artifact, {}, artifact=artifact, role="judge", tokens=1)
    with pytest.raises(WireError, match="known: scorer, witness"):
        score.run(Wire(socket.socket()), setup, CONFIG, Ranks(0, 1, torch.device("cpu")))
