"""The artifact: the same bytes from the same checkpoint, weights back within the rounding, errors for all else."""

from __future__ import annotations

import dataclasses
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings, strategies as st

from golf import arrays, codec, pack
from golf.config import Config, digest, load
from golf.dist import Ranks
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.train import CHECKPOINT_FILE, CHECKPOINT_KIND
from golf.wire import Setup, Wire

V = 64
TINY = """
model: {layers: 3, width: 48, heads: 4, kv_heads: 2, mlp_hidden: 96, bigram_buckets: 32, bigram_dim: 16, smear: true,
        ve_dim: 16, ve_layers: [2], attn_gate: true, xsa_last: 1, init: orthogonal}
quant: {rotate: true, floor: true, fp16_limit: 400}
score: {window: 32, stride: 8, chunk_tokens: 64, batch_windows: 3}
"""


def config_of(text: str = TINY, **quant: object) -> Config:
    config = load(text)
    return dataclasses.replace(config, quant=dataclasses.replace(config.quant, **quant))


def weights_of(config: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """A model as if trained: no tensor is all zeros or ones."""
    model = GPT(config.model, V)
    initialise(model, config.model, seed)
    random = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.05 * torch.randn(tensor.shape, generator=random)
            for name, tensor in model.state_dict().items()}  # fmt: skip


def write_checkpoint(folder: Path, config: Config, weights: dict[str, torch.Tensor], **header: object) -> None:
    folder.mkdir(exist_ok=True)
    facts = {"kind": CHECKPOINT_KIND, "config_sha256": digest(config), "seed": 1, "vocab_size": V, "steps": 5}
    arrays.write(folder / CHECKPOINT_FILE, {**facts, **header}, {n: w.numpy() for n, w in weights.items()})


CONFIG = config_of()
WEIGHTS = weights_of(CONFIG)
ARTIFACT = pack.to_artifact(WEIGHTS, CONFIG)


def opened() -> tuple[dict, dict[str, np.ndarray]]:
    header, content = arrays.from_bytes(codec.decompress_zstd(ARTIFACT, 1 << 24))
    return header, {name: array.copy() for name, array in content.items()}


def closed(header: dict, content: dict[str, np.ndarray]) -> bytes:
    return codec.compress_zstd(arrays.to_bytes(header, content), 3)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("bits", [6, 8])
def test_weights_come_back_within_their_rounding(rotate, floor, bits):
    config = config_of(rotate=rotate, floor=floor, bits=bits)
    back = pack.from_artifact(pack.to_artifact(WEIGHTS, config), config, V)
    largest = 2 ** (bits - 1) - 1
    assert list(back) == list(WEIGHTS)
    for name, weight in WEIGHTS.items():
        if weight.ndim == 2 and weight.numel() > 400:
            step = max(1 / largest if floor else 0, weight.norm(dim=1).max().item() / largest)
            assert (back[name] - weight).square().mean().sqrt() <= 0.51 * step
            assert not torch.equal(back[name], weight.half().float())
        else:
            assert torch.equal(back[name], weight.half().float())


def test_the_same_checkpoint_gives_the_same_bytes_and_the_header_says_nothing_of_the_run():
    assert pack.to_artifact({name: w.clone() for name, w in WEIGHTS.items()}, CONFIG) == ARTIFACT
    header, content = opened()
    assert header == {"kind": "golf-artifact-1", "config_sha256": digest(CONFIG)}
    assert sum(array.nbytes for array in content.values()) < 1.3 * sum(w.numel() for w in WEIGHTS.values())


def test_bits_null_stores_float16_and_nothing_else():
    config = load(TINY.replace("rotate: true", "bits: null, rotate: true"))
    artifact = pack.to_artifact(WEIGHTS, config)
    back = pack.from_artifact(artifact, config, V)
    assert all(torch.equal(back[name], weight.half().float()) for name, weight in WEIGHTS.items())
    assert len(artifact) > 1.5 * len(ARTIFACT)


def test_a_loaded_model_predicts_with_the_decoded_weights(tmp_path: Path):
    path = tmp_path / "artifact.bin"
    path.write_bytes(ARTIFACT)
    model = pack.load(path, CONFIG, V, 1 << 20)
    twin = GPT(CONFIG.model, V)
    twin.load_state_dict(pack.from_artifact(ARTIFACT, CONFIG, V))
    ids = torch.arange(20)[None] % V
    assert torch.equal(model(ids), twin(ids))
    assert not model.training
    with pytest.raises(ValueError, match="no plain file"):
        pack.load(path, CONFIG, V, len(ARTIFACT) - 1)


