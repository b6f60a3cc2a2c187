"""Read token shards, the challenge's file format, strictly, and write them atomically.

    256 int32   magic 20240520, version 1, number of tokens n, then zeros        (1,024 bytes)
    n   uint16  token ids                                                        (2n bytes)

All little-endian. Documents follow one another; each begins with BOS (id 1) and none ends with EOS. A shard
may begin and end within a document.

The score is a quotient of sums over these ids, so damage has to be an error here and not a wrong score later:
a file cut short by a broken download has fewer tokens, and an id beyond the vocabulary is outside every
table. Every message names the file, the byte offset, what was expected, what was found, and what to do.

Not covered: whether the ids are the right ones (`Dataset.verify` compares hashes); a file that changes while
mapped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.base.errors import UsageError
from harness.base.file_kind import not_plain
from harness.base.files import atomic_file, file_size

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
BOS_ID = 1
MAX_TOKENS = 1 << 30  # ten times the official shard; the header's int32 ends at twice that
CHECK_TOKENS = 1 << 22  # ids are checked in blocks of 8 MiB, so a mapped shard is never all in memory

Tokens = NDArray[np.uint16]


def _refuse(path: Path, offset: int, what: str, expected: object, found: object, hint: str) -> UsageError:
    return UsageError(f"{path}: at byte {offset:,}: {what}: expected {expected}, found {found}", hint=hint)


def header(n_tokens: int) -> bytes:
    """The 1,024-byte header of a shard of `n_tokens` tokens."""
    if not 0 <= n_tokens <= MAX_TOKENS:
        raise ValueError(f"a shard holds 0 to {MAX_TOKENS:,} tokens, not {n_tokens:,}")
    ints = np.zeros(HEADER_INTS, dtype="<i4")
    ints[:3] = MAGIC, VERSION, n_tokens
    return ints.tobytes()


def read_header(path: Path) -> int:
    """The number of tokens in a shard. Raises UsageError for a wrong header or length."""
    n_bytes = file_size(path)
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    if (kind := not_plain(head)) is not None:
        raise UsageError(f"{path}: {kind}", hint="expected a token shard of the challenge")
    if n_bytes < HEADER_BYTES:
        raise _refuse(
            path,
            n_bytes,
            "end of file",
            f"a header of {HEADER_BYTES:,} bytes",
            f"{n_bytes:,} bytes",
            "the file was cut short, or is no token shard: fetch or prepare it again",
        )
    ints = np.frombuffer(head, dtype="<i4")
    for index, name, expected in ((0, "magic", MAGIC), (1, "version", VERSION)):
        if int(ints[index]) != expected:
            raise _refuse(
                path,
                4 * index,
                f"shard {name}",
                expected,
                int(ints[index]),
                "this is no token shard of the challenge: prepare the dataset again",
            )
    n_tokens = int(ints[2])
    if not 0 <= n_tokens <= MAX_TOKENS:
        raise _refuse(
            path,
            8,
            "number of tokens",
            f"0 to {MAX_TOKENS:,}",
            f"{n_tokens:,}",
            "the header is damaged: fetch or prepare the file again",
        )
    if ints[3:].any():
        index = 3 + int(np.flatnonzero(ints[3:])[0])
        raise _refuse(
            path,
            4 * index,
            "rest of the header",
            "zeros",
            int(ints[index]),
            "another format, or a damaged header: prepare the dataset again",
        )
    if n_bytes != HEADER_BYTES + 2 * n_tokens:
        raise _refuse(
            path,
            min(n_bytes, HEADER_BYTES + 2 * n_tokens),
            "end of file",
            f"{HEADER_BYTES + 2 * n_tokens:,} bytes for {n_tokens:,} tokens",
            f"{n_bytes:,} bytes",
            "the file was cut short or added to: fetch or prepare it again",
        )
    return n_tokens


def check_ids(tokens_T: Tokens, vocab_size: int, path: Path) -> None:
    """Raise UsageError, naming the first one, if an id is not below `vocab_size`. tokens_T: uint16."""
    for start in range(0, len(tokens_T), CHECK_TOKENS):
        block = tokens_T[start : start + CHECK_TOKENS]
        if int(block.max()) >= vocab_size:
            index = start + int(np.argmax(block >= vocab_size))
            raise _refuse(
                path,
                HEADER_BYTES + 2 * index,
                f"token {index:,}",
                f"an id below {vocab_size:,}",
                int(tokens_T[index]),
                "the shard was made with another tokenizer than this dataset's",
            )


def read_tokens(path: Path, vocab_size: int) -> Tokens:
    """A shard's ids as a read-only memory map: tokens_T, uint16. Raises UsageError for a damaged shard."""
    n_tokens = read_header(path)
    if n_tokens == 0:
        tokens_T: Tokens = np.zeros(0, dtype="<u2")
        tokens_T.flags.writeable = False
        return tokens_T
    tokens_T = np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(n_tokens,))
    check_ids(tokens_T, vocab_size, path)
    return tokens_T


def write_tokens(path: Path, tokens_T: Tokens) -> None:
    """Write one shard atomically. tokens_T: uint16."""
    if tokens_T.dtype != np.uint16 or tokens_T.ndim != 1:
        raise ValueError(
            f"expected uint16 in one dimension, found {tokens_T.dtype} of shape {tokens_T.shape}"
        )
    with atomic_file(path) as file:
        file.write(header(len(tokens_T)))
        file.write(np.ascontiguousarray(tokens_T, dtype="<u2").data)


def count_documents(tokens_T: Tokens) -> int:
    """How many documents begin in these tokens: the number of BOS. tokens_T: uint16."""
    return sum(
        int(np.count_nonzero(tokens_T[start : start + CHECK_TOKENS] == BOS_ID))
        for start in range(0, len(tokens_T), CHECK_TOKENS)
    )
