"""The artifact file: reproducible bytes, weights within rounding, errors for anything malformed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings, strategies as st

from golf.model.gpt import GPT
from golf.quant import awq
from golf.recipe.config import digest, load
from golf.stages import pack
from golf.storage import arrays, codec
from tests.golf.fakes.artifacts import (
    CONFIG,
    FULL,
    NO_LIMIT,
    TINY,
    WEIGHTS,
    V,
    arrays_of,
    config_of,
    drop,
    pack_and_read,
)


@pytest.fixture(autouse=True)
def coarse_awq_search(monkeypatch):
    """A coarse search saves time; test_awq.py tests the search itself."""
    monkeypatch.setattr(awq, "ALPHAS", (0.0, 0.5))


ARTIFACT = pack.to_artifact(WEIGHTS, {}, CONFIG, NO_LIMIT)


def read_artifact() -> tuple[dict, dict[str, np.ndarray]]:
    header, content = arrays.from_bytes(codec.decompress_zstd(ARTIFACT, 1 << 24))
    return header, {name: array.copy() for name, array in content.items()}


def write_artifact(header: dict, content: dict[str, np.ndarray]) -> bytes:
    return codec.compress_zstd(arrays.to_bytes(header, content), 3)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("bits", [6, 8])
def test_weights_come_back_within_their_rounding(rotate, floor, bits):
    config = config_of(rotate=rotate, floor=floor, bits=bits)
    back = pack.from_artifact(pack.to_artifact(WEIGHTS, {}, config, NO_LIMIT), config, V)
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
    assert (
        pack.to_artifact({name: w.clone() for name, w in WEIGHTS.items()}, {}, CONFIG, NO_LIMIT) == ARTIFACT
    )
    header, content = read_artifact()
    assert header == {"kind": "golf-artifact-1", "config_sha256": digest(CONFIG)}
    assert sum(array.nbytes for array in content.values()) < 1.3 * sum(w.numel() for w in WEIGHTS.values())


def test_bits_null_stores_float16_and_nothing_else():
    config = load(TINY.replace("rotate: true", "bits: null, rotate: true"))
    artifact = pack.to_artifact(WEIGHTS, {}, config, NO_LIMIT)
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


CODED, PLAIN = "tok_emb.weight", "smear.gate"
FORGED = {
    "missing": (lambda c: drop(c, PLAIN), "missing"),
    "missing steps": (lambda c: drop(c, CODED + ":step"), "missing"),
    "extra": (lambda c: {**c, "hidden": np.zeros(1000, np.uint8)}, "unknown"),
    "shape": (lambda c: {**c, CODED: c[CODED].T.copy()}, "expected int8"),
    "dtype": (lambda c: {**c, CODED: c[CODED].astype(np.int16)}, "expected int8"),
    "plain as float32": (lambda c: {**c, PLAIN: c[PLAIN].astype(np.float32)}, "expected float16"),
    "NaN step": (
        lambda c: {**c, CODED + ":step": c[CODED + ":step"] * np.float16("nan")},
        "finite and positive",
    ),
    "inf step": (
        lambda c: {**c, CODED + ":step": c[CODED + ":step"] + np.float16("inf")},
        "finite and positive",
    ),
    "zero step": (
        lambda c: {**c, CODED + ":step": c[CODED + ":step"] * np.float16(0)},
        "finite and positive",
    ),
    "negative step": (lambda c: {**c, CODED + ":step": -c[CODED + ":step"]}, "finite and positive"),
    "NaN": (lambda c: {**c, PLAIN: c[PLAIN] * np.float16("nan")}, "NaN"),
    "lowest code": (lambda c: {**c, CODED: np.full_like(c[CODED], -32)}, r"outside -31\.\.31"),
    "scales without AWQ": (lambda c: {**c, CODED + ":scale": np.ones(48, np.float16)}, "unknown"),
    "code": (lambda c: {**c, CODED: np.full_like(c[CODED], 32)}, r"outside -31\.\.31"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_artifact_gets_an_error_that_says_what_is_wrong(how):
    forge, message = FORGED[how]
    header, content = read_artifact()
    pack.from_artifact(write_artifact(header, content), CONFIG, V)
    with pytest.raises(ValueError, match=message):
        pack.from_artifact(write_artifact(header, forge(content)), CONFIG, V)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kind": "x"},
        {"kind": "golf-artifact-1", "config_sha256": 5},
        {"kind": "golf-artifact-1", "config_sha256": "a", "more": 1},
    ],
)
def test_a_forged_header_is_an_error(header):
    with pytest.raises(ValueError, match="artifact"):
        pack.from_artifact(write_artifact(header, read_artifact()[1]), CONFIG, V)


def test_a_decompression_bomb_is_refused_by_its_declared_size():
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="declares 209715200 bytes"):
        pack.from_artifact(bomb, CONFIG, V)


AWQ = config_of(FULL, row_bits=False, allocate=False, gptq=False, rotate=False)
FORGED_FULL = {
    "words": (lambda c: {**c, "codes:words": c["codes:words"][1:]}, "entropy"),
    "histograms": (lambda c: {**c, "codes:counts": c["codes:counts"] + 1}, "entropy"),
    "levels": (lambda c: {**c, "codes:levels": c["codes:levels"][:-1]}, "levels"),
    "no words": (lambda c: drop(c, "codes:words"), "missing"),
    "codes as well": (lambda c: {**c, CODED: np.zeros((V, 48), np.int8)}, "unknown"),
    "scale length": (lambda c: {**c, CODED + ":scale": np.ones(47, np.float16)}, "expected float16"),
    "scale zero": (lambda c: {**c, CODED + ":scale": np.zeros(48, np.float16)}, "scales of tensor"),
    "scale infinite": (
        lambda c: {**c, CODED + ":scale": np.full(48, np.inf, np.float16)},
        "scales of tensor",
    ),
    "scale of a vector": (lambda c: {**c, PLAIN + ":scale": np.ones(48, np.float16)}, "unknown"),
}


@pytest.mark.parametrize("how", FORGED_FULL)
def test_forged_words_and_scales_are_refused(how):
    forge, message = FORGED_FULL[how]
    data = pack_and_read(AWQ)[0]
    header = {"kind": "golf-artifact-1", "config_sha256": digest(AWQ)}

    def close(content: dict[str, np.ndarray]) -> bytes:
        return codec.compress_brotli(codec.shuffle(arrays.to_bytes(header, content), 2), 1)

    content = arrays_of(data, AWQ)
    assert any(name.endswith(":scale") for name in content)
    pack.from_artifact(close(content), AWQ, V)
    with pytest.raises(ValueError, match=message):
        pack.from_artifact(close(forge(content)), AWQ, V)


def test_weights_that_cannot_be_stored_are_an_error_that_names_the_tensor():
    with pytest.raises(ValueError, match=rf"tensor {re.escape(PLAIN)} holds a NaN"):
        pack.to_artifact({**WEIGHTS, PLAIN: WEIGHTS[PLAIN] * float("nan")}, {}, CONFIG, NO_LIMIT)
