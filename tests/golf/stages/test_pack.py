"""The artifact: the same bytes from the same checkpoint, weights back within the rounding, errors for all
else; and the byte limit, which allocation keeps."""

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

from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.quant import awq
from golf.quant.stats import TensorStats
from golf.recipe.config import Config, digest, load
from golf.runtime.dist import Ranks
from golf.runtime.program import code_bytes
from golf.runtime.wire import Setup, Wire
from golf.stages import pack
from golf.storage import arrays, codec, entropy
from golf.training import checkpoint
from tests.golf.quant.samples import gaussian, inputs

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
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=random)
        for name, tensor in model.state_dict().items()
    }


def statistics_of(config: Config) -> dict[str, TensorStats]:
    """Made-up statistics of everything that the recipe measures."""
    found = {}
    for seed, (name, asked) in enumerate(checkpoint.statistics_of(config, V).items()):
        stats = TensorStats()
        if "hessian" in asked:
            x_NC = inputs(asked["activation"][0], seed=seed, spread=0.3)
            stats = stats._replace(hessian_CC=x_NC.T @ x_NC / len(x_NC), activation_C=x_NC.abs().mean(dim=0))
        if "fisher" in asked:
            rows, columns = asked["fisher"]
            fisher_RC = gaussian(rows, columns, seed).square() * gaussian(rows, 1, seed + 1).exp()
            stats = stats._replace(fisher_RC=1e-6 * fisher_RC)
        if "row_score" in asked:
            stats = stats._replace(row_score_R=gaussian(1, *asked["row_score"], seed)[0].abs())
        found[name] = stats
    return found


@pytest.fixture(autouse=True)
def few_alphas(monkeypatch):
    """The search is test_awq's business; here it only costs time."""
    monkeypatch.setattr(awq, "ALPHAS", (0.0, 0.5))


ROOM = 1 << 24
"""A limit that nothing here reaches."""
CONFIG = config_of()
WEIGHTS = weights_of(CONFIG)
ARTIFACT = pack.to_artifact(WEIGHTS, {}, CONFIG, ROOM)


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
    back = pack.from_artifact(pack.to_artifact(WEIGHTS, {}, config, ROOM), config, V)
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
    assert pack.to_artifact({name: w.clone() for name, w in WEIGHTS.items()}, {}, CONFIG, ROOM) == ARTIFACT
    header, content = opened()
    assert header == {"kind": "golf-artifact-1", "config_sha256": digest(CONFIG)}
    assert sum(array.nbytes for array in content.values()) < 1.3 * sum(w.numel() for w in WEIGHTS.values())


def test_bits_null_stores_float16_and_nothing_else():
    config = load(TINY.replace("rotate: true", "bits: null, rotate: true"))
    artifact = pack.to_artifact(WEIGHTS, {}, config, ROOM)
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
    forge, said = FORGED[how]
    header, content = opened()
    pack.from_artifact(closed(header, content), CONFIG, V)
    with pytest.raises(ValueError, match=said):
        pack.from_artifact(closed(header, forge(content)), CONFIG, V)


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
        pack.from_artifact(closed(header, opened()[1]), CONFIG, V)


def test_a_bomb_is_refused_by_what_it_declares():
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="declares 209715200 bytes"):
        pack.from_artifact(bomb, CONFIG, V)


FULL = TINY.replace(
    "init: orthogonal}",
    "init: orthogonal}\ntrain: {seq_len: 16, batch_tokens: 128}\n"
    "stats: {hessian_batches: 1, fisher_batches: 1, row_score_every: 1}",
).replace(
    "quant: {rotate: true, floor: true,",
    "quant: {embed_bits: 7, down_bits: 5, row_bits: true, allocate: true, awq: true, rotate: true, clip: "
    "search,\n"
    "        fisher: true, floor: true, gptq: true, entropy: true, shuffle: 2, codec: brotli, level: "
    "9,",
)
"""Every technique of the quantiser at once."""
OFF = {
    "row_bits": False,
    "allocate": False,
    "awq": False,
    "rotate": False,
    "clip": "max",
    "fisher": False,
    "floor": False,
    "gptq": False,
    "entropy": False,
    "shuffle": 1,
    "embed_bits": 0,
    "down_bits": 0,
    "codec": "zlib",
}
TIGHT = 14_000
"""Bytes that are too few for the bits that FULL asks for."""


def packed(config: Config, limit: int = ROOM) -> tuple[bytes, dict[str, torch.Tensor], list[str]]:
    """Artifact, weights that come back, and what was said."""
    said: list[str] = []
    data = pack.to_artifact(WEIGHTS, statistics_of(config), config, limit, said.append)
    return data, pack.from_artifact(data, config, V), said


