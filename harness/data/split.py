"""Split documents into train and validation by a hash of their text.

Such a split depends on the text alone: on no seed, no order and no other document. It exists because a
preparation script's default once put 80 % of the validation documents into training (#2127), which nobody
noticed until counts of shards were compared.

Not covered: near-duplicates. Two texts that differ by a comma are two documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def document_hash(text: str) -> str:
    """SHA-256 of the text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def is_validation(text: str, one_in: int) -> bool:
    """Whether this document is a candidate for validation, as one in `one_in` documents is."""
    return int(document_hash(text), 16) % one_in == 0


def nearest_cut(n_tokens: Sequence[int], target: int) -> int:
    """How many documents, taken from the first on, come nearest to `target` tokens together; at least one.

    n_tokens: the documents' lengths.
    """
    best, best_distance, total = 1, None, 0
    for count, length in enumerate(n_tokens, start=1):
        total += length
        distance = abs(total - target)
        if best_distance is None or distance < best_distance:
            best, best_distance = count, distance
    return best
