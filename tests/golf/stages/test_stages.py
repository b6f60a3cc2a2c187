"""train, pack and score as the judge starts them, `python -m golf`, with one rank and with two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer
from golf.recipe.config import load
from golf.stages import pack
from golf.storage import arrays
from golf.training import checkpoint
from tests.golf.fakes.judge import Judge, run_stage, setup_frame, write_shard
from tests.golf.fakes.recipes import FULL, V

pytestmark = pytest.mark.slow

TOLERANCE_NATS = 2e-5
N, CHUNK, WINDOW, MAX_BYTES = 150, 64, 32, 1 << 24
TEXT = np.random.default_rng(3).integers(0, V, 6900) ** 2 // V  # small tokens are frequent
TOKENS = TEXT[:N].astype("<u2")
TOKENS[0] = 1  # a stream opens with BOS, which the aligned windows of FULL require
PLAIN = FULL[: FULL.index("adapt:")]  # without learning from scored text, which test_adapt.py covers
RECIPES = {world: PLAIN + f"hardware: {{ranks: {world}, precision: float32}}\n" for world in (1, 2)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, Path]:
    """Number of ranks -> the folder of a run after its train stage."""
    folders = {}
    for world, recipe in RECIPES.items():
        folders[world] = folder = tmp_path_factory.mktemp(f"ranks{world}")
        shards = [write_shard(folder / f"{i}.bin", part) for i, part in enumerate((TEXT[:1001], TEXT[1001:]))]
        frame, _ = run_stage(
            "train", setup_frame(folder, recipe), lambda judge, shards=shards: judge.train(shards, 60)
        )
        assert frame == {"op": "trained", "steps": 4, "tokens": 4 * 256}
    return folders


def test_two_processes_write_the_checkpoint_of_one_up_to_rounding(trained):
    for file in (checkpoint.WEIGHTS_FILE, checkpoint.STATISTICS_FILE):
        (alone, ones), (shared, twos) = (
            arrays.read(trained[world] / "out" / "checkpoint" / file) for world in (1, 2)
        )
        assert alone == shared
        for name, one in ones.items():
            np.testing.assert_allclose(twos[name], one, atol=2e-3 * np.abs(one).max(), err_msg=name)


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def packed(request, trained):
    """(folder with artifact.bin, number of ranks, the nats that a predictor in this process gives)."""
    folder, recipe = trained[request.param], RECIPES[request.param]
    config, left = load(recipe), folder / "out" / "checkpoint"
    frame = setup_frame(folder, recipe, checkpoint=str(left))

    def script(judge: Judge) -> None:
        assert judge.receive()[0] == {"op": "ready"}
        assert judge.receive()[0] == {"op": "packed"}

    run_stage("pack", frame, script)
    weights, stats = (
        read(left, config, V, MAX_BYTES) for read in (checkpoint.read_weights, checkpoint.read_statistics)
    )
    made = pack.to_artifact(weights, stats, config, config.quant.target_bytes)
    assert (folder / "out" / "artifact.bin").read_bytes() == made
    model = pack.load(folder / "out" / "artifact.bin", config, V, 1 << 20)
    twin = Predictor(
        model,
        window=WINDOW,
        stride=config.score.stride,
        batch=config.score.batch_windows,
        bos=config.score.bos,
    )
    return folder, request.param, twin.nats(TokenBuffer(0, TOKENS), 0, N)


def frame_of(packed, role: str) -> dict:
    folder, world, _ = packed
    return setup_frame(
        folder, RECIPES[world], artifact=str(folder / "out" / "artifact.bin"), role=role, tokens=N
    )


def test_a_scorer_gives_the_numbers_of_the_artifact_chunk_by_chunk(packed):
    def script(judge: Judge) -> np.ndarray:
        ready = judge.receive()[0]
        assert ready["context"] == WINDOW
        assert ready["world"] == packed[1]
        parts = []
        for chunk, start in enumerate(range(0, N, CHUNK)):
            tokens = TOKENS[start : start + CHUNK]
            judge.send({"op": "score", "chunk": chunk, "start": start}, tokens.tobytes())
            answer, payload = judge.receive()
            assert (answer["op"], answer["chunk"]) == ("nats", chunk)
            numbers = np.frombuffer(payload, "<f4")
            assert len(numbers) == len(tokens) + V * (start + CHUNK < N)
            parts.append(numbers[: len(tokens)])
        judge.send({"op": "bye"})
        return np.concatenate(parts)

    np.testing.assert_allclose(
        run_stage("score", frame_of(packed, "scorer"), script), packed[2], atol=TOLERANCE_NATS
    )


def test_a_witness_gives_the_same_numbers_when_asked_for_rows(packed):
    probes = [1, 7, 33, 64, 65, 100, N - 1]
    starts = [max(0, t - WINDOW) for t in probes]
    contexts = [TOKENS[start:t] for start, t in zip(starts, probes, strict=True)]

    def script(judge: Judge) -> np.ndarray:
        assert judge.receive()[0]["op"] == "ready"
        lengths = [len(context) for context in contexts]
        payload = b"".join(context.tobytes() for context in contexts)
        judge.send({"op": "lanes", "starts": starts, "lengths": lengths}, payload)
        rows = np.frombuffer(judge.receive()[1], "<f4").reshape(-1, V)
        judge.send({"op": "reveal", "chunk": 0, "start": 0}, TOKENS[:100].tobytes())
        assert judge.receive()[0] == {"op": "revealed"}
        judge.send({"op": "predict"})
        row = np.frombuffer(judge.receive()[1], "<f4")
        np.testing.assert_allclose(row, rows[probes.index(100)], atol=TOLERANCE_NATS)
        judge.send({"op": "bye"})
        return -rows[np.arange(len(probes)), TOKENS[probes]]

    expected = run_stage("score", frame_of(packed, "witness"), script)
    np.testing.assert_allclose(expected, packed[2][probes], atol=TOLERANCE_NATS)