def moved(back: dict[str, torch.Tensor]) -> float:
    return sum((back[name] - weight).square().sum().item() for name, weight in WEIGHTS.items())


@pytest.mark.parametrize("field", [None, *OFF])
def test_the_full_recipe_comes_back_and_so_does_each_with_one_technique_off(field):
    config = config_of(FULL, **({} if field is None else {field: OFF[field]}))
    data, back, said = packed(config)
    assert list(back) == list(WEIGHTS)
    for name, weight in WEIGHTS.items():
        if weight.ndim == 1 or weight.numel() <= 400:
            assert torch.equal(back[name], weight.half().float())
    size = sum(weight.square().sum().item() for weight in WEIGHTS.values())
    assert 0 < moved(back) < 0.2 * size
    assert any("Shannon bound" in line for line in said) and any(
        f"{len(data):,} bytes" in line for line in said
    )


def test_eight_bits_lose_less_than_six_and_six_less_than_four():
    errors = [moved(packed(config_of(bits=bits, floor=False))[1]) for bits in (4, 6, 8)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_each_kind_of_matrix_gets_the_bits_of_its_kind_and_sixteen_is_float16():
    config = config_of(embed_bits=16, attn_bits=8, up_bits=4, down_bits=3, floor=False)
    recipes = pack.recipes_of(config, pack.shapes_of(config, V))
    bits = {name: how.bits for name, how in recipes.items()}
    assert bits["tok_emb.weight"] is None and bits["smear.gate"] is None and bits["bigram.table.weight"] == 6
    assert [bits[f"blocks.0.{name}.weight"] for name in ("attn.q", "attn.out", "mlp.up", "mlp.down")] == [
        8,
        8,
        4,
        3,
    ]
    sigmas = pack.recipes_of(config_of(clip="sigma", sigmas=5.0, embed_sigmas=7.0), pack.shapes_of(config, V))
    assert sigmas["tok_emb.weight"].clip_method.sigmas == 7.0
    assert sigmas["bigram.table.weight"].clip_method.sigmas == 5.0
    back = packed(config)[1]
    assert torch.equal(back["tok_emb.weight"], WEIGHTS["tok_emb.weight"].half().float())


def test_which_tensors_are_coded_is_decided_as_in_586():
    config = config_of(fp16_limit=65_535)

    def coded(*shape: int) -> bool:
        return pack.recipe_of(config, "blocks.0.attn.q.weight", shape).bits is not None

    assert coded(1024, 512) and coded(128, 512) and coded(65_536, 1)
    assert not coded(256, 128) and not coded(8, 512) and not coded(65_535, 1)
    assert not coded(65_536) and not coded(64, 64, 64) and not coded()


def test_bits_null_is_neutral_for_the_whole_quantiser():
    plain, full = config_of(bits=None), config_of(FULL, bits=None, codec="zstd", level=22, shuffle=1)
    (_, back, _), (_, same, said) = packed(plain), packed(full)
    assert all(torch.equal(back[name], same[name]) for name in back)
    assert not any("allocation" in line for line in said)


def test_allocation_fits_takes_more_under_a_smaller_limit_and_says_what_it_took():
    sizes, errors = [], []
    for limit in (ROOM, 18_000, 16_000, TIGHT):
        data, back, said = packed(config_of(FULL, gptq=False, awq=False), limit)
        assert len(data) <= limit
        sizes, errors = [*sizes, len(data)], [*errors, moved(back)]
        traded = [line for line in said if " -> " in line]
        assert len(traded) == sum(
            "step" in name for name in arrays_of(data, config_of(FULL, gptq=False, awq=False))
        )
        assert (limit == ROOM) == all(re.search(r": (\d) -> \1 bits", line) for line in traded)
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)
    assert TIGHT - sizes[-1] < 0.1 * TIGHT


def arrays_of(data: bytes, config: Config) -> dict[str, np.ndarray]:
    body = codec.CODECS[config.quant.codec][1](data, ROOM)
    return arrays.from_bytes(codec.unshuffle(body, config.quant.shuffle))[1]


def test_a_limit_that_nothing_fits_is_an_error_with_the_numbers():
    with pytest.raises(ValueError, match=r"smallest artifact has [\d,]+ bytes; 3,000 are allowed"):
        packed(config_of(FULL, gptq=False, awq=False), 3_000)


def test_without_allocation_the_limit_is_the_judges_business():
    assert (
        packed(config_of(FULL, allocate=False, awq=False), 100)[0]
        == packed(config_of(FULL, allocate=False, awq=False))[0]
    )


