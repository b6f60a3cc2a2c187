"""Fetching FineWeb shards, against a small stand-in of the hub on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import HarnessError, MachineFault, UsageError
from harness.data import fineweb
from harness.data.dataset import Dataset
from harness.data.fineweb import VARIANTS, Variant
from harness.data.shards import HEADER_BYTES, write_tokens
from tests.harness.fakes.datasets import VOCAB_SIZE, tiny_model

COMMIT = "c" * 40
REPOSITORY = "someone/parameter-golf"
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


class Hub:
    """Files of one repository over HTTP, as the hub serves them, with faults on request."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut: dict[str, int] = {}  # path -> bytes after which the connection breaks, once
        self.lies: dict[str, bytes] = {}  # path -> content sent under the true file's hash
        self.ranges: list[str] = []
        self.sent: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Keep the test's output clean."""

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        for revision in (COMMIT, "main"):
            prefix = f"/datasets/{REPOSITORY}/resolve/{revision}/"
            if request.path.startswith(prefix) and request.path.removeprefix(prefix) in self.files:
                return self.send(request, request.path.removeprefix(prefix), body)
        request.send_response(404)
        request.send_header("X-Error-Code", "EntryNotFound")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return None

    def send(self, request: http.server.BaseHTTPRequestHandler, path: str, body: bool) -> None:
        content = self.lies.get(path, self.files[path])
        start = 0
        if body and (wanted := request.headers.get("Range")):
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        request.send_response(206 if start else 200)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("ETag", f'"{hashlib.sha256(self.files[path]).hexdigest()}"')
        request.send_header("Content-Length", str(len(content) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        if body:
            self.sent.append(path)
            end = self.cut.pop(path, len(content))
            request.wfile.write(content[start:end])
            request.close_connection = end < len(content)


def shard(folder: Path, n_tokens: int, seed: int) -> bytes:
    tokens_T = np.random.default_rng(seed).integers(4, VOCAB_SIZE, n_tokens, dtype=np.uint16)
    tokens_T[::100] = 1
    write_tokens(folder / "shard", tokens_T)
    return (folder / "shard").read_bytes()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
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
    stand_in.server.shutdown()
    stand_in.server.server_close()


def fetch(hub: Hub, folder: Path, variant: Variant = TINY, **options: object) -> Dataset:
    return fineweb.prepare(variant, folder / "set", endpoint=hub.endpoint, **options)


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
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000
    )  # what reaches the disk at a time
    hub.cut[f"{SHARDS}/fineweb_train_000000.bin"] = 100_000
    dataset = fetch(hub, tmp_path, shards=1)
    dataset.verify()
    assert hub.ranges == ["bytes=100000-"]


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
    with pytest.raises(MachineFault, match="download failed") as caught:
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