@settings(deadline=None, max_examples=80)
@given(cut=st.integers(0, len(ARTIFACT) - 1), bit=st.integers(0, 8 * len(ARTIFACT) - 1))
def test_a_cut_or_damaged_artifact_is_an_error_or_the_same_weights(cut, bit):
    with pytest.raises(ValueError):
        pack.from_artifact(ARTIFACT[:cut], CONFIG, V)
    damaged = bytearray(ARTIFACT)
    damaged[bit // 8] ^= 1 << (bit % 8)
    try:
        back = pack.from_artifact(bytes(damaged), CONFIG, V)
    except ValueError:
        return
    honest = pack.from_artifact(ARTIFACT, CONFIG, V)
    assert all(torch.equal(back[name], honest[name]) for name in honest)


def test_an_artifact_of_another_recipe_or_vocabulary_is_refused():
    with pytest.raises(ValueError, match="made with recipe"):
        pack.from_artifact(ARTIFACT, config_of(TINY.replace("stride: 8", "stride: 4")), V)
    with pytest.raises(ValueError, match=r"tok_emb.*expected"):
        pack.from_artifact(ARTIFACT, CONFIG, V + 1)


def _without(content: dict, name: str) -> dict:
    return {key: array for key, array in content.items() if key != name}


CODED, PLAIN = "tok_emb.weight", "smear.gate"
FORGED = {
    "missing": (lambda c: _without(c, PLAIN), "missing"),
    "missing steps": (lambda c: _without(c, CODED + ":step"), "missing"),
    "extra": (lambda c: {**c, "hidden": np.zeros(1000, np.uint8)}, "unknown"),
    "shape": (lambda c: {**c, CODED: c[CODED].T.copy()}, "expected int8"),
    "dtype": (lambda c: {**c, CODED: c[CODED].astype(np.int16)}, "expected int8"),
    "plain as float32": (lambda c: {**c, PLAIN: c[PLAIN].astype(np.float32)}, "expected float16"),
    "NaN step": (lambda c: {**c, CODED + ":step": c[CODED + ":step"] * np.float16("nan")}, "finite and positive"),
    "inf step": (lambda c: {**c, CODED + ":step": c[CODED + ":step"] + np.float16("inf")}, "finite and positive"),
    "zero step": (lambda c: {**c, CODED + ":step": c[CODED + ":step"] * np.float16(0)}, "finite and positive"),
    "negative step": (lambda c: {**c, CODED + ":step": -c[CODED + ":step"]}, "finite and positive"),
    "NaN": (lambda c: {**c, PLAIN: c[PLAIN] * np.float16("nan")}, "NaN"),
    "code": (lambda c: {**c, CODED: np.full_like(c[CODED], 32)}, r"outside -32\.\.31"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_artifact_gets_an_error_that_says_what_is_wrong(how):
    forge, said = FORGED[how]
    header, content = opened()
    pack.from_artifact(closed(header, content), CONFIG, V)
    with pytest.raises(ValueError, match=said):
        pack.from_artifact(closed(header, forge(content)), CONFIG, V)


@pytest.mark.parametrize("header", [{}, {"kind": "x"}, {"kind": "golf-artifact-1", "config_sha256": 5},
                                    {"kind": "golf-artifact-1", "config_sha256": "a", "more": 1}])  # fmt: skip
def test_a_forged_header_is_an_error(header):
    with pytest.raises(ValueError, match="artifact"):
        pack.from_artifact(closed(header, opened()[1]), CONFIG, V)


def test_a_bomb_is_refused_by_what_it_declares():
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="declares 209715200 bytes"):
        pack.from_artifact(bomb, CONFIG, V)


def test_the_stage_packs_what_train_left_and_reads_it_again(tmp_path: Path):
    write_checkpoint(tmp_path / "checkpoint", CONFIG, WEIGHTS)
    ours, theirs = socket.socketpair()
    setup = Setup("pack", 1, "record", V, tmp_path / "t", tmp_path / "c", tmp_path, {"checkpoint_bytes": 1 << 24},
                  checkpoint=tmp_path / "checkpoint")  # fmt: skip
    with ours, theirs:
        pack.run(Wire(theirs), setup, CONFIG, Ranks(0, 1, torch.device("cpu")))
        judge = Wire(ours)
        judge.receive("ready")
        while judge.receive("progress", "packed").op != "packed":
            pass
    assert (tmp_path / "artifact.bin").read_bytes() == ARTIFACT


def test_a_checkpoint_that_is_not_the_recipes_model_is_refused(tmp_path: Path):
    folder = tmp_path / "checkpoint"

    def refused(said: str, weights: dict[str, torch.Tensor], limit: int = 1 << 24, **header: object) -> None:
        write_checkpoint(folder, CONFIG, weights, **header)
        with pytest.raises(ValueError, match=said):
            pack.read_checkpoint(folder, CONFIG, V, limit)

    refused("kind", WEIGHTS, kind="other")
    refused("another recipe", WEIGHTS, config_sha256="0" * 64)
    refused("unknown", {**WEIGHTS, "more": torch.zeros(3)})
    refused("missing", {name: w for name, w in WEIGHTS.items() if name != PLAIN})
    refused("expected float32", {**WEIGHTS, PLAIN: WEIGHTS[PLAIN].half()})
    refused("expected float32", {**WEIGHTS, PLAIN: WEIGHTS[PLAIN][1:]})
    refused("no plain file", WEIGHTS, limit=1000)
    with pytest.raises(ValueError, match=rf"tensor {re.escape(PLAIN)} holds a NaN"):
        pack.to_artifact({**WEIGHTS, PLAIN: WEIGHTS[PLAIN] * float("nan")}, CONFIG)