def test_allocation_spares_the_tensor_whose_errors_matter():
    config = config_of(FULL, gptq=False, awq=False, row_bits=False)
    stats, name = statistics_of(config), "blocks.1.mlp.up.weight"

    def given(importance: float) -> str:
        said: list[str] = []
        changed = stats[name]._replace(fisher_RC=importance * stats[name].fisher_RC)
        pack.to_artifact(WEIGHTS, {**stats, name: changed}, config, TIGHT, said.append)
        return next(line for line in said if line.startswith(name))

    assert ": 6 -> 6 bits" in given(1e4) and ": 6 -> 2 bits" in given(1e-8)


@pytest.mark.parametrize("text", [TINY, FULL])
def test_the_bytes_do_not_depend_on_the_number_of_threads(text):
    config = config_of(text)
    stats, before = statistics_of(config), torch.get_num_threads()
    try:
        data = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            data.append(pack.to_artifact(WEIGHTS, stats, config, ROOM))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert data[0] == data[1]


def test_the_entropy_coder_takes_the_place_of_the_codes_and_comes_near_its_bound():
    coded, plain = (arrays_of(packed(config)[0], config) for config in (config_of(entropy=True), config_of()))
    assert set(coded) - set(plain) == set(pack.WORDS) and "tok_emb.weight" in set(plain) - set(coded)
    words, bound = coded["codes:words"].nbytes, entropy.entropy_bytes(coded["codes:counts"])
    assert bound <= words <= bound + 64


AWQ = config_of(FULL, row_bits=False, allocate=False, gptq=False, rotate=False)
FORGED_FULL = {
    "words": (lambda c: {**c, "codes:words": c["codes:words"][1:]}, "entropy"),
    "histograms": (lambda c: {**c, "codes:counts": c["codes:counts"] + 1}, "entropy"),
    "levels": (lambda c: {**c, "codes:levels": c["codes:levels"][:-1]}, "levels"),
    "no words": (lambda c: _without(c, "codes:words"), "missing"),
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
    forge, said = FORGED_FULL[how]
    data = packed(AWQ)[0]
    header = {"kind": "golf-artifact-1", "config_sha256": digest(AWQ)}

    def close(content: dict[str, np.ndarray]) -> bytes:
        return codec.compress_brotli(codec.shuffle(arrays.to_bytes(header, content), 2), 1)

    content = arrays_of(data, AWQ)
    assert any(name.endswith(":scale") for name in content)
    pack.from_artifact(close(content), AWQ, V)
    with pytest.raises(ValueError, match=said):
        pack.from_artifact(close(forge(content)), AWQ, V)


@pytest.mark.parametrize("text", [TINY, FULL])
def test_the_stage_packs_what_train_left_and_reads_it_again(tmp_path: Path, text: str):
    config = config_of(text, target_bytes=TIGHT if text is FULL else 0)
    stats = statistics_of(config)
    (tmp_path / "checkpoint").mkdir()
    checkpoint.write(tmp_path / "checkpoint", config, V, 1, 5, WEIGHTS, stats)
    (tmp_path / "c").write_text(text)
    limits = {"checkpoint_bytes": ROOM, "counted_bytes": ROOM}
    setup = Setup(
        "pack",
        1,
        "record",
        V,
        tmp_path / "t",
        tmp_path / "c",
        tmp_path,
        limits,
        checkpoint=tmp_path / "checkpoint",
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pack.run(Wire(theirs), setup, config, Ranks(0, 1, torch.device("cpu")))
        judge = Wire(ours)
        judge.receive("ready")
        while judge.receive("progress", "packed").op != "packed":
            pass
    assert (tmp_path / "artifact.bin").read_bytes() == pack.to_artifact(WEIGHTS, stats, config, TIGHT)


def test_the_artifact_may_take_what_code_and_recipe_leave(tmp_path: Path):
    (tmp_path / "c").write_bytes(b"x" * 1000)
    setup = Setup("pack", 1, "record", V, tmp_path, tmp_path / "c", tmp_path, {"counted_bytes": 16_000_000})
    assert pack.artifact_limit(CONFIG, setup) == 16_000_000 - 1000 - code_bytes()
    assert pack.artifact_limit(config_of(target_bytes=5000), setup) == 5000


def test_weights_that_cannot_be_stored_are_an_error_that_names_the_tensor():
    with pytest.raises(ValueError, match=rf"tensor {re.escape(PLAIN)} holds a NaN"):
        pack.to_artifact({**WEIGHTS, PLAIN: WEIGHTS[PLAIN] * float("nan")}, {}, CONFIG, ROOM)
