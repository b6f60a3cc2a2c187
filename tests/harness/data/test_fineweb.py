"""Fetching FineWeb shards, against a small stand-in of the hub on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.base.download import BLOCK_BYTES
from harness.base.errors import HarnessError, MachineFault, UsageError
from harness.base.paths import ROOT
from harness.data import fineweb
from harness.data.dataset import Dataset
from harness.data.fineweb import VARIANTS, Variant
from harness.data.shards import HEADER_BYTES, write_tokens
from tests.harness.fakes.datasets import VOCAB_SIZE, tiny_model
from tests.harness.fakes.hub import COMMIT, REPOSITORY, Hub
from tests.harness.fakes.processes import kill, wait_until

SHARDS = "datasets/datasets/fineweb10B_tiny"
TINY = Variant(
    "tiny",
    REPOSITORY,
    COMMIT,
    "fineweb10B_tiny",
    VOCAB_SIZE,
    "tiny.model",
    hashlib.sha256(tiny_model()).hexdigest(),
    3_000,
)


def shard(folder: Path, n_tokens: int, seed: int) -> bytes:
    tokens_T = np.random.default_rng(seed).integers(4, VOCAB_SIZE, n_tokens, dtype=np.uint16)
    tokens_T[::100] = 1
    write_tokens(folder / "shard", tokens_T)
    return (folder / "shard").read_bytes()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("harness.base.download.sleep", lambda seconds: None)
    manifest = {
        "datasets": [{"name": "fineweb10B_tiny", "stats": {"files_train": 3, "files_val": 1, "more": 1}}],
        "tokenizers": [],
    }
    files = {
        "datasets/manifest.json": json.dumps(manifest).encode(),
        "datasets/tokenizers/tiny.model": tiny_model(),
        f"{SHARDS}/fineweb_val_000000.bin": shard(tmp_path, 3_000, 0),
    }
    for index in range(3):
        files[f"{SHARDS}/fineweb_train_{index:06d}.bin"] = shard(tmp_path, 200_000, index + 1)
    stand_in = Hub(files)
    yield stand_in
    stand_in.close()


def fetch(hub: Hub, folder: Path, variant: Variant = TINY, **options: object) -> Dataset:
    return fineweb.prepare(variant, folder / "set", endpoint=hub.endpoint, **options).dataset


def test_the_shards_arrive_as_a_verified_dataset(hub: Hub, tmp_path: Path) -> None:
    seen: list[float] = []
    dataset = fetch(hub, tmp_path, shards=2, progress=lambda share, what: seen.append(share))
    dataset.verify()
    assert [item.path.name for item in dataset.train] == ["train_000000.bin", "train_000001.bin"]
    assert dataset.train[1].path.read_bytes() == hub.files[f"{SHARDS}/fineweb_train_000001.bin"]
    assert (dataset.source["repository"], dataset.source["revision"]) == (REPOSITORY, COMMIT)
    assert seen == sorted(seen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "shard"]
    assert sorted(path.name for path in dataset.folder.iterdir()) == [
        "dataset.json",
        "tokenizer.model",
        "train_000000.bin",
        "train_000001.bin",
        "val_000000.bin",
    ]


def test_a_cut_connection_is_taken_up_where_it_broke(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{SHARDS}/fineweb_train_000000.bin"
    hub.cut[path] = 100_000
    fetch(hub, tmp_path, shards=1).verify()
    assert hub.ranges == ["bytes=100000-"]
    assert hub.n_sent[path] == len(hub.files[path])
    assert "fineweb_train_000000.bin: the connection failed" in capsys.readouterr().err


def test_an_interrupted_call_goes_on_at_the_next(hub: Hub, tmp_path: Path) -> None:
    class Interrupt(Exception):
        pass

    def stop(share: float, what: str) -> None:
        if what.startswith("fineweb_train_000001"):
            raise Interrupt

    with pytest.raises(Interrupt):
        fetch(hub, tmp_path, shards=3, progress=stop)
    assert not (tmp_path / "set").exists()
    hub.sent.clear()
    dataset = fetch(hub, tmp_path, shards=2)
    dataset.verify()
    assert f"{SHARDS}/fineweb_val_000000.bin" not in hub.sent
    assert f"{SHARDS}/fineweb_train_000000.bin" not in hub.sent
    assert len(dataset.train) == 2


PROGRAM = """
import sys
from pathlib import Path
from harness.data import fineweb
from tests.harness.data.test_fineweb import TINY
made = fineweb.prepare(TINY, Path(sys.argv[1]), shards=1, endpoint=sys.argv[2]).made
print("made" if made else "was there")
"""


def started(hub: Hub, folder: Path) -> subprocess.Popen[str]:
    """A process that fetches one train shard."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder, hub.endpoint],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_three_kills_inside_a_shard_cost_no_more_than_a_block_each_and_leave_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    path = f"{SHARDS}/fineweb_train_000000.bin"
    hub.files[path] = shard(tmp_path, 3_000_000, 9)
    size = len(hub.files[path])
    part = (
        tmp_path
        / f".set.{COMMIT[:12]}.download/download"
        / f"{hashlib.sha256(hub.files[path]).hexdigest()}.part"
    )
    for share in (0.75, 0.85, 0.95):
        hub.stall[path] = int(share * size)
        process = started(hub, tmp_path / "set")
        reached = hub.stall[path] - BLOCK_BYTES
        wait_until(lambda reached=reached: part.exists() and part.stat().st_size > reached, process)  # type: ignore[misc]
        kill(process)
    hub.stall.clear()
    (part.parent / "another.incomplete").write_bytes(b"of another program")
    (tmp_path / f".set.{'d' * 12}.download").mkdir()
    fetch(hub, tmp_path, shards=1).verify()
    assert size <= hub.n_sent[path] <= size + 3 * BLOCK_BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "shard"]


