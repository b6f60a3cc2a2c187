"""The comparison of coders: all are lossless and refuse foreign bytes; the table has bytes and bounds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from golf.bench import codecs, codecs_decoder
from golf.bench.codecs_coders import coders, read_order, similar_order, write_order
from golf.recipe.config import resolved
from golf.storage import entropy
from golf.training import checkpoint
from golf.training.checkpoint import Training
from tests.golf.fakes.artifacts import CONFIG, TINY, WEIGHTS, V, config_of

INSIDE = [coder for coder in coders() if not coder.program]


def normal(rows: int, columns: int, sigma: float = 3.0, seed: int = 0) -> np.ndarray:
    symbols_RC = np.round(sigma * np.random.default_rng(seed).normal(size=(rows, columns)))
    return symbols_RC.clip(-31, 31).astype(np.int8)


ODD = {
    "one row, one column": [normal(1, 9), normal(7, 1), normal(1, 1)],
    "no rows, no columns": [np.empty((0, 4), np.int8), normal(3, 5), np.empty((2, 0), np.int8)],
    "nothing at all": [np.empty((0, 4), np.int8)],
    "no matrices": [],
    "all symbols equal": [np.full((5, 8), -7, np.int8), np.zeros((4, 4), np.int8)],
    "every symbol": [np.arange(-128, 128, dtype=np.int8).reshape(16, 16)],
    "rows of several scales": [normal(40, 30) * np.int8(2), normal(20, 10, 0.3)],
}


def shapes_of(matrices: list[np.ndarray]) -> list[tuple[int, int]]:
    return [(each.shape[0], each.shape[1]) for each in matrices]


@pytest.mark.parametrize(
    "coder",
    [pytest.param(coder, marks=[pytest.mark.slow] * bool(coder.program)) for coder in coders()],
    ids=lambda coder: coder.name,
)
@pytest.mark.parametrize("matrices", ODD.values(), ids=ODD)
def test_every_coder_gives_back_matrices_of_any_shape(coder, matrices):
    if not coder.available:
        pytest.skip(f"{coder.program} is not installed")
    again = coder.decode(coder.encode(matrices), shapes_of(matrices))
    assert len(again) == len(matrices)
    for one, two in zip(matrices, again, strict=True):
        assert two.dtype == np.int8
        assert two.shape == one.shape
        assert np.array_equal(one, two)


@pytest.mark.parametrize("coder", INSIDE, ids=lambda coder: coder.name)
def test_truncated_extended_and_foreign_bytes_are_errors(coder):
    matrices = [normal(12, 20), normal(5, 7, 1.0)]
    data, shapes = coder.encode(matrices), shapes_of(matrices)
    for wrong in (data[:-1], data[: len(data) // 2], data[1:], data + b"\0", b"", b"\xff" * 40):
        with pytest.raises(ValueError):
            coder.decode(wrong, shapes)
    with pytest.raises(ValueError):
        coder.decode(data, [(12, 20), (5, 8)])


@pytest.mark.parametrize("coder", INSIDE, ids=lambda coder: coder.name)
def test_what_expands_beyond_the_expected_shapes_is_refused(coder):
    large = coder.encode([np.zeros((1000, 1000), np.int8)])
    with pytest.raises(ValueError):
        coder.decode(large, [(3, 4)])


def test_lying_lengths_of_an_entropy_coders_parts_are_errors():
    contexts = next(coder for coder in coders() if coder.name.startswith("golf"))
    data = bytearray(contexts.encode([normal(6, 9)]))
    data[:4] = b"\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="truncated"):
        contexts.decode(bytes(data), [(6, 9)])


def test_a_coder_of_single_symbols_needs_at_least_the_bound_of_the_histograms():
    coder = next(coder for coder in coders() if "histogram" in coder.name)
    for matrices in ([normal(64, 64)], [normal(32, 128, 1.0), normal(128, 32, 8.0)]):
        bound = sum(map(entropy.shannon_bytes, matrices))
        assert bound <= len(coder.encode(matrices)) < bound + 300


def test_similar_rows_come_together_and_their_order_is_stored_in_few_bits():
    symbols_RC = np.array([[0, 0], [9, 9], [1, 0], [8, 9], [1, 1]], np.int8)
    assert similar_order(symbols_RC).tolist() == [0, 2, 4, 3, 1]
    assert len(write_order(np.arange(512))) == 512 * 9 // 8
    for rows in (0, 1, 2, 300):
        order_R = np.random.default_rng(rows).permutation(rows)
        assert np.array_equal(read_order(write_order(order_R), rows), order_R)
    with pytest.raises(ValueError, match="no permutation"):
        read_order(write_order(np.array([0, 1, 1, 3])), 4)


@pytest.mark.slow
def test_a_decoder_costs_what_it_adds_to_golfs_compressed_sources():
    costs = {coder.name: codecs_decoder.decoder_bytes(coder) for coder in INSIDE}
    assert costs["brotli 11"] == 0
    assert 0 < costs["brotli 11, sorted rows"] < 1000
    assert 500 < costs["golf's rANS with contexts"] < 4000
    assert (
        codecs_decoder._code('def f():\n    """Doc."""\n    # why\n    return 1\n')
        == "def f():\n    return 1"
    )


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a tiny recipe beside that recipe."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "config.resolved.yaml").write_text(resolved(CONFIG))
    checkpoint.write(tmp_path / "checkpoint", Training(CONFIG, V, 1, 9), WEIGHTS, {})
    return tmp_path / "checkpoint"


@pytest.mark.slow
def test_the_table_has_every_coder_beside_both_bounds(folder, monkeypatch, capsys):
    monkeypatch.setattr(codecs, "coders", lambda: [*coders()[:2], coders()[-1], absent])
    absent = coders()[0]._replace(name="another", program="no-such-program")
    assert codecs.main([str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["coder"] for row in found["coders"]] == ["zstd 22", "brotli 11", "golf's rANS with contexts"]
    assert found["skipped"] == ["another"]
    assert found["steps"] == 9
    assert found["numbers"] == sum(w.numel() for w in WEIGHTS.values() if w.ndim == 2 and w.numel() > 400)
    for row in found["coders"]:
        for bound, size in found["bounds"].items():
            assert row[f"over_{bound}"] == pytest.approx(row["bytes"] / size - 1)
    text = codecs.table(found)
    assert "| brotli 11 |" in text
    assert "not installed here: another" in text


def test_codes_are_the_same_whether_the_recipe_codes_them_or_not(folder):
    plain = codecs.read_arrays(folder, CONFIG)[2]
    coded = codecs.read_arrays(folder, replace(CONFIG, quant=replace(CONFIG.quant, entropy=True)))[2]
    codes = {name for name, array in plain.items() if array.dtype == np.int8}
    assert codes
    assert codes == {name for name, array in coded.items() if array.dtype == np.int8}
    assert all(np.array_equal(plain[name], coded[name]) for name in plain)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["{folder}", "--only", "gzip"], "no coder's name holds 'gzip'; there are: zstd 22, brotli 11"),
        (["no-such"], "is no checkpoint: it has no weights.arrays"),
        (["{folder}", "--config", "no-such.yaml"], "no such recipe"),
        (["{folder}", "--config", "{other}"], "trained with another recipe"),
        (["{folder}", "--config", "{unquantised}"], "quantises nothing"),
        (["{broken}", "--config", "{config}"], "not an array file"),
    ],
)
def test_a_folder_that_cannot_be_measured_is_named_with_the_reason(folder, tmp_path, capsys, given, reason):
    files = {
        "other": resolved(config_of(TINY.replace("width: 48", "width: 64"))),
        "unquantised": resolved(config_of(bits=None)),
        "config": resolved(CONFIG),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/weights.arrays").write_bytes(bytes(100))
    paths = {name: tmp_path / name for name in (*files, "broken")}
    words = [word.format(folder=folder, **paths) for word in given]
    if words == ["no-such"]:
        words += ["--config", str(paths["config"])]
    assert codecs.main(words) == 2
    assert reason in capsys.readouterr().err
