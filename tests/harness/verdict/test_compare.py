"""Runs compared document by document: pairing separates runs that means cannot; damaged files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.base import arrays
from harness.base.errors import UsageError
from harness.scoring import low_bpb_documents, paired
from harness.verdict import compare


def documents(rng: np.random.Generator, n_documents: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits_D, bytes_D, starts_D) of ordinary documents: 1.2 bits per byte, log-normal with sd 0.2."""
    bytes_D = rng.integers(300, 5000, n_documents)
    return bytes_D * 1.2 * np.exp(rng.normal(0, 0.2, n_documents)), bytes_D, np.arange(n_documents) * 700


def test_ordinary_documents_pass() -> None:
    for seed in range(20):
        assert low_bpb_documents.scan(*documents(np.random.default_rng(seed)))["outcome"] == "pass"


def test_a_memorised_stretch_is_found_counted_and_its_worth_is_stated() -> None:
    bits_D, bytes_D, starts_D = documents(np.random.default_rng(1))
    bits_D[40:60] = 0.01 * bytes_D[40:60]
    found = low_bpb_documents.scan(bits_D, bytes_D, starts_D)
    assert (found["outcome"], found["found"], found["longest_stretch"]) == ("unknown", 20, 20)
    assert found["first"][0]["document"] == 40
    assert found["worth_bpb"] == pytest.approx(1.2 * bytes_D[40:60].sum() / bytes_D.sum(), rel=0.1)


def test_memorised_documents_are_found_even_if_most_are_memorised() -> None:
    bits_D, bytes_D, starts_D = documents(np.random.default_rng(2))
    bits_D[:300] = 0.01 * bytes_D[:300]
    assert low_bpb_documents.scan(bits_D, bytes_D, starts_D)["found"] >= 300


def test_pairing_by_document_separates_runs_that_seed_means_do_not() -> None:
    rng = np.random.default_rng(3)
    bits_D, bytes_D, _ = documents(rng)
    a_SD = np.array([bits_D * (1 + rng.normal(0, 0.01)) for _ in range(3)])
    b_SD = a_SD - 0.002 * bytes_D + rng.normal(0, 0.001, a_SD.shape) * bytes_D
    found = paired.difference(a_SD, b_SD, bytes_D)
    assert found["ci95_such_text_bpb"][0] > 0
    means = found["ci95_seed_means_bpb"]
    assert means[0] < 0 < means[1]
    assert found["difference_bpb"] == pytest.approx(0.002, abs=2e-4)


def test_the_interval_covers_the_true_difference_as_often_as_it_claims() -> None:
    rng, covered = np.random.default_rng(4), 0
    for _ in range(400):
        bytes_D = rng.integers(300, 5000, 60)
        seeds_S, documents_D = rng.normal(0, 0.003, 3), rng.normal(0, 0.02, 60)
        y_SD = (0.01 + seeds_S[:, None] + documents_D + rng.normal(0, 0.002, (3, 60))) * bytes_D
        b_SD = np.broadcast_to(2.0 * bytes_D, y_SD.shape)
        low, high = paired.difference(b_SD + y_SD, b_SD, bytes_D)["ci95_such_text_bpb"]
        covered += low <= 0.01 <= high
    assert covered >= 0.92 * 400


def test_runs_of_different_texts_are_refused(tmp_path: Path) -> None:
    for name, n_bytes in (("a", 10), ("b", 11)):
        (tmp_path / name / "seed-1").mkdir(parents=True)
        np.savez(
            tmp_path / name / "seed-1" / "docs.npz",
            starts=np.array([0, 5]),
            bits=np.ones(2),
            bytes=np.array([10, n_bytes]),
        )
    with pytest.raises(UsageError, match="other documents"):
        compare.compare(tmp_path / "a", tmp_path / "b")
    assert compare.compare(tmp_path / "a", tmp_path / "a")["difference_bpb"] == 0


@pytest.mark.parametrize("kind", ["junk", "bomb", "cut"])
def test_a_damaged_documents_file_is_refused_with_its_path(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seed-1" / "docs.npz"
    path.parent.mkdir()
    np.savez_compressed(
        path, starts=np.zeros(5_000, np.int64), bits=np.ones(5_000), bytes=np.ones(5_000, np.int64)
    )
    if kind == "bomb":
        monkeypatch.setattr(arrays, "MAX_ARRAYS_BYTES", 100_000)
    else:
        path.write_bytes(b"junk" if kind == "junk" else path.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"docs\.npz: cannot be read"):
        compare.compare(tmp_path, tmp_path)
