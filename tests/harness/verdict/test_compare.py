"""Runs compared document by document: pairing separates runs that means cannot; damaged files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.base import arrays, files
from harness.base.errors import UsageError
from harness.edition import PROFILES
from harness.run.folder import RunFolder
from harness.run.records import save
from harness.scoring import low_bpb_documents, paired
from harness.verdict import compare
from tests.harness.fakes.verdicts import manifest, record


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


def write_run(folder: Path, bits_SD: np.ndarray, bytes_D: np.ndarray, **plan: object) -> Path:
    """A run folder with the documents of each seed (1, 2, ...), and plan.json if there are any facts."""
    for seed, bits_D in enumerate(bits_SD, 1):
        place = RunFolder(folder).seed(seed)
        place.path.mkdir(parents=True)
        save(place.record, record(seed))
        columns = {"starts": np.arange(len(bits_D)), "bits": bits_D, "bytes": bytes_D}
        arrays.write_arrays(place.documents, columns)
    if plan:
        limits = PROFILES["pocket"].with_train_clock(float(str(plan["train_seconds"])))
        stored = {
            "schema": 1,
            "submission": "my-idea",
            "track": "A",
            "manifest": manifest().model_dump(mode="json", by_alias=True),
            "isolated": False,
            "isolation": "none",
            "image": None,
            "code_bytes": 1,
            "config_bytes": 1,
            "dataset": {"name": "pocket", "folder": "/x"},
            "identity": {
                "code": str(plan["code"]),
                "config": "",
                "runner": plan["runner"],
                "dataset": "cd" * 32,
                "profile": "pocket",
                "limits": limits.public(),
            },
        }
        files.write_json(RunFolder(folder).plan, stored)
    return folder


def test_a_run_compared_with_itself_is_a_tie(tmp_path: Path) -> None:
    bits_D, bytes_D, _ = documents(np.random.default_rng(1))
    run = write_run(tmp_path / "a", np.array([bits_D, bits_D * 1.01]), bytes_D)
    text = compare.describe(compare.compare(run, run))
    assert "2 pairs of seeds: a tie" in text
    assert "better here" not in text


def test_a_difference_that_chance_explains_is_said_to_be_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    bits_D, bytes_D, _ = documents(rng)
    noise_SD, other_SD = (rng.normal(0, 0.01, (3, len(bits_D))) * bytes_D for _ in range(2))
    first = write_run(tmp_path / "a", bits_D + noise_SD, bytes_D)
    second = write_run(tmp_path / "b", bits_D + other_SD, bytes_D)
    compared = compare.compare(first, second)
    low, high = compared["ci95_such_text_bpb"]
    assert low < 0 < high
    assert "by less than chance explains" in compare.describe(compared)
    better = write_run(tmp_path / "c", bits_D * 0.9 + noise_SD, bytes_D)
    assert "second is better here\n" in compare.describe(compare.compare(first, better))


def test_what_differs_besides_the_recipe_is_named_and_seeds_without_a_partner_too(tmp_path: Path) -> None:
    bits_D, bytes_D, _ = documents(np.random.default_rng(1))
    facts = {"code": "aa" * 32, "runner": "local", "train_seconds": 45}
    first = write_run(tmp_path / "a", np.array([bits_D] * 3), bytes_D, **facts)
    same = write_run(tmp_path / "b", np.array([bits_D] * 3), bytes_D, **facts)
    changed = {**facts, "code": "bb" * 32, "runner": "docker", "train_seconds": 5}
    other = write_run(tmp_path / "c", np.array([bits_D] * 2), bytes_D, **changed)
    assert compare.compare(first, same)["differs"] == []
    compared = compare.compare(first, other)
    assert [each["what"] for each in compared["differs"]] == ["train clock", "runner", "code of golf"]
    text = compare.describe(compared)
    assert "differs: train clock: 45 s in the first, 5 s in the second" in text
    assert "left out of the first: seeds 3, without a partner" in text
    assert "first   2.1000 bits per byte (sd 0.0000, 3 of 6 seeds)" in text
    assert [each["what"] for each in compare.compare(RunFolder(first).seed(1).path, other)["differs"]] == [
        each["what"] for each in compared["differs"]
    ]


def test_the_folders_of_seeds_keep_their_numbers_and_without_a_plan_nothing_else_is_known(
    tmp_path: Path,
) -> None:
    bits_D, bytes_D, _ = documents(np.random.default_rng(1))
    run = write_run(tmp_path / "a", np.array([bits_D, bits_D * 1.01]), bytes_D)
    one, two = (RunFolder(run).seed(seed).path for seed in (1, 2))
    assert compare.compare(one, two)["seeds"] == [[1, 2]]
    assert compare.compare(two, run)["seeds"] == [[2, 2]]
    text = compare.describe(compare.compare(one, two))
    assert "one side has no plan.json: nothing is known of its clocks" in text
    assert "no seed in common" in text
