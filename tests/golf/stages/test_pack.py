"""Packing: every technique of the quantiser, the byte limit that allocation keeps, and the stage."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import torch

from golf.quant import awq
from golf.runtime.dist import Ranks
from golf.runtime.program import code_bytes
from golf.runtime.wire import Setup, Wire
from golf.stages import pack
from golf.storage import entropy
from golf.training import checkpoint
from golf.training.checkpoint import Training
from tests.golf.fakes.artifacts import (
    CONFIG,
    FULL,
    NO_LIMIT,
    TINY,
    WEIGHTS,
    V,
    arrays_of,
    config_of,
    pack_and_read,
    statistics_of,
)


@pytest.fixture(autouse=True)
def coarse_awq_search(monkeypatch):
    """A coarse search saves time; test_awq.py tests the search itself."""
    monkeypatch.setattr(awq, "ALPHAS", (0.0, 0.5))


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


def squared_error(back: dict[str, torch.Tensor]) -> float:
    return sum((back[name] - weight).square().sum().item() for name, weight in WEIGHTS.items())


@pytest.mark.parametrize("field", [None, *OFF])
@pytest.mark.slow
def test_the_full_recipe_reads_back_and_so_does_each_with_one_technique_off(field):
    config = config_of(FULL, **({} if field is None else {field: OFF[field]}))
    data, back, lines = pack_and_read(config)
    assert list(back) == list(WEIGHTS)
    for name, weight in WEIGHTS.items():
        if weight.ndim == 1 or weight.numel() <= 400:
            assert torch.equal(back[name], weight.half().float())
    size = sum(weight.square().sum().item() for weight in WEIGHTS.values())
    assert 0 < squared_error(back) < 0.2 * size
    assert any("Shannon bound" in line for line in lines) and any(
        f"{len(data):,} bytes" in line for line in lines
    )


def test_eight_bits_lose_less_than_six_and_six_less_than_four():
    errors = [squared_error(pack_and_read(config_of(bits=bits, floor=False))[1]) for bits in (4, 6, 8)]
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
    back = pack_and_read(config)[1]
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
    (_, back, _), (_, same, lines) = pack_and_read(plain), pack_and_read(full)
    assert all(torch.equal(back[name], same[name]) for name in back)
    assert not any("allocation" in line for line in lines)


@pytest.mark.slow
def test_allocation_fits_and_logs_the_bits_it_removed():
    sizes, errors = [], []
    for limit in (NO_LIMIT, 18_000, 16_000, TIGHT):
        data, back, lines = pack_and_read(config_of(FULL, gptq=False, awq=False), limit)
        assert len(data) <= limit
        sizes, errors = [*sizes, len(data)], [*errors, squared_error(back)]
        traded = [line for line in lines if " -> " in line]
        assert len(traded) == sum(
            "step" in name for name in arrays_of(data, config_of(FULL, gptq=False, awq=False))
        )
        assert (limit == NO_LIMIT) == all(re.search(r": (\d) -> \1 bits", line) for line in traded)
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)
    assert TIGHT - sizes[-1] < 0.1 * TIGHT


def test_a_limit_that_nothing_fits_is_an_error_with_the_numbers():
    with pytest.raises(ValueError, match=r"smallest artifact has [\d,]+ bytes; 3,000 are allowed"):
        pack_and_read(config_of(FULL, gptq=False, awq=False), 3_000)


def test_without_allocation_the_limit_has_no_effect():
    assert (
        pack_and_read(config_of(FULL, allocate=False, awq=False), 100)[0]
        == pack_and_read(config_of(FULL, allocate=False, awq=False))[0]
    )


@pytest.mark.slow
def test_allocation_spares_the_tensor_whose_errors_matter():
    config = config_of(FULL, gptq=False, awq=False, row_bits=False)
    stats, name = statistics_of(config), "blocks.1.mlp.up.weight"

    def given(importance: float) -> str:
        lines: list[str] = []
        changed = stats[name]._replace(fisher_RC=importance * stats[name].fisher_RC)
        pack.to_artifact(WEIGHTS, {**stats, name: changed}, config, TIGHT, lines.append)
        return next(line for line in lines if line.startswith(name))

    assert ": 6 -> 6 bits" in given(1e4) and ": 6 -> 2 bits" in given(1e-8)


@pytest.mark.parametrize("text", [TINY, FULL])
@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_threads(text):
    config = config_of(text)
    stats, before = statistics_of(config), torch.get_num_threads()
    try:
        data = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            data.append(pack.to_artifact(WEIGHTS, stats, config, NO_LIMIT))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert data[0] == data[1]


def test_the_entropy_coder_replaces_the_codes_and_comes_near_its_bound():
    coded, plain = (
        arrays_of(pack_and_read(config)[0], config) for config in (config_of(entropy=True), config_of())
    )
    assert set(coded) - set(plain) == set(pack.WORDS) and "tok_emb.weight" in set(plain) - set(coded)
    words, bound = coded["codes:words"].nbytes, entropy.entropy_bytes(coded["codes:counts"])
    assert bound <= words <= bound + 64


@pytest.mark.parametrize("text", [TINY, FULL])
@pytest.mark.slow
def test_the_stage_packs_what_train_wrote(tmp_path: Path, text: str):
    config = config_of(text, target_bytes=TIGHT if text is FULL else 0)
    stats = statistics_of(config)
    (tmp_path / "checkpoint").mkdir()
    checkpoint.write(tmp_path / "checkpoint", Training(config, V, 1, 5), WEIGHTS, stats)
    (tmp_path / "c").write_text(text)
    limits = {"checkpoint_bytes": NO_LIMIT, "counted_bytes": NO_LIMIT}
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
