"""What runs in a container of the contestants' own image between a scorer and its witness, and clears what
both can touch.

Two containers of one image share the page cache of its files: which pages are in memory can be set by one and
read by the other, 1,024 bits with one or two wrong (docs/certificate.md, Isolation). So every file is let go:
the kernel drops its pages. To read every file in full does not close the channel: pages that were read alone
are read at another speed afterwards than those read ahead together. GPU memory that the scorer left is
overwritten, all that is free of each card. This is a script for the image's Python, never imported here. Not
covered: files that the contestants' user may not open, since it cannot read them either; pages that this
script's own Python maps, or a process of another container, which stay; caches inside the processor."""

from __future__ import annotations

SCRIPT = r"""
import os
import sys

SKIPPED = {"proc", "sys", "dev", "in", "out", "tmp"}  # no image's files, or this container's own
files = 0
for top in sorted(set(os.listdir("/")) - SKIPPED):
    for folder, _, names in os.walk("/" + top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except PermissionError:
                continue
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
            files += 1
print(f"{files:,} files of the image let go from the page cache", end="")
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
