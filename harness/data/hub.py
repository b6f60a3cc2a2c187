"""Fetch files of a Hugging Face dataset repository at a fixed revision, checked and resumable.

For every file the hub announces an ETag: the SHA-256 of a large file, git's SHA-1 of a small one. The
received file is hashed here and compared, whatever the library did. Interrupted downloads resume, since the
library keeps the part that it received.

Where no hash is pinned in the code, the hub is trusted, and what it announced is recorded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from harness.base.errors import HarnessError, MachineFault, UsageError
from harness.base.files import BLOCK_BYTES, file_size, sha256_of
from harness.base.text import literal

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class FileMetadata(NamedTuple):
    """What the hub announces of a file. `etag`: SHA-256 or git's SHA-1, in hexadecimal digits."""

    commit: str
    etag: str
    n_bytes: int


def git_sha1(path: Path) -> str:
    """The SHA-1 that git gives the file's content, 40 hexadecimal digits."""
    digest = hashlib.sha1(f"blob {file_size(path)}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _bar(progress: Callable[[int], None]) -> type[Any]:
    """A progress bar class for the library that draws nothing and reports received bytes."""
    from huggingface_hub import utils

    base: Any = utils.tqdm  # type: ignore[attr-defined]

    class Quiet(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            progress(int(n or 0))
            return None

    return Quiet


class Repository:
    """A dataset repository at one commit. `endpoint` replaces the hub (a mirror, or a stand-in in tests)."""

    def __init__(self, name: str, revision: str, endpoint: str | None = None) -> None:
        self.name, self.revision, self.endpoint = name, revision, endpoint

    def _failed(self, path: str, error: Exception) -> HarnessError:
        kind = type(error).__name__
        first = (str(error).strip().splitlines() or [kind])[0][:300]
        if kind in (
            "EntryNotFoundError",
            "RemoteEntryNotFoundError",
            "RevisionNotFoundError",
            "RepositoryNotFoundError",
            "GatedRepoError",
        ):
            return UsageError(
                f"{self.name}@{self.revision}: {path}: the hub does not have it ({kind}): {first}",
                hint="check --revision; the repository may have moved or become private",
            )
        return MachineFault(
            f"{self.name}@{self.revision}: {path}: download failed ({kind}): {first}",
            hint="is there a network? Run the same command again: it goes on where it stopped",
        )

    def metadata(self, path: str) -> FileMetadata:
        """Ask the hub for a file's hash and size, and for the commit that the revision resolves to."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.name, path, repo_type="dataset", revision=self.revision, endpoint=self.endpoint)
        try:
            found = get_hf_file_metadata(url, endpoint=self.endpoint, token=False)
        except Exception as error:  # the library raises a dozen kinds, and those of its HTTP client
            raise self._failed(path, error) from error
        commit, etag = found.commit_hash or "", found.etag or ""
        if (
            not COMMIT.fullmatch(commit)
            or not (SHA256.fullmatch(etag) or COMMIT.fullmatch(etag))
            or found.size is None
        ):
            raise UsageError(
                f"{self.name}@{self.revision}: {path}: the answer lacks commit, hash or size: "
                f"found {literal(commit)}, {literal(etag)}, {literal(found.size)}",
                hint="is this a Hugging Face hub? (HF_ENDPOINT)",
            )
        return FileMetadata(commit, etag, found.size)

    def fetch(
        self,
        path: str,
        folder: Path,
        *,
        max_bytes: int,
        sha256: str | None = None,
        progress: Callable[[int], None] = lambda n_bytes: None,
    ) -> Path:
        """Bring `path` to `folder/path`, verified against the hub's hash and, where given, a pinned SHA-256.

        Raises UsageError for a file that is missing, too large or has another hash, MachineFault
        for a failed download.
        """
        from huggingface_hub import hf_hub_download

        metadata = self.metadata(path)
        if metadata.n_bytes > max_bytes:
            raise UsageError(
                f"{self.name}: {path}: {metadata.n_bytes:,} bytes, expected at most {max_bytes:,}",
                hint="this is not the file that was meant: check --revision",
            )
        try:
            local = Path(
                hf_hub_download(
                    self.name,
                    path,
                    repo_type="dataset",
                    revision=metadata.commit,
                    local_dir=folder,
                    endpoint=self.endpoint,
                    token=False,
                    tqdm_class=_bar(progress),
                )
            )
        except Exception as error:  # as above
            raise self._failed(path, error) from error
        expected = [(metadata.etag, sha256_of if SHA256.fullmatch(metadata.etag) else git_sha1)]
        if sha256 is not None:
            expected.append((sha256, sha256_of))
        for digest, algorithm in expected:
            found = algorithm(local)
            if found != digest:
                local.unlink()
                raise UsageError(
                    f"{self.name}@{metadata.commit}: {path}: hash: expected {digest}, found {found}",
                    hint="the file was damaged or replaced; it was removed: run the command again",
                )
        return local
