"""pack and score as the judge starts them: `python -m golf`, in processes of their own, on one rank and on two."""

from __future__ import annotations

import numpy as np
import pytest

from golf import pack
from golf.config import digest, load
from golf.predict import Predictor
from golf.windows import Tail
from tests.golf.judge_stub import Judge, play, setup_frame
from tests.golf.recipes import FULL, V, lively
from tests.golf.test_pack import write_checkpoint

TOLERANCE_NATS = 2e-5
N, CHUNK, WINDOW = 150, 64, 32
TOKENS = np.random.default_rng(3).integers(0, V, N).astype("<u2")
TWO_RANKS = FULL + "\nhardware: {ranks: 2}\n"


@pytest.fixture(scope="module", params=[FULL, TWO_RANKS], ids=["one rank", "two ranks"])
def packed(request, tmp_path_factory):
    """(folder with artifact.bin, recipe text, the numbers that a predictor in this process gives)."""
    folder, config = tmp_path_factory.mktemp("run"), load(request.param)
    weights = dict(lively(config).state_dict())
    write_checkpoint(folder / "checkpoint", config, weights, vocab_size=V)
    frame = setup_frame(folder, request.param, checkpoint=str(folder / "checkpoint"))

    def game(judge: Judge) -> None:
        assert judge.hear()[0] == {"op": "ready"}
        assert judge.hear()[0] == {"op": "packed"}

    play("pack", frame, game)
    assert (folder / "out" / "artifact.bin").read_bytes() == pack.to_artifact(weights, config)
    assert digest(config) == digest(load(request.param))
    model = pack.load(folder / "out" / "artifact.bin", config, V, 1 << 20)
    twin = Predictor(model, window=WINDOW, stride=config.score.stride, batch=config.score.batch_windows)
    return folder, request.param, twin.nats(Tail(0, TOKENS), 0, N)


def frame_of(packed, role: str) -> dict:
    folder, recipe, _ = packed
    return setup_frame(folder, recipe, artifact=str(folder / "out" / "artifact.bin"), role=role, tokens=N)


def test_a_scorer_gives_the_numbers_of_the_artifact_chunk_by_chunk(packed):
    def game(judge: Judge) -> np.ndarray:
        ready = judge.hear()[0]
        assert ready["context"] == WINDOW
        assert ready["world"] == (2 if packed[1] == TWO_RANKS else 1)
        parts = []
        for chunk, start in enumerate(range(0, N, CHUNK)):
            tokens = TOKENS[start : start + CHUNK]
            judge.say({"op": "score", "chunk": chunk, "start": start}, tokens.tobytes())
            answer, payload = judge.hear()
            assert (answer["op"], answer["chunk"]) == ("nats", chunk)
            numbers = np.frombuffer(payload, "<f4")
            assert len(numbers) == len(tokens) + V * (start + CHUNK < N)
            parts.append(numbers[: len(tokens)])
        judge.say({"op": "bye"})
        return np.concatenate(parts)

    np.testing.assert_allclose(play("score", frame_of(packed, "scorer"), game), packed[2], atol=TOLERANCE_NATS)


def test_a_witness_gives_the_same_numbers_when_asked_for_rows(packed):
    probes = [1, 7, 33, 64, 65, 100, N - 1]
    starts = [max(0, t - WINDOW) for t in probes]
    contexts = [TOKENS[start:t] for start, t in zip(starts, probes, strict=True)]

    def game(judge: Judge) -> np.ndarray:
        assert judge.hear()[0]["op"] == "ready"
        lengths = [len(context) for context in contexts]
        payload = b"".join(context.tobytes() for context in contexts)
        judge.say({"op": "lanes", "starts": starts, "lengths": lengths}, payload)
        rows = np.frombuffer(judge.hear()[1], "<f4").reshape(-1, V)
        judge.say({"op": "reveal", "chunk": 0, "start": 0}, TOKENS[:100].tobytes())
        assert judge.hear()[0] == {"op": "revealed"}
        judge.say({"op": "predict"})
        row = np.frombuffer(judge.hear()[1], "<f4")
        np.testing.assert_allclose(row, rows[probes.index(100)], atol=TOLERANCE_NATS)
        judge.say({"op": "bye"})
        return -rows[np.arange(len(probes)), TOKENS[probes]]

    honest = play("score", frame_of(packed, "witness"), game)
    np.testing.assert_allclose(honest, packed[2][probes], atol=TOLERANCE_NATS)