@pytest.mark.slow
def test_two_calls_for_one_folder_wait_for_each_other(hub: Hub, tmp_path: Path) -> None:
    path = f"{SHARDS}/fineweb_train_000000.bin"
    hub.stall[path] = 100_000
    first = started(hub, tmp_path / "set")
    wait_until(lambda: path in hub.sent, first)
    second = started(hub, tmp_path / "set")
    assert second.stderr is not None
    assert "another process is at work there: waiting for it" in second.stderr.readline()
    hub.stall.clear()
    kill(first)  # with its lock
    assert second.communicate(timeout=120)[0] == "made\n"
    third = started(hub, tmp_path / "set")
    assert third.communicate(timeout=120) == ("was there\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "shard"]


def test_a_dataset_that_is_there_is_not_fetched_again_and_another_one_is_not_replaced(
    hub: Hub, tmp_path: Path
) -> None:
    made = fetch(hub, tmp_path, shards=2)
    hub.sent.clear()
    assert fineweb.prepare(TINY, made.folder, shards=2, endpoint=hub.endpoint) == (made, False)
    for shards, variant in ((1, TINY), (2, dataclasses.replace(TINY, repository="someone/else"))):
        with pytest.raises(UsageError, match="exists already, and is not the dataset asked for"):
            fineweb.prepare(variant, made.folder, shards=shards, endpoint=hub.endpoint)
    assert hub.sent == []


def test_a_hub_that_is_busy_is_asked_again_for_hashes_and_for_files(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("harness.base.download.sleep", waits.append)
    hub.refusals = [
        ("HEAD", 429, {"Retry-After": "11"}),
        ("GET", 503, {"Retry-After": "3"}),
        ("HEAD", 503, {}),
    ]
    fetch(hub, tmp_path, shards=1).verify()
    assert waits == [11, 2, 3]
    assert "manifest.json: the server answers 429: waiting 11 s" in capsys.readouterr().err


def test_large_files_come_from_where_the_hub_redirects(hub: Hub, tmp_path: Path) -> None:
    hub.elsewhere = True
    fetch(hub, tmp_path, shards=1).verify()


def test_a_wrong_hash_is_refused_and_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    path = f"{SHARDS}/fineweb_train_000000.bin"
    damaged = bytearray(hub.files[path])
    damaged[5_000] ^= 1
    hub.lies[path] = bytes(damaged)
    with pytest.raises(
        UsageError, match=r"fineweb_train_000000\.bin: hash: expected [0-9a-f]{64}, found [0-9a-f]{64}"
    ):
        fetch(hub, tmp_path, shards=1)
    assert not (tmp_path / "set").exists()
    hub.lies.clear()
    fetch(hub, tmp_path, shards=1).verify()


def test_a_tokenizer_that_is_not_the_pinned_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tiny\.model: hash: expected 0{64}, found"):
        fetch(hub, tmp_path, dataclasses.replace(TINY, tokenizer_sha256="0" * 64))


@pytest.mark.parametrize(
    ("offset", "content", "says"),
    [
        (0, b"\0", "shard magic: expected 20240520"),
        (8, b"\1", "end of file: expected"),
        (HEADER_BYTES + 200, b"\xff\xff", "expected an id below 320, found 65535"),
    ],
)
def test_a_shard_that_is_none_is_refused_though_its_hash_is_right(
    hub: Hub, tmp_path: Path, offset: int, content: bytes, says: str
) -> None:
    path = f"{SHARDS}/fineweb_train_000000.bin"
    good = hub.files[path]
    hub.files[path] = good[:offset] + content + good[offset + len(content) :]
    with pytest.raises(UsageError, match=says):
        fetch(hub, tmp_path, shards=1)
    hub.files[path] = good
    fetch(hub, tmp_path, shards=1).verify()


def test_another_validation_split_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="validation tokens: expected 62,021,846, found 3,000"):
        fetch(hub, tmp_path, dataclasses.replace(TINY, validation_tokens=62_021_846))
    assert not any("train" in path for path in hub.sent)


def test_a_validation_split_without_text_is_refused(hub: Hub, tmp_path: Path) -> None:
    write_tokens(tmp_path / "shard", np.ones(3_000, dtype=np.uint16))
    hub.files[f"{SHARDS}/fineweb_val_000000.bin"] = (tmp_path / "shard").read_bytes()
    with pytest.raises(UsageError, match="the validation text has no bytes"):
        fetch(hub, tmp_path, shards=1)


def test_a_branch_is_resolved_and_the_commit_recorded(hub: Hub, tmp_path: Path) -> None:
    unknown = dataclasses.replace(TINY, revision=None)
    with pytest.raises(UsageError, match="no revision of someone/parameter-golf is known") as caught:
        fetch(hub, tmp_path, unknown)
    assert "--revision" in caught.value.hint
    assert fetch(hub, tmp_path, unknown, revision="main", shards=1).source["revision"] == COMMIT


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (b"{}", "manifest.json cannot be used"),
        (b'{"datasets": [], "datasets": []}', "written twice"),
        (b'{"datasets": []}', "names no dataset fineweb10B_tiny"),
        (
            b'{"datasets": [{"name": "fineweb10B_tiny", "stats": {"files_train": 1000000000, "files_val": '
            b"1}}]}",
            "files_train",
        ),
        (b" " * (2 << 20), "expected at most 1,048,576"),
    ],
)
def test_an_odd_manifest_is_refused(hub: Hub, tmp_path: Path, manifest: bytes, says: str) -> None:
    hub.files["datasets/manifest.json"] = manifest
    with pytest.raises(HarnessError, match=says):
        fetch(hub, tmp_path)


