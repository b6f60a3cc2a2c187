"""What runs in a container of the contestants' own image between a scorer and its witness, and clears what both can touch.

Two containers of one image share the page cache of its files: which pages are in memory can be set by one and read by the
other (89,000 bits through one library in 0.6 s, docs/certificate.md). When every file has been read in full, all pages are
there and say nothing. GPU memory that the scorer left is overwritten, all that is free of each card. This is a script for
the image's Python, never imported here. Not covered: files that the contestants' user may not read, since it cannot open
them either; a machine whose memory does not hold the image; caches inside the processor.
"""

from __future__ import annotations

SCRIPT = r"""
import os
import sys

SKIPPED = {"proc", "sys", "dev", "run", "in", "out", "tmp"}  # no image's files, or this container's own
files = n_bytes = 0
for top in sorted(set(os.listdir("/")) - SKIPPED):
    for folder, _, names in os.walk("/" + top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                with open(path, "rb", buffering=0) as file:
                    while piece := file.read(1 << 22):
                        n_bytes += len(piece)
            except PermissionError:
                continue
            files += 1
print(f"{files:,} files of the image read in full ({n_bytes:,} bytes)", end="")
if int(sys.argv[1]):
    import torch
    for card in range(torch.cuda.device_count()):
        kept, piece, filled = [], 1 << 30, 0
        while piece >= 1 << 20:
            try:
                kept.append(torch.full((piece,), 0xA5, dtype=torch.uint8, device=f"cuda:{card}"))
                filled += piece
            except torch.cuda.OutOfMemoryError:
                piece //= 2
        torch.cuda.synchronize(card)
        print(f", {filled:,} bytes of GPU {card} overwritten", end="")
"""
