"""Fetch files of a Hugging Face dataset repository at a fixed revision, checked and resumable.

For every file the hub announces an ETag: the SHA-256 of a large file, git's SHA-1 of a small one. The
library knows the hub's addresses and announcements; base/download.py brings the file to a part named by its
hash, which a later call continues; the whole is hashed here and compared.

Where no hash is pinned in the code, the hub is trusted, and what it announced is recorded.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.base import download
from harness.base.errors import HarnessError, MachineFault, UsageError
from harness.base.files import BLOCK_BYTES, file_size, sha256_of
from harness.base.text import literal

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PART = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\.part")


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


def remove_strays(folder: Path) -> None:
    """Remove everything in a folder of parts that is no part, such as another program's partial files."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not (PART.fullmatch(path.name) and path.is_file() and not path.is_symlink()):
            path.unlink()


class Repository:
    """A dataset repository at one commit. `endpoint` replaces the hub (a mirror, or a stand-in in tests)."""

    def __init__(self, name: str, revision: str, endpoint: str | None = None) -> None:
        self.name, self.revision, self.endpoint = name, revision, endpoint

    def _failed(self, path: str, error: Exception) -> download.MayPass | HarnessError:
        """What a failure of the library means: MayPass, UsageError or MachineFault. Its text is not shown: it
        may hold an address with a password or a signature.
        """
        kinds = [kind.__name__ for kind in type(error).__mro__]
        answer = getattr(error, "response", None)
        if answer is not None and (passing := download.status_may_pass(answer.status_code, answer.headers)):
            return passing
        what = f"{self.name}@{self.revision}: {path}"
        if kinds[0] in ("UnsupportedProtocol", "InvalidURL"):
            return UsageError(
                f"{what}: the address of the hub cannot be used ({kinds[0]})",
                hint="HF_ENDPOINT is written as https://HOST",
            )
        if "TransportError" in kinds:
            return download.connection_failure(error, what)
        if kinds[0] in (
            "EntryNotFoundError",
            "RemoteEntryNotFoundError",
            "RevisionNotFoundError",
            "RepositoryNotFoundError",
            "GatedRepoError",
        ):
            return UsageError(
                f"{what}: the hub does not have it ({kinds[0]})",
                hint="check --revision; the repository may have moved or become private",
            )
        status = "" if answer is None else f", the server answers {answer.status_code}"
        return MachineFault(f"{what}: download failed ({kinds[0]}{status})", hint=download.AGAIN_HINT)

    def _url(self, path: str, revision: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.name, path, repo_type="dataset", revision=revision, endpoint=self.endpoint)

    def metadata(self, path: str) -> FileMetadata:
        """Ask the hub for a file's hash and size, and for the commit that the revision resolves to."""
        from huggingface_hub import HfFileMetadata, get_hf_file_metadata

        def ask() -> HfFileMetadata:
            try:
                return get_hf_file_metadata(
                    self._url(path, self.revision), endpoint=self.endpoint, token=False
                )
            except Exception as error:  # the library raises a dozen kinds, and those of its HTTP client
                raise self._failed(path, error) from error

        found = download.retrying(ask, f"{self.name}@{self.revision}: {path}")
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
        progress: Callable[[int, int], None] = lambda n_bytes, total: None,
    ) -> Path:
        """Bring `path` to a file in `folder`, checked against the hub's hash and, if given, a pinned SHA-256.

        The file is named by its hash, so what an earlier call left of it is continued. `progress` gets the
        bytes that are there and the file's size. Raises UsageError for a file that is missing, too large or
        has another hash, MachineFault for a failed download.
        """
        metadata = self.metadata(path)
        if metadata.n_bytes > max_bytes:
            raise UsageError(
                f"{self.name}: {path}: {metadata.n_bytes:,} bytes, expected at most {max_bytes:,}",
                hint="this is not the file that was meant: check --revision",
            )
        part = folder / f"{metadata.etag}.part"
        download.fetch(
            self._url(path, metadata.commit),
            part,
            max_bytes=max_bytes,
            n_bytes=metadata.n_bytes,
            progress=lambda n_bytes: progress(n_bytes, metadata.n_bytes),
        )
        expected = [(metadata.etag, sha256_of if SHA256.fullmatch(metadata.etag) else git_sha1)]
        if sha256 is not None:
            expected.append((sha256, sha256_of))
        for digest, algorithm in expected:
            found = algorithm(part)
            if found != digest:
                part.unlink()
                raise UsageError(
                    f"{self.name}@{metadata.commit}: {path}: hash: expected {digest}, found {found}",
                    hint="the file was damaged or replaced; it was removed: run the command again",
                )
        return part