@pytest.mark.parametrize("shards", [0, -1, 4])
def test_more_shards_than_there_are_is_a_usage_error(hub: Hub, tmp_path: Path, shards: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 3"):
        fetch(hub, tmp_path, shards=shards)


def test_a_file_that_is_gone_is_a_usage_error_and_no_network_a_machine_fault(
    hub: Hub, tmp_path: Path
) -> None:
    del hub.files[f"{SHARDS}/fineweb_val_000000.bin"]
    with pytest.raises(UsageError, match="the hub does not have it"):
        fetch(hub, tmp_path)
    with pytest.raises(MachineFault, match=r"the connection failed .*, 6 times in a row") as caught:
        fineweb.prepare(TINY, tmp_path / "b", endpoint="http://127.0.0.1:9")
    assert "goes on where it stopped" in caught.value.hint


def test_the_published_variants_are_pinned_as_far_as_known() -> None:
    assert VARIANTS["sp1024"].revision == "a85b0e6035c3c94bc23685a07c81a8f3bf89db80"
    assert VARIANTS["sp8192"].revision is None
    with pytest.raises(UsageError, match="no revision of kevclark/parameter-golf is known"):
        fineweb.prepare(VARIANTS["sp8192"], Path("never-made"))


def test_the_pinned_tokenizers_are_the_official_files(shared: Path) -> None:
    for variant in VARIANTS.values():
        content = (shared / "tokenizers" / variant.tokenizer).read_bytes()
        assert hashlib.sha256(content).hexdigest() == variant.tokenizer_sha256
